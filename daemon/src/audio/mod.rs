//! Sound in files and streams. No models, no devices.

pub mod write;
