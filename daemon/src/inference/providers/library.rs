//! Plugin libraries on disk: which there are, and what they looked like. Never loads one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use sha2::{Digest as _, Sha256};

/// Most plugin libraries that are looked at; a directory with more is a mistake.
const LIBRARIES_MAX: usize = 32;

/// Where plugin libraries are looked for when the configuration names no directory. Below /usr/lib, from where the unit lets code be
/// loaded; never where the daemon can write.
pub const STANDARD_DIR: &str = "/usr/lib/autoglm-edge/providers";

/// The plugin libraries in `dir` and in its direct sub-directories, by name: a file `*.so` whose name has `onnx` or `_ep_` or `provider` in it, since
/// packages put what a provider itself needs beside it.
pub(super) fn list(dir: &Path) -> Vec<PathBuf> {
    let mut found = libraries(dir);
    let mut dirs: Vec<PathBuf> = entries(dir).filter(|path| path.is_dir()).collect();
    dirs.sort();
    for dir in dirs {
        found.extend(libraries(&dir));
    }
    found.truncate(LIBRARIES_MAX);
    found
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn libraries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(dir)
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            path.is_file()
                && name.is_some_and(|name| {
                    name.ends_with(".so")
                        && ["onnx", "_ep_", "provider"]
                            .iter()
                            .any(|part| name.contains(part))
                        && !name.ends_with("providers_shared.so")
                })
        })
        .collect();
    found.sort();
    found
}

/// SHA-256 of the file, as 64 hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}

/// Names, sizes and times of all libraries in the directory of `path`: changes when a part that a provider loads by itself is
/// replaced. Read whole they would take seconds: OpenVINO's are 150 MB.
pub(super) fn surroundings(path: &Path) -> String {
    let mut lines: Vec<String> = path
        .parent()
        .into_iter()
        .flat_map(entries)
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let facts = fs::metadata(&path).ok()?;
            if !name.contains(".so") || !facts.is_file() {
                return None;
            }
            let modified = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(format!("{name} {} {}", facts.len(), modified.as_nanos()))
        })
        .collect();
    lines.sort();
    hex::encode(Sha256::digest(lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_told_from_what_they_need_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("openvino");
        fs::create_dir(&package).unwrap();
        for name in [
            "libonnxruntime_providers_openvino_plugin.so",
            "libonnxruntime_providers_shared.so",
            "libopenvino_intel_npu_plugin.so",
            "libopenvino.so.2541",
            "cache.json",
        ] {
            fs::write(package.join(name), name).unwrap();
        }
        fs::write(dir.path().join("libmy_ep_cpu.so"), "").unwrap();
        let found = list(dir.path());
        assert_eq!(
            found,
            [
                dir.path().join("libmy_ep_cpu.so"),
                package.join("libonnxruntime_providers_openvino_plugin.so")
            ]
        );
        let before = surroundings(&found[1]);
        fs::write(package.join("libopenvino.so.2541"), "another version").unwrap();
        assert_ne!(surroundings(&found[1]), before);
        assert!(list(Path::new("/nowhere")).is_empty());
    }
}
