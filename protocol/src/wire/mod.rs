//! The bytes of a packet: headers and bodies, encoded and decoded, with no state and no opinion.
//!
//! All integers are little endian. `SPEC.md` §3 draws the layouts; the vectors in `tests/vectors/` fix them. Nothing here
//! allocates on decoding, so a length field cannot make it.

mod ack;
mod close;
mod header;
mod hello;

pub use ack::AckBody;
pub use close::{Close, CloseReason};
pub use header::{DATA_HEADER_BYTES, Flags, HEADER_BYTES, Header, Kind, SegmentHeader};
pub(crate) use hello::HELLO_OFFER;
pub use hello::{Hello, Identity, Role, Token, VersionRange};

/// The protocol version that this crate speaks.
pub const VERSION: u8 = 1;

/// The least MTU: what a bare BLE link (ATT_MTU 23 less 3 bytes of ATT header) carries.
pub const MTU_MIN: usize = 20;

/// The greatest MTU; it must fit the 16-bit field of Hello, which holds it less one.
pub const MTU_MAX: usize = 65_536;

/// The least receive window in packets: fewer could not keep a slot for each of the four channels.
pub const WINDOW_MIN: u8 = 4;

/// The greatest receive window in packets, so that the bitmap of an Ack (one bit less) fits in 8 bytes.
pub const WINDOW_MAX: u8 = 64;

/// The least message limit, 2^8 = 256 bytes: room for any request with a short value.
pub const MAX_MESSAGE_LOG2_MIN: u8 = 8;

/// The greatest message limit, 2^20 = 1 MiB: larger things go in pieces.
pub const MAX_MESSAGE_LOG2_MAX: u8 = 20;

/// Why bytes are no packet of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than its kind needs.
    #[error("packet has {actual} bytes, needs {needed}")]
    TooShort {
        /// Bytes there are.
        actual: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// Of a version that was not negotiated.
    #[error("packet of version {0}")]
    UnknownVersion(u8),
    /// Of a kind that this version does not use (reserved ones included).
    #[error("packet of kind {0}")]
    UnknownKind(u8),
    /// A flag is set that this version reserves.
    #[error("reserved flags set: {0:#04x}")]
    ReservedFlags(u8),
    /// A field is outside its range.
    #[error("field {field} is out of range")]
    OutOfRange {
        /// The field.
        field: &'static str,
    },
}

/// Reads `N` bytes at `at`; the callers have checked the length, and a wrong check reads as too short.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], WireError> {
    bytes
        .get(at..at + N)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(WireError::TooShort {
            actual: bytes.len(),
            needed: at + N,
        })
}
