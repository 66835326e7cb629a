//! Bytes over a pseudo-terminal and back: two blocking threads, no protocol.

use std::fs::File;
use std::io::{Read as _, Write as _};

use anyhow::Context as _;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// A line with an echo at its far end.
#[derive(Debug)]
pub struct LineEcho {
    near: File,
    back: Vec<u8>,
}

impl LineEcho {
    /// Makes the line and starts the echo, which ends with the line.
    ///
    /// # Errors
    /// When there is no pseudo-terminal.
    pub fn new() -> anyhow::Result<Self> {
        let pair = openpty(None, None).context("no pseudo-terminal could be made")?;
        let mut mode = tcgetattr(&pair.slave)?;
        cfmakeraw(&mut mode);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &mode)?;
        let mut far = File::from(pair.slave);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = far.read(&mut bytes) {
                if far.write_all(&bytes[..count]).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            near: File::from(pair.master),
            back: Vec::new(),
        })
    }

    /// Sends so many bytes and waits until they are all back.
    ///
    /// # Errors
    /// When the line fails.
    pub fn round_trip(&mut self, bytes: usize) -> anyhow::Result<()> {
        let frame = vec![0x5a; bytes];
        self.near.write_all(&frame)?;
        self.back.resize(bytes, 0);
        self.near.read_exact(&mut self.back)?;
        anyhow::ensure!(self.back == frame, "the line garbles");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let mut echo = LineEcho::new().unwrap();
        for bytes in [1, 64, 3000] {
            echo.round_trip(bytes).unwrap();
        }
    }
}
