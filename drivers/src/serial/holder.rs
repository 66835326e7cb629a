//! Who has a serial port open, as far as /proc tells us: root sees everybody, others their own processes, and a service under
//! `ProtectProc=invisible` itself.

use std::fmt;
use std::fs;
use std::path::Path;

/// A process that has a port open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub process: u32,
    /// Its name, as the kernel has it (15 bytes at most).
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process == std::process::id() {
            true => out.write_str("this program itself"),
            false => write!(out, "{} (process {})", self.name, self.process),
        }
    }
}

/// The processes that have `node` open, by their ids. Blocks for as long as it takes to look through /proc: some milliseconds.
#[must_use]
pub fn holders(node: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut holders: Vec<Holder> = processes
        .flatten()
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let place = entry.path();
            // Processes end and are not ours: what cannot be read holds nothing that we could name.
            let is_holder = fs::read_dir(place.join("fd"))
                .ok()?
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|target| target == node));
            is_holder.then(|| Holder {
                process,
                name: name(&place),
            })
        })
        .collect();
    holders.sort_by_key(|holder| holder.process);
    holders
}

fn name(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim_end().to_owned()
}
