//! The autoglm-edge wire protocol: one stack for every link, host and device role, sans-IO.
//!
//! # Calling contract
//! A machine ([`Host`] or [`Device`]) does no I/O, reads no clock and draws no random numbers. Its driver gives it one
//! input (`handle_input`, `handle_timeout`, or a request), then drains it: `poll_event` until `None`, `poll_transmit`
//! until `false`, and then waits for bytes or for the time of `poll_timeout`, which it must ask anew after each round.
//! `now` never goes backwards.
//!
//! `poll_transmit` gives one frame or packet a call. A driver that calls it only when the link takes bytes keeps the
//! promise that a command waits for at most one segment of bulk data; one that drains it into a deep buffer gives that away.
//!
//! # Where to read first
//! `SPEC.md` beside this crate is the protocol; [`wire`] its packets, [`message`] its messages.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod connection;
pub mod device;
mod endpoint;
mod event_queue;
pub mod frame;
pub mod host;
pub mod message;
pub mod secure;
pub mod segment;
mod time;
mod time_sync;
pub mod transfer;
pub mod wire;

pub use connection::{Config, LinkKind, LostReason, PeerInfo, SendError, Standing, Stats};
pub use device::{Device, DeviceEvent};
pub use host::{
    DeliveryState, Host, HostEvent, Reply, Request, RequestError, RequestFailure, RequestId,
};
pub use message::{Fault, FaultCode, LogLevel, Value};
#[cfg(feature = "secure")]
pub use secure::SecretKey;
pub use secure::Security;
pub use time::Instant;
pub use time_sync::{TIME_SYNC_INTERVAL, TimeSample};
