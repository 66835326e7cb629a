//! What a host can ask of a device, and how the answer can turn out.

use alloc::string::String;
use alloc::vec::Vec;

use crate::message::{Fault, Value};

/// A request's name, chosen by the caller.
///
/// The device remembers it to execute the request at most once, across re-connections and restarts of the host. So an
/// id **must** never be given to a second, different request: draw it at random, or from a durable counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a host can ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Fetch the Thing Description.
    Describe,
    /// Read a property.
    Read {
        /// The property's name.
        property: String,
    },
    /// Write a property.
    Write {
        /// The property's name.
        property: String,
        /// Its new value.
        value: Value,
    },
    /// Be told of every change of a property on this connection; the reply is its value now.
    Observe {
        /// The property's name.
        property: String,
    },
    /// End an [`Request::Observe`].
    Unobserve {
        /// The property's name.
        property: String,
    },
    /// Run an action.
    Invoke {
        /// The action's name.
        action: String,
        /// Its input; [`Value::Null`] where it takes none.
        input: Value,
    },
}

/// A device's favourable answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Request::Describe`].
    Description {
        /// SHA-256 of `document`, checked.
        hash: [u8; 32],
        /// The Thing Description as JSON.
        document: Vec<u8>,
    },
    /// To [`Request::Read`] and [`Request::Observe`]: the value now.
    Value(Value),
    /// To [`Request::Write`], [`Request::Invoke`] and [`Request::Unobserve`]: done, with the action's output.
    Done(Value),
}

/// How far a request got, for the one who must know whether the device may have executed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryState {
    /// No byte of it left this machine: certainly not executed.
    NotSent,
    /// Some of it was sent, no acknowledgement came: it may have been executed.
    Sent,
    /// The device has it in full: it was, is being or will be executed.
    Delivered,
}

/// Why a request ended without a favourable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailure {
    /// The device refused or failed.
    #[error("the device answered: {0}")]
    Fault(Fault),
    /// No answer came in time.
    #[error("no answer before the deadline (request {delivered:?})")]
    DeadlineExceeded {
        /// How far the request got.
        delivered: DeliveryState,
    },
    /// The connection ended first. After a reconnection to the same boot id the same request may be asked again under
    /// the same id.
    #[error("the connection was lost (request {delivered:?})")]
    ConnectionLost {
        /// How far the request got.
        delivered: DeliveryState,
    },
    /// Cancelled by [`Host::cancel`](super::Host::cancel) before any byte of it was sent.
    #[error("cancelled before it was sent")]
    Cancelled,
    /// The device's answer does not fit the request, or the description does not match its hash.
    #[error("the device's answer does not fit the request")]
    BadReply,
    /// The description is larger than [`Config::description_bytes_max`](crate::Config::description_bytes_max).
    #[error("the description has {length} bytes, more than the limit of {limit}")]
    DescriptionTooLarge {
        /// The announced length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Why a request was not taken at all; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no connection now.
    #[error("not connected")]
    NotConnected,
    /// The table of open requests or the send queue is full.
    #[error("too many requests are open")]
    Busy,
    /// A request with this id is open already.
    #[error("request id {} is in use", .0.0)]
    DuplicateId(RequestId),
    /// The encoded request exceeds what the device takes in one message, or what our send queue ever holds.
    #[error("the request has {size} bytes, at most {limit} can be sent")]
    TooLarge {
        /// Encoded size in bytes.
        size: usize,
        /// The lesser limit in bytes.
        limit: usize,
    },
    /// A name is longer than [`NAME_BYTES_MAX`](crate::message::NAME_BYTES_MAX), or a value breaks the bounds of [`Value`].
    #[error("a name or value breaks the protocol's bounds")]
    OutOfBounds,
}

impl RequestError {
    /// Whether the same request may be taken a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotConnected | Self::Busy)
    }
}
