//! What the two ends say to each other, as CBOR (RFC 8949): `[kind, {key: field, ...}]`, keys being small integers.
//!
//! An unknown key is skipped and an absent optional field has its default, so both ends may grow apart by a version.
//! Of an unknown kind only the request id (key 0) is read, to be able to refuse it.

mod fault;
mod value;

pub use fault::{FAULT_MESSAGE_BYTES_MAX, Fault, FaultCode};
pub use value::{VALUE_DEPTH_MAX, VALUE_ITEMS_MAX, Value};

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Decoder, Encode};

use crate::segment::Channel;

/// The longest name of a property, action or event, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;

/// The longest log line, in bytes of UTF-8; a longer one is cut by the sender.
pub const LOG_BYTES_MAX: usize = 1024;

/// How grave a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum LogLevel {
    /// Somebody must act.
    #[n(0)]
    Error,
    /// Degraded.
    #[n(1)]
    Warn,
    /// A change of state.
    #[n(2)]
    Info,
    /// For developers.
    #[n(3)]
    Debug,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Message {
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
        #[n(1)]
        property: String,
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
        #[n(1)]
        property: String,
        /// Milliseconds that the host will wait from sending on.
        #[n(2)]
        deadline_ms: u32,
        /// Its new value.
        #[n(3)]
        value: Value,
    },
    /// Host: read a property and tell of its changes from now on.
    #[n(5)]
    #[cbor(map)]
    Observe {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Its name.
        #[n(1)]
        property: String,
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
        #[n(1)]
        property: String,
    },
    /// Host: run an action.
    #[n(7)]
    #[cbor(map)]
    Invoke {
        /// Request id.
        #[n(0)]
        id: u64,
        /// Its name.
        #[n(1)]
        action: String,
        /// Milliseconds that the host will wait from sending on.
        #[n(2)]
        deadline_ms: u32,
        /// Its input.
        #[n(3)]
        input: Value,
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
        #[n(2)]
        value: Value,
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
        #[n(1)]
        value: Value,
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
        #[n(0)]
        property: String,
        /// Its new value.
        #[n(1)]
        value: Value,
    },
    /// Device: an event of the Thing.
    #[n(12)]
    #[cbor(map)]
    Event {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its data.
        #[n(1)]
        data: Value,
    },
    /// Device: a log line.
    #[n(13)]
    #[cbor(map)]
    Log {
        /// How grave.
        #[n(0)]
        level: LogLevel,
        /// The line.
        #[n(1)]
        text: String,
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
        #[n(1)]
        name: String,
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

/// Why a message was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not CBOR of the stated kind; `id` is the request it seems to name.
    #[error("malformed message")]
    Malformed {
        /// The request id, if one could be read.
        id: Option<u64>,
    },
    /// Well-formed, but of a kind that this version does not know.
    #[error("message of unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u64,
        /// The request id, if one could be read.
        id: Option<u64>,
    },
    /// A name or text is longer than its limit.
    #[error("a name or text exceeds {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
        /// The request id, if one could be read.
        id: Option<u64>,
    },
}

impl MessageError {
    /// The request that the message was about, if it could be told.
    #[must_use]
    pub fn request_id(&self) -> Option<u64> {
        match *self {
            Self::Malformed { id } | Self::UnknownKind { id, .. } | Self::TooLong { id, .. } => id,
        }
    }
}

impl Message {
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

    /// The encoded message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // A Vec takes any number of bytes, and no type here refuses to be encoded.
        minicbor::to_vec(self).expect("encoding into a Vec cannot fail")
    }

    /// Appends the encoded message to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        // As above.
        minicbor::encode(self, out).expect("encoding into a Vec cannot fail");
    }

    /// Reads a message that fills `bytes` exactly.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut decoder = Decoder::new(bytes);
        let message = match decoder.decode::<Self>() {
            Ok(message) if decoder.position() == bytes.len() => message,
            _ => {
                return Err(match peek(bytes) {
                    (Some(kind), id) if kind > Self::KIND_MAX => {
                        MessageError::UnknownKind { kind, id }
                    }
                    (_, id) => MessageError::Malformed { id },
                });
            }
        };
        match message.text_excess() {
            Some(limit) => Err(MessageError::TooLong {
                limit,
                id: peek(bytes).1,
            }),
            None => Ok(message),
        }
    }

    /// Whether a peer will take the message: names, texts and values keep their bounds.
    #[must_use]
    pub fn is_within_bounds(&self) -> bool {
        let value_fits = match self {
            Self::Write { value, .. }
            | Self::Invoke { input: value, .. }
            | Self::Result { value, .. }
            | Self::Progress { value, .. }
            | Self::PropertyChanged { value, .. }
            | Self::Event { data: value, .. } => value.is_encodable(),
            _ => true,
        };
        value_fits && self.text_excess().is_none()
    }

    /// The limit that a name or text breaks.
    fn text_excess(&self) -> Option<usize> {
        let (text, limit) = match self {
            Self::Read { property: name, .. }
            | Self::Write { property: name, .. }
            | Self::Observe { property: name, .. }
            | Self::Unobserve { property: name, .. }
            | Self::Invoke { action: name, .. }
            | Self::PropertyChanged { property: name, .. }
            | Self::Event { name, .. }
            | Self::TransferOffer { name, .. } => (name, NAME_BYTES_MAX),
            Self::Log { text, .. } => (text, LOG_BYTES_MAX),
            Self::Result {
                text: Some(text), ..
            }
            | Self::TransferDone {
                text: Some(text), ..
            } => (text, FAULT_MESSAGE_BYTES_MAX),
            _ => return None,
        };
        (text.len() > limit).then_some(limit)
    }
}

/// The kinds under whose key 0 there is something else than a request id.
const NAMES_NO_REQUEST: [u64; 12] = [0, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21];

/// The kind of a message and the request id under key 0, as far as they can be read.
fn peek(bytes: &[u8]) -> (Option<u64>, Option<u64>) {
    let mut d = Decoder::new(bytes);
    let mut kind = || (d.array().ok()? == Some(2)).then(|| d.u64().ok())?;
    let Some(kind) = kind() else {
        return (None, None);
    };
    if NAMES_NO_REQUEST.contains(&kind) {
        return (Some(kind), None);
    }
    let mut id = || (d.map().ok()?? > 0 && d.u64().ok()? == 0).then(|| d.u64().ok())?;
    (Some(kind), id())
}
