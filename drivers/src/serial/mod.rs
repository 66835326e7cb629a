//! Serial lines through tokio-serial.
//!
//! Opens a tty exclusively (`TIOCEXCL` and `flock`), 8N1, without flow control, and says in words what went wrong.
//! It never looks for ports and never reopens one. After an unplug tokio-serial's reads return
//! `Ok(0)` for ever: whoever reads (the port) takes zero bytes as a lost link.

use std::io;
use std::path::{Path, PathBuf};

use tokio_serial::{DataBits, ErrorKind, FlowControl, SerialPortBuilderExt as _, SerialStream};

pub use tokio_serial::{Parity, StopBits};

/// Why a serial line could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing by that name: the adapter is unplugged, or the path is mistyped.
    #[error(
        "{path}: no such port (is the adapter plugged in? `ls -l /dev/serial/by-id` lists those that are)"
    )]
    Missing {
        /// The path that was tried.
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
    #[error("{path}: in use by another program (`fuser {path}` names it)")]
    InUse {
        /// The path that was tried.
        path: PathBuf,
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

/// Opens a serial line exclusively, 8N1.
///
/// # Errors
/// [`OpenError`], by what the person at the box can do about it.
pub fn open(path: &Path, baud: u32) -> Result<SerialStream, OpenError> {
    open_as(path, baud, Parity::None, StopBits::One)
}

/// Opens a serial line exclusively with the character format of a foreign protocol, eight data bits.
///
/// # Errors
/// As [`open`].
pub fn open_as(
    path: &Path,
    baud: u32,
    parity: Parity,
    stop_bits: StopBits,
) -> Result<SerialStream, OpenError> {
    let owned = || path.to_owned();
    // serialport folds ENOENT, ENXIO and EBUSY into one kind; ask the file system first.
    if !path.exists() {
        return Err(OpenError::Missing { path: owned() });
    }
    let opened = tokio_serial::new(path.to_string_lossy(), baud)
        .data_bits(DataBits::Eight)
        .parity(parity)
        .stop_bits(stop_bits)
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
        ErrorKind::NoDevice if path.exists() => OpenError::InUse { path: owned() },
        ErrorKind::NoDevice | ErrorKind::Io(io::ErrorKind::NotFound) => {
            OpenError::Missing { path: owned() }
        }
        _ => OpenError::Other {
            path: owned(),
            baud,
            source: error.into(),
        },
    })
}
