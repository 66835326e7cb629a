//! The device's end: is asked, and reports.
//!
//! Writes and invocations are surfaced at most once per request id, as long as this machine lives: [`Device`] keeps a
//! bounded memory of ids with their results, which outlives connections. A repeated id is answered from it. The memory
//! gives up an answer only when the host's transport has acknowledged it, or when its deadline has passed; if neither frees a
//! place, a new request is refused as [`FaultCode::Busy`](crate::FaultCode::Busy).
//!
//! It never interprets names or values: that is the Thing's business.

mod answers;
mod event;
mod inbound;
mod incoming;
mod machine;
mod memory;

pub use event::DeviceEvent;
pub use machine::{Device, UnknownRequest};
