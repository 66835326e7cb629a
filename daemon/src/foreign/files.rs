//! Thing Descriptions in files: `*.td.json` of the configured directory, written by people.
//!
//! An error names the file and the path within it. A description must name a bus or broker that is configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::foreign::ForeignConfig;
use crate::things::binding::gatt::{self, GattThing};
use crate::things::binding::modbus::{self, ModbusThing};
use crate::things::binding::mqtt::{self, MqttThing};
use crate::things::binding::{BindError, Described, form};
use crate::things::description::ThingId;

/// The largest file that is read, in bytes. Real descriptions have some ten thousand.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most files. Chosen as more than a box can serve.
const FILES_MAX: usize = 1024;
/// What files are called.
const ENDING: &str = ".td.json";

/// A description that was bound to its protocol.
#[derive(Debug)]
pub enum Bound {
    /// On a serial bus.
    Modbus(ModbusThing),
    /// Behind a broker.
    Mqtt(MqttThing),
    /// Behind a Bluetooth radio.
    Gatt(GattThing),
}

impl Bound {
    fn described(&self) -> &Described {
        match self {
            Self::Modbus(thing) => &thing.described,
            Self::Mqtt(thing) => &thing.described,
            Self::Gatt(thing) => &thing.described,
        }
    }
}

/// Why a file, or the directory, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Too large, or too many.
    #[error("{path}: {what}")]
    TooMuch {
        /// The file or directory.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
    },
    /// Not JSON.
    #[error("{path}: {source}")]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        #[source]
        source: serde_json::Error,
    },
    /// The description or a form is wrong.
    #[error("{path}: {source}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: BindError,
    },
    /// A protocol that we have no binding for.
    #[error(
        "{path}: forms.href has the scheme {scheme:?} (known: modbus+rtu, modbus+tcp, mqtt, gatt)"
    )]
    Scheme {
        /// The file.
        path: PathBuf,
        /// The scheme.
        scheme: String,
    },
    /// A bus or broker that the configuration does not have.
    #[error(
        "{path}: the forms name {name:?}, which the configuration does not have in [[foreign.{table}]] (it has: {known})"
    )]
    NoSuchSource {
        /// The file.
        path: PathBuf,
        /// The name in the forms.
        name: String,
        /// The configuration's table.
        table: &'static str,
        /// What it has.
        known: String,
    },
    /// Reached by Bluetooth, which the configuration does not have.
    #[error(
        "{path}: the forms lead to a Bluetooth device, and the configuration has no [foreign.ble]"
    )]
    NoRadio {
        /// The file.
        path: PathBuf,
    },
    /// Two files describe one thing.
    #[error("{path}: the thing {id} is described by {other}, too")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The thing.
        id: ThingId,
        /// The other file.
        other: PathBuf,
    },
}

/// Reads all descriptions, in the order of their names: each is bound, or says why not.
#[must_use]
pub fn load(config: &ForeignConfig) -> Vec<Result<Bound, FileError>> {
    let Some(directory) = &config.things else {
        return Vec::new();
    };
    let paths = match paths(directory) {
        Ok(paths) => paths,
        Err(error) => return vec![Err(error)],
    };
    let mut seen: BTreeMap<ThingId, PathBuf> = BTreeMap::new();
    paths
        .into_iter()
        .map(|path| {
            let bound = read(&path).and_then(|bound| known(config, &path, bound))?;
            let id = bound.described().description.id.clone();
            match seen.insert(id.clone(), path.clone()) {
                None => Ok(bound),
                Some(other) => Err(FileError::Twice { path, id, other }),
            }
        })
        .collect()
}

fn paths(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_one = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.ends_with(ENDING) && !name.starts_with('.'));
        if is_one {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(FileError::TooMuch {
                path: directory.to_owned(),
                what: "more than 1024 descriptions",
            });
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads and binds one file.
///
/// # Errors
/// [`FileError`] names the file and the path within it.
pub fn read(path: &Path) -> Result<Bound, FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(FileError::TooMuch {
            path: path.to_owned(),
            what: "more than 1 MiB",
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let document = serde_json::from_str(&text).map_err(|source| FileError::NotJson {
        path: path.to_owned(),
        source,
    })?;
    let wrong = |source| FileError::Wrong {
        path: path.to_owned(),
        source,
    };
    let described = Described::from_value(document).map_err(wrong)?;
    let scheme = form::scheme(&described.description).map_err(|error| wrong(error.into()))?;
    match scheme.as_str() {
        scheme if modbus::SCHEMES.contains(&scheme) => ModbusThing::bind(described)
            .map(Bound::Modbus)
            .map_err(wrong),
        mqtt::SCHEME => MqttThing::bind(described).map(Bound::Mqtt).map_err(wrong),
        gatt::SCHEME => GattThing::bind(described).map(Bound::Gatt).map_err(wrong),
        _ => Err(FileError::Scheme {
            path: path.to_owned(),
            scheme,
        }),
    }
}

/// Whether the bus or broker is configured.
fn known(config: &ForeignConfig, path: &Path, bound: Bound) -> Result<Bound, FileError> {
    let (name, table, known): (_, _, Vec<&str>) = match &bound {
        Bound::Modbus(thing) => (
            &thing.bus,
            "modbus",
            config.modbus.iter().map(|bus| bus.name.as_str()).collect(),
        ),
        Bound::Mqtt(thing) => (
            &thing.broker,
            "mqtt",
            config
                .mqtt
                .iter()
                .map(|broker| broker.name.as_str())
                .collect(),
        ),
        Bound::Gatt(_) => {
            return match config.ble {
                Some(_) => Ok(bound),
                None => Err(FileError::NoRadio {
                    path: path.to_owned(),
                }),
            };
        }
    };
    if known.contains(&name.as_str()) {
        return Ok(bound);
    }
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Err(FileError::NoSuchSource {
        path: path.to_owned(),
        name: name.clone(),
        table,
        known,
    })
}
