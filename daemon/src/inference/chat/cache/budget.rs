//! How many tokens of cache the machine has memory for.
//!
//! `tokens = limit / bytes per token`, `bytes per token = 2 * layers * kv_heads * head_dim * bytes per element` (12 kB for the default
//! model; 46 of floats), `limit = min(2 GiB, half of the memory that the machine and the service's cgroup allow)`. A context that does not
//! fit alone is refused when the model is loaded; several share what there is.

use std::{fs, path::Path};

/// Most bytes for all caches of one model together. Chosen as half of the memory of a 4 GB box.
const LIMIT_BYTES: u64 = 2 << 30;

/// Bytes that the caches may take on this machine.
pub(in super::super) fn limit_bytes() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let machine = total_bytes(&read(Path::new("/proc/meminfo")));
    let group = group_path(&read(Path::new("/proc/self/cgroup")))
        .map(|path| Path::new("/sys/fs/cgroup").join(path).join("memory.max"))
        .and_then(|path| read(&path).trim().parse().ok());
    limit(machine, group)
}

fn limit(machine: Option<u64>, group: Option<u64>) -> u64 {
    [machine, group]
        .into_iter()
        .flatten()
        .map(|bytes| bytes / 2)
        .fold(LIMIT_BYTES, u64::min)
}

/// `MemTotal` of `/proc/meminfo` (proc(5)), in bytes.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Where the process stands in the unified hierarchy (cgroups(7)), without the leading slash.
fn group_path(cgroup: &str) -> Option<&str> {
    cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(|path| path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_machine_group_and_constant_counts() {
        const GIB: u64 = 1 << 30;
        assert_eq!(limit(Some(64 * GIB), None), LIMIT_BYTES);
        assert_eq!(limit(Some(2 * GIB), None), GIB);
        assert_eq!(limit(Some(4 * GIB), Some(GIB)), GIB / 2);
        assert_eq!(limit(None, None), LIMIT_BYTES);
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(
            total_bytes("MemFree: 1 kB\nMemTotal:  4000 kB\n"),
            Some(4_096_000)
        );
        assert_eq!(total_bytes("nothing"), None);
        assert_eq!(
            group_path("1:name=x:/a\n0::/system.slice/edge.service\n"),
            Some("system.slice/edge.service")
        );
    }
}
