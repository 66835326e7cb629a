//! Messages to bytes and back.

use alloc::vec::Vec;

use minicbor::Decoder;

use super::Message;

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

impl<'a> Message<'a> {
    /// The encoded message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes);
        bytes
    }

    /// Appends the encoded message to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        self.encode_to(Appending(out));
    }

    /// As [`Message::encode_into`], to whatever takes bytes and never refuses them.
    pub(crate) fn encode_to<W>(&self, out: W)
    where
        W: minicbor::encode::Write<Error = core::convert::Infallible>,
    {
        // No type here refuses to be encoded.
        minicbor::encode(self, out).expect("encoding into what takes all bytes cannot fail");
    }

    /// Reads a message that fills `bytes` exactly.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, MessageError> {
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
}

/// The kinds under whose key 0 there is something else than a request id.
const NAMES_NO_REQUEST: [u64; 12] = [0, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21];

/// Bytes appended to a vector. As what the encoder brings for that, but most of what CBOR writes is single bytes.
struct Appending<'a>(&'a mut Vec<u8>);

impl minicbor::encode::Write for Appending<'_> {
    type Error = core::convert::Infallible;

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        match bytes {
            [byte] => self.0.push(*byte),
            bytes => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }
}

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
