//! What the figures were measured on.

use std::fs::read_to_string;
use std::path::Path;

use super::bundles::Bundles;

/// One line for each fact; "unknown" where the system does not tell.
#[must_use]
pub fn description(bundles: &Bundles) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let profile = match cfg!(debug_assertions) {
        true => "dev (not what users run: build with --release)",
        false => "release",
    };
    let directory = std::env::temp_dir();
    let facts = [
        ("processor", format!("{}, {cores} cores", processor())),
        ("memory", memory()),
        ("load average", load()),
        (
            "kernel",
            format!("Linux {}", first_line("/proc/sys/kernel/osrelease")),
        ),
        (
            "temporary files",
            format!("{} on {}", directory.display(), file_system(&directory)),
        ),
        ("ONNX Runtime", bundles.runtime_name()),
        ("profile", profile.to_owned()),
    ];
    facts
        .map(|(name, fact)| format!("- {name}: {fact}"))
        .join("\n")
}

/// The load average of the last 1, 5 and 15 minutes.
#[must_use]
pub fn load() -> String {
    let line = first_line("/proc/loadavg");
    line.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn first_line(path: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The value of the first line `name : value` of a file under /proc.
fn entry(path: &str, name: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn processor() -> String {
    let named = ["model name", "Model", "Hardware"]
        .iter()
        .find_map(|name| entry("/proc/cpuinfo", name));
    named.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn memory() -> String {
    let kib = entry("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    kib.map_or("unknown".to_owned(), |kib| {
        format!("{:.1} GiB", kib / f64::from(1 << 20))
    })
}

/// The type of the file system that a path is on: commits cost what its fsync costs.
fn file_system(path: &Path) -> String {
    let mounts = read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found = ("", "unknown");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        // Later mounts hide earlier ones at the same place.
        if let (Some(place), Some(kind)) = (words.next(), words.next())
            && path.starts_with(place)
            && place.len() >= found.0.len()
        {
            found = (place, kind);
        }
    }
    found.1.to_owned()
}
