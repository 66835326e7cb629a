//! A serial cable between a device and the box that can be pulled while both ends live on.

use std::path::PathBuf;
use std::process::Command;

use crate::edge_box::PATIENCE;
use crate::process::{Process, program, wait_for};

/// The cable, from the device's line to the name that the box knows. Pulled when dropped.
#[derive(Debug)]
pub struct Cable {
    device: PathBuf,
    host: PathBuf,
    carrying: Option<Process>,
}

impl Cable {
    /// Plugs in a cable.
    ///
    /// # Errors
    /// When an end cannot be made.
    pub fn plugged(device: PathBuf, host: PathBuf) -> anyhow::Result<Self> {
        let mut cable = Self {
            device,
            host,
            carrying: None,
        };
        cable.plug()?;
        Ok(cable)
    }

    /// Plugs it in again, as a new pseudo-terminal under the same name.
    ///
    /// # Errors
    /// When an end cannot be made.
    pub fn plug(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(program("simulated-cable")?);
        self.carrying = Some(Process::start(command.arg(&self.device).arg(&self.host))?);
        wait_for("the cable", PATIENCE, || self.host.exists())
    }

    /// Pulls it.
    pub fn pull(&mut self) {
        self.carrying = None;
    }
}
