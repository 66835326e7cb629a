//! The host's end: asks a device, and hears from it.
//!
//! # Asking again
//! A request may end without the caller knowing whether the device executed it:
//! [`RequestFailure::ConnectionLost`] or [`RequestFailure::DeadlineExceeded`] with a [`DeliveryState`] above
//! [`DeliveryState::NotSent`]. After a reconnection to a device with the *same boot id* the caller may ask the same request
//! under the same [`RequestId`]: the device executes the request if it never arrived, and otherwise gives the remembered
//! result. Its memory holds every request that runs, every answer that the host's machine has not received and whose
//! deadline has not passed, and beyond these the latest, 64 in all by default; so ask again before the deadline. After
//! another boot id that memory is gone, and only the caller can decide whether doing it twice is harmless.
//!
//! The machine never repeats a request on its own across connections, and never reads a document it carries.

mod description;
mod event;
mod inbound;
mod machine;
mod open;
mod request;

pub use event::HostEvent;
pub use machine::Host;
pub use request::{DeliveryState, Reply, Request, RequestError, RequestFailure, RequestId};
