//! The device's end of a serial line: a pseudo-terminal that it makes, or a real port.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio_serial::{SerialPort as _, SerialPortBuilderExt as _, SerialStream};

/// The device's end, and what must live as long as it.
#[derive(Debug)]
pub struct Line {
    /// Where the device reads and writes.
    pub stream: SerialStream,
    /// What must live as long as the device.
    pub far_end: Option<FarEnd>,
}

/// The other end of a pseudo-terminal, held open so that the host may come and go; and its name, removed with the device.
#[derive(Debug)]
pub struct FarEnd {
    _stream: SerialStream,
    _link: Link,
}

/// A symbolic link that is removed with its owner, unless another took its place.
#[derive(Debug)]
struct Link {
    path: PathBuf,
    target: String,
}

impl Drop for Link {
    fn drop(&mut self) {
        if std::fs::read_link(&self.path).is_ok_and(|target| target == Path::new(&self.target)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Line {
    /// Makes a pseudo-terminal and names it `path`, as udev would name a plugged-in adapter.
    ///
    /// # Errors
    /// When the system has no pseudo-terminal left or `path` cannot be made.
    pub fn pseudo_terminal(path: &Path) -> anyhow::Result<Self> {
        // The far end is held without any lock: the daemon opens it exclusively, beside us.
        let (stream, far_end) = SerialStream::pair().context("no pseudo-terminal could be made")?;
        let target = far_end.name().context("the pseudo-terminal has no name")?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} is in the way", path.display()));
            }
            _ => {}
        }
        std::os::unix::fs::symlink(&target, path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let link = Link {
            path: path.to_owned(),
            target,
        };
        Ok(Self {
            stream,
            far_end: Some(FarEnd {
                _stream: far_end,
                _link: link,
            }),
        })
    }

    /// Opens a real serial port.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn serial(path: &Path, baud: u32) -> anyhow::Result<Self> {
        let stream = tokio_serial::new(path.to_string_lossy(), baud)
            .open_native_async()
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            stream,
            far_end: None,
        })
    }
}
