//! The host's end: asks a device, and hears from it.

mod event;
mod request;

pub use event::HostEvent;
pub use request::{DeliveryState, Reply, Request, RequestError, RequestFailure, RequestId};

use alloc::vec::Vec;
use core::time::Duration;

use crate::{Config, Instant, LinkKind, Stats};

/// Shape only.
#[derive(Debug)]
pub struct Host {}

impl Host {
    /// A host machine.
    #[must_use]
    pub fn new(_config: Config, _link: LinkKind, _boot_id: u32, _epoch: u32) -> Self {
        Self {}
    }
    /// Takes bytes (stream) or one packet (datagram).
    pub fn handle_input(&mut self, _now: Instant, _bytes: &[u8]) {}
    /// The time of [`Host::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, _now: Instant) {}
    /// Appends one frame or packet to `out`; call until false.
    pub fn poll_transmit(&mut self, _now: Instant, _out: &mut Vec<u8>) -> bool {
        false
    }
    /// The next event.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        None
    }
    /// When to call [`Host::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// Asks the device.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn request(
        &mut self,
        _now: Instant,
        _id: RequestId,
        _request: Request,
        _deadline: Duration,
    ) -> Result<(), RequestError> {
        Err(RequestError::NotConnected)
    }
    /// No longer wants the answer.
    pub fn cancel(&mut self, _now: Instant, _id: RequestId) {}
    /// Tells the device the time.
    ///
    /// # Errors
    /// Not connected, or no room.
    pub fn time_sync(&mut self, _now: Instant, _unix_micros: u64) -> Result<(), crate::SendError> {
        Err(crate::SendError::NotConnected)
    }
    /// Ends the connection for good.
    pub fn close(&mut self, _now: Instant) {}
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
