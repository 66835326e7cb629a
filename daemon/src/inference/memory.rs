//! Whether a model fits, asked before it is loaded: a model that does not would take the whole daemon with it.
//!
//! A rough estimate against what the kernel says is left; it refuses what cannot work, and promises nothing. Pure but for reading `/proc`
//! and `/sys/fs/cgroup`; where nothing can be read, nothing is refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{bundle::Bundle, error::LoadError, manifest::Graph, stt, tts::RUN_PHONEMES_MAX};

/// Weights are read once and packed once more for the processor. Measured: a graph of 106 MB with a cache of 95 MB took 335 MB at most.
const COPIES: u64 = 2;

/// Of floats: whether the cache can hold bytes is known when the graph has been read.
const KV_BYTES: u64 = 4;

/// What a voice takes for each phoneme of a run, while it runs. Measured: 803 ids (phonemes and pads) of the default voice took 333 MB, 200 took 88.
const PHONEME_BYTES: u64 = 880 << 10;

/// What may still be taken, and who says so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) bytes: u64,
    limit: String,
}

/// The tightest of all limits, now.
pub(super) fn room() -> Option<Room> {
    rooms(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
        .into_iter()
        .min_by_key(|room| room.bytes)
}

/// The least of the machine's memory and what the control groups from ours upwards may take, in bytes.
pub(super) fn smallest_total(proc: &Path, cgroups: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let machine = kib(&meminfo, "MemTotal:").map(|kib| kib << 10);
    let groups = groups(proc, cgroups);
    let limits = groups.iter().filter_map(|dir| number(dir, "memory.max"));
    limits.chain(machine).min()
}

/// Refuses a bundle that would not fit.
///
/// # Errors
/// [`LoadError::Memory`].
pub(super) fn check(bundle: &Bundle, context_tokens: usize) -> Result<(), LoadError> {
    let needed = estimate(bundle, context_tokens);
    match room() {
        Some(room) if needed > room.bytes => Err(LoadError::Memory {
            path: bundle.path(bundle.manifest().graph.file()),
            needed_mib: needed.div_ceil(1 << 20),
            available_mib: room.bytes >> 20,
            limit: room.limit,
        }),
        _ => Ok(()),
    }
}

/// Bytes for the weights, and for what grows with the work: the key-value cache of chat, the window of speech to text, a voice's longest run.
pub(super) fn estimate(bundle: &Bundle, context_tokens: usize) -> u64 {
    let manifest = bundle.manifest();
    let graph_file = manifest.graph.file();
    let further = match &manifest.graph {
        Graph::Whisper(graph) => Some(graph.decoder.file.as_str()),
        _ => None,
    };
    // The graph and the file of its weights, which has the graph's name in front.
    let weights: u64 = manifest
        .files
        .iter()
        .filter(|(name, _)| {
            name.starts_with(graph_file) || further.is_some_and(|further| name.starts_with(further))
        })
        .map(|(_, facts)| facts.bytes)
        .fold(0, u64::saturating_add);
    let cache = match &manifest.graph {
        Graph::Chat(graph) => [
            2,
            graph.layers,
            graph.kv_heads,
            graph.head_dim,
            graph.context_tokens.min(context_tokens),
        ]
        .into_iter()
        .fold(KV_BYTES, |product, count| {
            product.saturating_mul(count as u64)
        }),
        Graph::Whisper(graph) => stt::working_bytes(graph),
        Graph::Tts(_) => PHONEME_BYTES.saturating_mul(RUN_PHONEMES_MAX as u64),
        _ => 0,
    };
    weights.saturating_mul(COPIES).saturating_add(cache)
}

/// Everybody's limit: the machine's, and that of each control group from ours upwards.
fn rooms(proc: &Path, cgroups: &Path) -> Vec<Room> {
    let mut rooms = Vec::new();
    let meminfo = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let available = kib(&meminfo, "MemAvailable:");
    rooms.extend(available.map(|kib| Room {
        bytes: kib << 10,
        limit: "MemAvailable".into(),
    }));
    for dir in groups(proc, cgroups) {
        // `max` is no number: no limit.
        if let (Some(max), Some(current)) =
            (number(&dir, "memory.max"), number(&dir, "memory.current"))
        {
            // Files that were read count as used, and make room when asked.
            let reclaimable = stat(&dir, "inactive_file").unwrap_or(0);
            rooms.push(Room {
                bytes: max.saturating_sub(current.saturating_sub(reclaimable)),
                limit: format!("{}/memory.max is {} MiB", dir.display(), max >> 20),
            });
        }
    }
    rooms
}

/// Our control group and those around it, the innermost first.
fn groups(proc: &Path, cgroups: &Path) -> Vec<PathBuf> {
    let own = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.filter(|path| !path.contains(".."));
    let dir = own.map_or_else(PathBuf::new, |path| cgroups.join(path));
    let around = dir.ancestors().take_while(|dir| dir.starts_with(cgroups));
    around.map(Path::to_path_buf).collect()
}

fn number(dir: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(name)).ok()?;
    text.trim().parse::<u64>().ok()
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn stat(dir: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join("memory.stat")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, cgroups) = (dir.path().join("proc"), dir.path().join("cgroup"));
        let unit = cgroups.join("system.slice/edge.service");
        fs::create_dir_all(&unit).unwrap();
        fs::create_dir_all(proc.join("self")).unwrap();
        fs::write(
            proc.join("meminfo"),
            "MemTotal: 9 kB\nMemAvailable:    4096 kB\n",
        )
        .unwrap();
        fs::write(proc.join("self/cgroup"), "0::/system.slice/edge.service\n").unwrap();
        fs::write(unit.join("memory.max"), "max\n").unwrap();
        fs::write(unit.join("memory.current"), "5\n").unwrap();
        let slice = unit.parent().unwrap();
        fs::write(slice.join("memory.max"), "3145728\n").unwrap();
        fs::write(slice.join("memory.current"), "2097152\n").unwrap();
        fs::write(slice.join("memory.stat"), "anon 7\ninactive_file 1048576\n").unwrap();
        let rooms = rooms(&proc, &cgroups);
        assert_eq!(rooms.len(), 2, "{rooms:?}");
        assert_eq!((rooms[0].bytes, rooms[1].bytes), (4 << 20, 2 << 20));
        assert!(rooms[1].limit.contains("system.slice/memory.max is 3 MiB"));
        assert!(super::rooms(Path::new("/nowhere"), Path::new("/nowhere")).is_empty());
        assert_eq!(smallest_total(&proc, &cgroups), Some(9 << 10));
        fs::write(proc.join("meminfo"), "MemTotal: 9000 kB\n").unwrap();
        assert_eq!(smallest_total(&proc, &cgroups), Some(3 << 20));
        assert_eq!(
            smallest_total(Path::new("/nowhere"), Path::new("/nowhere")),
            None
        );
    }
}
