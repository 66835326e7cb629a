//! What the two ends say to each other, as CBOR (RFC 8949): `[kind, {key: field, ...}]`, keys being small integers.
//!
//! An unknown key is skipped and an absent optional field has its default, so both ends may grow apart by a version.
//! Of an unknown kind only the request id (key 0) is read, to be able to refuse it.

mod bounds;
mod codec;
mod data;
mod fault;
mod log_level;
mod value;

pub use bounds::{LOG_BYTES_MAX, NAME_BYTES_MAX};
pub use codec::MessageError;
pub use data::Data;
pub(crate) use data::give_back;
pub use fault::{FAULT_MESSAGE_BYTES_MAX, Fault, FaultCode};
pub use log_level::LogLevel;
pub use value::{VALUE_DEPTH_MAX, VALUE_ITEMS_MAX, Value};

use alloc::borrow::Cow;
use alloc::string::String;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::segment::Channel;

/// A message. Names, texts and values are borrowed: from what the sender has, or from the bytes that they were read from.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Message<'a> {
    /// Device, first of all: the description it has.
    #[n(0)]
    #[cbor(map)]
    Announce {
        /// SHA-256 of the description.
        #[n(0)]
        hash: ByteArray<32>,
        /// Its length in bytes.
        #[n(1)]
        length: u32,
    },
    /// Host: send the description from `offset` on.
    #[n(1)]
    #[cbor(map)]
    Describe {
        /// Request id.
        #[n(0)]
        id: u64,
        /// The first byte wanted.
        #[n(1)]
        offset: u32,
    },
    /// Device: a part of the description, as much as fits a message.
    #[n(2)]
    #[cbor(map)]
    Description {
        /// Request id.
        #[n(0)]
        id: u64,
        /// SHA-256 of the whole.
        #[n(1)]
        hash: ByteArray<32>,
        /// Length of the whole in bytes.
        #[n(2)]
        length: u32,
        /// Where this part begins.
        #[n(3)]
        offset: u32,
        /// The part.
        #[n(4)]
        bytes: ByteVec,
    },
    /// Host: read a property.
    #[n(3)]
    #[cbor(map)]
    Read {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Its name.
        #[b(1)]
        property: Cow<'a, str>,
        /// Milliseconds that the host will wait from sending on.
        #[n(2)]
        deadline_ms: u32,
    },
    /// Host: write a property.
    #[n(4)]
    #[cbor(map)]
    Write {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Its name.
        #[b(1)]
        property: Cow<'a, str>,
        /// Milliseconds that the host will wait from sending on.
        #[n(2)]
        deadline_ms: u32,
        /// Its new value.
        #[b(3)]
        value: Data<'a>,
    },
    /// Host: read a property and tell of its changes from now on.
    #[n(5)]
    #[cbor(map)]
    Observe {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Its name.
        #[b(1)]
        property: Cow<'a, str>,
        /// Milliseconds that the host will wait from sending on.
        #[n(2)]
        deadline_ms: u32,
    },
    /// Host: tell of its changes no longer.
    #[n(6)]
    #[cbor(map)]
    Unobserve {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Its name.
        #[b(1)]
        property: Cow<'a, str>,
    },
    /// Host: run an action.
    #[n(7)]
    #[cbor(map)]
    Invoke {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Its name.
        #[b(1)]
        action: Cow<'a, str>,
        /// Milliseconds that the host will wait from sending on.
        #[n(2)]
        deadline_ms: u32,
        /// Its input.
        #[b(3)]
        input: Data<'a>,
    },
    /// Device: a request is done, or failed.
    #[n(8)]
    #[cbor(map)]
    Result {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Zero for success, else a [`FaultCode`].
        #[n(1)]
        code: u16,
        /// Success: the value.
        #[b(2)]
        value: Data<'a>,
        /// Fault: words for a person.
        #[n(3)]
        text: Option<String>,
    },
    /// Device: a request is under way.
    #[n(9)]
    #[cbor(map)]
    Progress {
        /// Request id.
        #[n(0)]
        id: u64,
        /// How far.
        #[b(1)]
        value: Data<'a>,
    },
    /// Host: a request is no longer wanted.
    #[n(10)]
    #[cbor(map)]
    Cancel {
        /// Request id.
        #[n(0)]
        id: u64,
    },
    /// Device: an observed property changed.
    #[n(11)]
    #[cbor(map)]
    PropertyChanged {
        /// Its name.
        #[b(0)]
        property: Cow<'a, str>,
        /// Its new value.
        #[b(1)]
        value: Data<'a>,
    },
    /// Device: an event of the Thing.
    #[n(12)]
    #[cbor(map)]
    Event {
        /// Its name.
        #[b(0)]
        name: Cow<'a, str>,
        /// Its data.
        #[b(1)]
        data: Data<'a>,
    },
    /// Device: a log line.
    #[n(13)]
    #[cbor(map)]
    Log {
        /// How grave.
        #[n(0)]
        level: LogLevel,
        /// The line.
        #[b(1)]
        text: Cow<'a, str>,
    },
    /// Host: the time; the device may ask for it more exactly.
    #[n(14)]
    #[cbor(map)]
    TimeSync {
        /// Microseconds since 1970-01-01T00:00:00Z.
        #[n(0)]
        unix_micros: u64,
    },
    /// Either: something large is there for the other end.
    #[n(15)]
    #[cbor(map)]
    TransferOffer {
        /// Transfer id, counted by the sender of the offer.
        #[n(0)]
        id: u64,
        /// What it is.
        #[b(1)]
        name: Cow<'a, str>,
        /// Its length in bytes.
        #[n(2)]
        length: u32,
        /// Its SHA-256.
        #[n(3)]
        hash: ByteArray<32>,
    },
    /// To who offered: it is wanted from `offset` on.
    #[n(16)]
    #[cbor(map)]
    TransferWanted {
        /// Transfer id.
        #[n(0)]
        id: u64,
        /// The first byte wanted.
        #[n(1)]
        offset: u32,
    },
    /// From who offered: a part of it.
    #[n(17)]
    #[cbor(map)]
    TransferPart {
        /// Transfer id.
        #[n(0)]
        id: u64,
        /// Where the part begins.
        #[n(1)]
        offset: u32,
        /// The part.
        #[n(2)]
        bytes: ByteVec,
    },
    /// To who offered: all of it is there, right and stored, or it is refused.
    #[n(18)]
    #[cbor(map)]
    TransferDone {
        /// Transfer id.
        #[n(0)]
        id: u64,
        /// Zero for success, else a [`FaultCode`].
        #[n(1)]
        code: u16,
        /// Fault: words for a person.
        #[n(2)]
        text: Option<String>,
    },
    /// From who offered: it is given up.
    #[n(19)]
    #[cbor(map)]
    TransferAbort {
        /// Transfer id.
        #[n(0)]
        id: u64,
    },
    /// Device: what is the time, exactly?
    #[n(20)]
    #[cbor(map)]
    TimeRequest {
        /// The device's monotonic clock when it asked, in microseconds since any origin.
        #[n(0)]
        asked: u64,
    },
    /// Host: the time.
    #[n(21)]
    #[cbor(map)]
    TimeReply {
        /// As it stood in the request.
        #[n(0)]
        asked: u64,
        /// When the request came, in microseconds since 1970-01-01T00:00:00Z.
        #[n(1)]
        received: u64,
        /// When this was sent, on the same clock.
        #[n(2)]
        sent: u64,
    },
}

impl Message<'_> {
    /// The highest kind that this version knows.
    pub const KIND_MAX: u64 = 21;

    /// The channel that this kind of message travels on.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Announce { .. }
            | Self::TimeSync { .. }
            | Self::TimeRequest { .. }
            | Self::TimeReply { .. } => Channel::Control,
            // Cancel stays behind the request that it cancels, Progress before its result.
            Self::Describe { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Observe { .. }
            | Self::Unobserve { .. }
            | Self::Invoke { .. }
            | Self::Result { .. }
            | Self::Progress { .. }
            | Self::Cancel { .. }
            | Self::TransferWanted { .. }
            | Self::TransferDone { .. } => Channel::Command,
            Self::PropertyChanged { .. } | Self::Event { .. } | Self::Log { .. } => Channel::Event,
            // Abort stays behind the parts that it ends, and the next offer behind it.
            Self::Description { .. }
            | Self::TransferOffer { .. }
            | Self::TransferPart { .. }
            | Self::TransferAbort { .. } => Channel::Bulk,
        }
    }
}
