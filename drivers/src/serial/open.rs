//! Opens serial lines, exclusively, and says in words what went wrong.

use std::io;
use std::path::{Path, PathBuf};

use tokio_serial::{
    DataBits, ErrorKind, FlowControl, Parity, SerialPortBuilderExt as _, SerialStream, StopBits,
};

use super::holder::{Holder, holders};
use super::place::SerialPlace;
use super::tty::{Found, Ttys};
use super::watch::TtyWatch;

/// Why a serial line could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing by that name: the adapter is unplugged, or the path is mistyped.
    #[error(
        "{place}: no such port (is the adapter plugged in? `autoglmctl ports` lists those that are)"
    )]
    Missing {
        /// What was looked for.
        place: String,
    },
    /// Several adapters fit.
    #[error(
        "{place} fits {}: name the one that is meant by its serial number, by ?interface= and &port=, or by a path",
        list(.nodes)
    )]
    Several {
        /// What was looked for.
        place: String,
        /// Which ports fit.
        nodes: Vec<PathBuf>,
    },
    /// It has just been plugged in: its group and its names are not set yet.
    #[error("{path}: udev has not finished with it yet")]
    Unready {
        /// The port.
        path: PathBuf,
    },
    /// The daemon's user may not open it.
    #[error(
        "{path}: permission denied (the daemon's user must be in the group that owns it, usually dialout)"
    )]
    Denied {
        /// The path that was tried.
        path: PathBuf,
    },
    /// Another program holds it exclusively.
    #[error("{path}: in use by {}", by(.holders, .path))]
    InUse {
        /// The path that was tried.
        path: PathBuf,
        /// Who has it open, as far as that can be seen from here.
        holders: Vec<Holder>,
    },
    /// Anything else, with the system's words.
    #[error("{path}: cannot open at {baud} baud")]
    Other {
        /// The path that was tried.
        path: PathBuf,
        /// The speed that was asked for.
        baud: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn list(nodes: &[PathBuf]) -> String {
    let nodes: Vec<String> = nodes
        .iter()
        .map(|node| node.display().to_string())
        .collect();
    nodes.join(" and ")
}

fn by(holders: &[Holder], path: &Path) -> String {
    if holders.is_empty() {
        return format!(
            "another program (`sudo autoglmctl ports` or `sudo fuser {}` names it)",
            path.display()
        );
    }
    let holders: Vec<String> = holders.iter().map(Holder::to_string).collect();
    holders.join(" and ")
}

/// The form of characters on a line; always eight data bits, never flow control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineFormat {
    /// Speed in baud.
    pub baud: u32,
    /// Parity bit.
    pub parity: Parity,
    /// Stop bits.
    pub stop_bits: StopBits,
}

impl LineFormat {
    /// 8N1 at this speed.
    #[must_use]
    pub fn at(baud: u32) -> Self {
        Self {
            baud,
            parity: Parity::None,
            stop_bits: StopBits::One,
        }
    }
}

/// Finds a place and opens it exclusively. With a watch, a port is opened only after udev's rules have run for it.
///
/// # Errors
/// [`OpenError`], by what the person at the box can do about it.
pub async fn open_place(
    place: &SerialPlace,
    format: LineFormat,
    watch: Option<&TtyWatch>,
) -> Result<SerialStream, OpenError> {
    let ttys = match watch {
        Some(watch) => watch.now().await,
        None => tokio::task::spawn_blocking(super::scan::ttys)
            .await
            .map(Result::unwrap_or_default)
            .unwrap_or_default()
            .into(),
    };
    let is_watched = watch.is_some();
    let path = path(place, &ttys, is_watched)?;
    match open(&path, format) {
        Err(OpenError::InUse { path, .. }) => {
            let node = path.canonicalize().unwrap_or_else(|_| path.clone());
            let found = tokio::task::spawn_blocking(move || holders(&node)).await;
            let holders = found.unwrap_or_default();
            Err(OpenError::InUse { path, holders })
        }
        opened => opened,
    }
}

/// The path to be opened for a place.
fn path(place: &SerialPlace, ttys: &Ttys, is_watched: bool) -> Result<PathBuf, OpenError> {
    match place {
        SerialPlace::Path(path) => {
            // A device of its own is the kernel's; what udev does not know of is tried as it stands.
            let is_kernels = |node: &Path| {
                let name = node.strip_prefix("/dev").ok();
                name.is_some_and(|name| {
                    Path::new("/sys/class/tty")
                        .join(name)
                        .join("device")
                        .exists()
                })
            };
            match path.canonicalize() {
                Ok(node) if is_watched && is_kernels(&node) && !ttys.is_ready(&node) => {
                    Err(OpenError::Unready { path: path.clone() })
                }
                _ => Ok(path.clone()),
            }
        }
        SerialPlace::Usb(_) => match ttys.find(place) {
            Found::Port(node, _) => Ok(node),
            Found::Unready(path) => Err(OpenError::Unready { path }),
            Found::Several(nodes) => Err(OpenError::Several {
                place: place.to_string(),
                nodes,
            }),
            Found::Nothing => Err(OpenError::Missing {
                place: place.to_string(),
            }),
        },
    }
}

/// Opens a serial line exclusively (`TIOCEXCL` and `flock`).
///
/// # Errors
/// [`OpenError`]; who else has it is not looked for.
pub fn open(path: &Path, format: LineFormat) -> Result<SerialStream, OpenError> {
    let owned = || path.to_owned();
    let missing = || OpenError::Missing {
        place: path.display().to_string(),
    };
    // serialport folds ENOENT, ENXIO and EBUSY into one kind; ask the file system first.
    if !path.exists() {
        return Err(missing());
    }
    let opened = tokio_serial::new(path.to_string_lossy(), format.baud)
        .data_bits(DataBits::Eight)
        .parity(format.parity)
        .stop_bits(format.stop_bits)
        .flow_control(FlowControl::None)
        .exclusive(true)
        .open_native_async();
    let error = match opened {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    Err(match error.kind() {
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => OpenError::Denied { path: owned() },
        // EBUSY and a lock that another program holds both come as NoDevice.
        ErrorKind::NoDevice if path.exists() => OpenError::InUse {
            path: owned(),
            holders: Vec::new(),
        },
        ErrorKind::NoDevice | ErrorKind::Io(io::ErrorKind::NotFound) => missing(),
        _ => OpenError::Other {
            path: owned(),
            baud: format.baud,
            source: error.into(),
        },
    })
}
