//! A record written into one plain file and made durable, with nothing around it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A file whose blocks are there already, so that a record costs the disk's own sync and no growing of the file.
#[derive(Debug)]
pub struct SyncedFile {
    file: File,
    bytes: u64,
    at: u64,
}

impl SyncedFile {
    /// Makes it, with room for so many bytes; after that it begins again at its start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, bytes: usize) -> std::io::Result<Self> {
        let file = File::create(path)?;
        file.write_all_at(&vec![0; bytes], 0)?;
        file.sync_all()?;
        Ok(Self {
            file,
            bytes: bytes as u64,
            at: 0,
        })
    }

    /// Writes a record and syncs it.
    ///
    /// # Errors
    /// When the disk does.
    pub fn write(&mut self, record: &[u8]) -> std::io::Result<()> {
        if self.at + record.len() as u64 > self.bytes {
            self.at = 0;
        }
        self.file.write_all_at(record, self.at)?;
        self.at += record.len() as u64;
        self.file.sync_data()
    }
}
