//! The store as JSON lines: one header, one line a record, one end line with their number.
//!
//! An export is replaced atomically (temporary file, sync, rename, sync of the directory), and is what a store that
//! does not open is rebuilt from. Reading is lenient by line, since it is used when something already went wrong:
//! a line that cannot be read is counted and left out; only a missing or foreign header refuses the whole file.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{
    disk::Disk,
    durable::sync_directory,
    error::DiskError,
    schema::{Key, Record, SCHEMA, STEPS, Tree, VALUE_BYTES_MAX, Versioned, migrate, steps_from},
};

/// First field of an export, by which it is known.
const FORMAT: &str = "autoglm-edge-store";

/// Longest line read: a value, its key and the frame, with room for JSON's escapes of the key.
const LINE_BYTES_MAX: u64 = 2 * VALUE_BYTES_MAX as u64;

/// How often an export is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportPolicy {
    /// Least time between two exports. The default is six hours: at most 50 MB written, four times a day,
    /// wears an SD card little, and is all that a damaged store can lose.
    pub interval: Duration,
}

impl Default for ExportPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(6 * 3600),
        }
    }
}

/// Whether an export is due at `now`, when the last one was made at `last`. One that lies in the future is due:
/// the clock was set back, and nobody knows how long ago it was.
pub fn export_due(now: SystemTime, last: Option<SystemTime>, policy: ExportPolicy) -> bool {
    match last.map(|last| now.duration_since(last)) {
        None | Some(Err(_)) => true,
        Some(Ok(age)) => age >= policy.interval,
    }
}

/// What an export or import moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferReport {
    /// Records written to, or taken from, the file.
    pub records: u64,
    /// Records or lines that were not readable, or dropped by a migration.
    pub left_out: u64,
    /// Whether the file had its end line with the right number: if not, it is only a part.
    pub complete: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Header {
        format: String,
        schema: u32,
        exported_unix_ms: u64,
        /// Number of the last batch that it contains.
        sequence: u64,
    },
    Record {
        tree: String,
        key: String,
        format: u8,
        value: serde_json::Value,
    },
    End {
        records: u64,
    },
}

/// Writes all records to `path`.
pub(super) fn write(
    disk: &Disk,
    path: &Path,
    schema: u32,
    now: SystemTime,
) -> Result<TransferReport, DiskError> {
    let partial = path.with_extension("jsonl.partial");
    let file = File::create(&partial).map_err(DiskError::file("create", &partial))?;
    let mut out = BufWriter::new(file);
    let mut report = TransferReport {
        complete: true,
        ..TransferReport::default()
    };
    let mut put = |line: &Line| {
        serde_json::to_writer(&mut out, line)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .map_err(DiskError::file("write", &partial))
    };
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    put(&Line::Header {
        format: FORMAT.to_owned(),
        schema,
        exported_unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        sequence: disk.sequence(),
    })?;
    disk.for_each_record(|record| {
        let Ok(value) = record.value.decode() else {
            report.left_out += 1;
            return Ok(());
        };
        report.records += 1;
        put(&Line::Record {
            tree: record.tree.name().to_owned(),
            key: record.key.as_str().to_owned(),
            format: record.value.format(),
            value,
        })
    })?;
    put(&Line::End {
        records: report.records,
    })?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(DiskError::file("sync", &partial))?;
    keep_previous(path)?;
    fs::rename(&partial, path).map_err(DiskError::file("rename", &partial))?;
    if let Some(parent) = path.parent() {
        sync_directory(parent)?;
    }
    Ok(report)
}

/// Keeps the export that is about to be replaced as `export.previous.jsonl`; at no moment is there none at `path`.
fn keep_previous(path: &Path) -> Result<(), DiskError> {
    let link = path.with_extension("previous.partial");
    let previous = path.with_extension("previous.jsonl");
    let ignore_missing = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    ignore_missing(fs::remove_file(&link))
        .and_then(|()| ignore_missing(fs::hard_link(path, &link)))
        .and_then(|()| ignore_missing(fs::rename(&link, &previous)))
        .map_err(DiskError::file("keep the previous export of", path))
}

/// When an export was made, and what the last batch in it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exported {
    pub(super) at: SystemTime,
    pub(super) sequence: u64,
}

/// What the header of the export at `path` says; `None` where there is none that can be read.
pub(super) fn header(path: &Path) -> Option<Exported> {
    let mut lines = Lines::open(path).ok()?;
    match serde_json::from_slice(lines.next().ok()??) {
        Ok(Line::Header {
            exported_unix_ms,
            sequence,
            ..
        }) => Some(Exported {
            at: UNIX_EPOCH.checked_add(Duration::from_millis(exported_unix_ms))?,
            sequence,
        }),
        _ => None,
    }
}

/// Reads an export and hands each record, brought to the current schema, to `sink`.
pub(super) fn read<E: From<DiskError>>(
    path: &Path,
    mut sink: impl FnMut(Record) -> Result<(), E>,
) -> Result<TransferReport, E> {
    let not_ours = || DiskError::NotOurs {
        what: "the export's header",
    };
    let mut lines = Lines::open(path)?;
    let header = lines.next()?.ok_or_else(not_ours)?;
    let steps = match serde_json::from_slice(header) {
        Ok(Line::Header { format, schema, .. }) if format == FORMAT => {
            steps_from(schema, &STEPS).ok_or(DiskError::SchemaTooNew {
                found: schema,
                known: SCHEMA,
            })?
        }
        _ => return Err(not_ours().into()),
    };
    let mut report = TransferReport::default();
    let mut lines_of_records = 0;
    while let Some(line) = lines.next()? {
        match serde_json::from_slice(line) {
            Ok(Line::End { records }) => {
                report.complete = records == lines_of_records;
                break;
            }
            Ok(Line::Record {
                tree,
                key,
                format,
                value,
            }) => {
                lines_of_records += 1;
                let record =
                    record_of(&tree, key, format, &value).and_then(|record| migrate(record, steps));
                match record {
                    Some(record) => {
                        sink(record)?;
                        report.records += 1;
                    }
                    None => report.left_out += 1,
                }
            }
            Ok(Line::Header { .. }) | Err(_) => report.left_out += 1,
        }
    }
    Ok(report)
}

fn record_of(tree: &str, key: String, format: u8, value: &serde_json::Value) -> Option<Record> {
    Some(Record {
        tree: Tree::from_name(tree)?,
        key: Key::new(key).ok()?,
        value: Versioned::encode(format, value).ok()?,
    })
}

/// Lines of a file, none longer than [`LINE_BYTES_MAX`] in memory: a longer one comes out in pieces, which are no JSON.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, DiskError> {
        let file = File::open(path).map_err(DiskError::file("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            line: Vec::new(),
        })
    }

    fn next(&mut self) -> Result<Option<&[u8]>, DiskError> {
        self.line.clear();
        let mut bounded = self.reader.by_ref().take(LINE_BYTES_MAX);
        let bytes = bounded
            .read_until(b'\n', &mut self.line)
            .map_err(DiskError::file("read", &self.path))?;
        Ok((bytes > 0).then_some(self.line.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn export_is_due_when_never_made_when_old_and_when_the_clock_went_back() {
        let policy = ExportPolicy {
            interval: Duration::from_secs(60),
        };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(export_due(at(100), None, policy));
        assert!(!export_due(at(100), Some(at(41)), policy));
        assert!(export_due(at(100), Some(at(40)), policy));
        assert!(export_due(at(100), Some(at(101)), policy));
    }

    #[test]
    fn torn_export_gives_its_whole_lines_and_says_that_it_is_a_part() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("export.jsonl");
        let header = r#"{"kind":"header","format":"autoglm-edge-store","schema":1,"exported_unix_ms":7,"sequence":3}"#;
        let record =
            r#"{"kind":"record","tree":"twin","key":"lamp","format":1,"value":{"on":true}}"#;
        fs::write(&path, format!("{header}\n{record}\n{}", &record[..30])).unwrap();
        let mut seen = Vec::new();
        let report = read::<DiskError>(&path, |record| {
            seen.push(record.key.as_str().to_owned());
            Ok(())
        });
        let expected = TransferReport {
            records: 1,
            left_out: 1,
            complete: false,
        };
        assert_eq!(report.unwrap(), expected);
        assert_eq!(seen, ["lamp"]);
        assert_eq!(
            super::header(&path),
            Some(Exported {
                at: UNIX_EPOCH + Duration::from_millis(7),
                sequence: 3
            })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            has_header in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("export.jsonl");
            let mut content = Vec::new();
            if has_header {
                content.extend(b"{\"kind\":\"header\",\"format\":\"autoglm-edge-store\",\"schema\":1,\"exported_unix_ms\":7,\"sequence\":3}\n");
            }
            content.extend(&bytes);
            fs::write(&path, &content).unwrap();
            let report = read::<DiskError>(&path, |_| Ok(()));
            prop_assert_eq!(report.is_ok(), has_header, "{:?}", report);
        }
    }
}
