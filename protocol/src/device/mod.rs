//! The device's end: is asked, and reports.

mod event;

pub use event::DeviceEvent;

use alloc::vec::Vec;

use crate::message::{Fault, LogLevel, Value};
use crate::{Config, Instant, LinkKind, RequestId, SendError, Stats};

/// [`Device::respond`] was called for a request that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no open request {}", .0.0)]
pub struct UnknownRequest(pub RequestId);

/// Shape only.
#[derive(Debug)]
pub struct Device {}

impl Device {
    /// A device machine; `description` is the Thing Description as JSON.
    #[must_use]
    pub fn new(
        _config: Config,
        _link: LinkKind,
        _boot_id: u32,
        _epoch: u32,
        _description: &[u8],
    ) -> Self {
        Self {}
    }
    /// Takes bytes (stream) or one packet (datagram).
    pub fn handle_input(&mut self, _now: Instant, _bytes: &[u8]) {}
    /// The time of [`Device::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, _now: Instant) {}
    /// Appends one frame or packet to `out`; call until false.
    pub fn poll_transmit(&mut self, _now: Instant, _out: &mut Vec<u8>) -> bool {
        false
    }
    /// The next event.
    pub fn poll_event(&mut self) -> Option<DeviceEvent> {
        None
    }
    /// When to call [`Device::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// Answers a request.
    ///
    /// # Errors
    /// The request is not open.
    pub fn respond(
        &mut self,
        _now: Instant,
        _id: RequestId,
        _result: Result<Value, Fault>,
    ) -> Result<(), UnknownRequest> {
        Ok(())
    }
    /// Reports how far a running request is.
    ///
    /// # Errors
    /// Not connected, no room, or too large.
    pub fn progress(
        &mut self,
        _now: Instant,
        _id: RequestId,
        _value: Value,
    ) -> Result<(), SendError> {
        Ok(())
    }
    /// Reports a property's change, where it is observed.
    ///
    /// # Errors
    /// No room, or too large.
    pub fn property_changed(
        &mut self,
        _now: Instant,
        _property: &str,
        _value: Value,
    ) -> Result<(), SendError> {
        Ok(())
    }
    /// Raises an event.
    ///
    /// # Errors
    /// Not connected, no room, or too large.
    pub fn event(&mut self, _now: Instant, _name: &str, _data: Value) -> Result<(), SendError> {
        Ok(())
    }
    /// Writes a log line.
    ///
    /// # Errors
    /// Not connected, or no room.
    pub fn log(&mut self, _now: Instant, _level: LogLevel, _text: &str) -> Result<(), SendError> {
        Ok(())
    }
    /// Ends the connection for good.
    pub fn close(&mut self, _now: Instant) {}
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
