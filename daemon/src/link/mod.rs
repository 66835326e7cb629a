//! Devices' links and their supervision.
//!
//! A device, not a link, owns the connection: [`supervisor`] is one task per device, which keeps one port for as long as the
//! device is configured and puts the link below it that [`policy`] (pure, with [`quality`]) chooses. [`introduction`] learns what the
//! device is and hands the Thing to the registry; [`memory`] keeps what it said over restarts; [`protection`] turns configured keys into the protocol's security; [`board`],
//! [`state`] and [`tally`] are what observers see; [`adapters`] is what links share. Nothing here interprets what a device says beyond that.

pub mod adapters;
pub mod board;
pub mod introduction;
pub mod memory;
pub mod policy;
pub mod protection;
pub mod quality;
pub mod state;
pub mod supervisor;
pub mod tally;
