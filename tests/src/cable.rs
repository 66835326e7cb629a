//! A serial cable between a device and the box that can be pulled while both ends live on.

use std::path::PathBuf;
use std::process::Command;

use crate::edge_box::PATIENCE;
use crate::process::{Process, program, wait_for};

/// Whether a cable is noisy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// The cable, from the device's line to the name that the box knows. Pulled when dropped.
#[derive(Debug)]
pub struct Cable {
    device: PathBuf,
    host: PathBuf,
    noise: Option<PathBuf>,
    carrying: Option<Process>,
}

impl Cable {
    /// Plugs in a cable whose both ends are new pseudo-terminals, for a device that opens a port by name. It can be made noisy.
    ///
    /// # Errors
    /// When an end cannot be made.
    pub fn between(device: PathBuf, host: PathBuf) -> anyhow::Result<Self> {
        let noise = host.with_extension("noise");
        let mut cable = Self {
            device,
            host,
            noise: Some(noise),
            carrying: None,
        };
        cable.plug()?;
        Ok(cable)
    }

    /// Lets one bit of each piece of bytes towards the box be turned over, or no longer.
    ///
    /// # Errors
    /// When the cable was not made by [`Cable::between`].
    pub fn set_noise(&self, noise: Noise) -> anyhow::Result<()> {
        let file = self
            .noise
            .as_ref()
            .ok_or_else(|| anyhow::anyhow!("this cable knows no noise"))?;
        match noise {
            Noise::On => std::fs::write(file, "")?,
            Noise::Off => std::fs::remove_file(file)?,
        }
        Ok(())
    }

    /// Plugs in a cable.
    ///
    /// # Errors
    /// When an end cannot be made.
    pub fn plugged(device: PathBuf, host: PathBuf) -> anyhow::Result<Self> {
        let mut cable = Self {
            device,
            host,
            noise: None,
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
        command.arg(&self.device).arg(&self.host);
        if let Some(noise) = &self.noise {
            command.arg("--pair").arg("--noise").arg(noise);
        }
        self.carrying = Some(Process::start(&mut command)?);
        wait_for("the cable", PATIENCE, || self.host.exists())
    }

    /// Breaks it inside: it takes bytes at both ends and carries none, and nobody is told.
    ///
    /// # Errors
    /// When it is not plugged in.
    pub fn sever(&self) -> anyhow::Result<()> {
        let carrying = self.carrying.as_ref();
        carrying
            .ok_or_else(|| anyhow::anyhow!("the cable is not plugged in"))?
            .signal(nix::sys::signal::Signal::SIGSTOP)
    }

    /// Pulls it.
    pub fn pull(&mut self) {
        self.carrying = None;
    }
}
