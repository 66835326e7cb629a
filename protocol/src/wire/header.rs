//! The header of every packet but Hello and Close: kind, flags, connection tag, sequence number, acknowledgement.

use alloc::vec::Vec;

use crate::segment::Channel;

use super::{VERSION, WireError, array_at};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 7;

/// Bytes before the payload of a Data packet: the header and the channel's own sequence number.
pub const DATA_HEADER_BYTES: usize = HEADER_BYTES + 1;

/// What a packet is for; the number is the low half of its first byte.
///
/// 0 and 7 to 15 are unassigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Presents the sender; independent of the version.
    Hello = 1,
    /// A segment of a message.
    Data = 2,
    /// Acknowledges, without data.
    Ack = 3,
    /// Asks for a Pong.
    Ping = 4,
    /// Answers a Ping; with the body of an Ack.
    Pong = 5,
    /// Ends the connection; independent of the version.
    Close = 6,
}

impl Kind {
    /// Splits a packet's first byte into version and kind.
    ///
    /// # Errors
    /// An empty packet, a kind that is not assigned, or a version that does not fit the kind: Hello and Close carry 0,
    /// all others [`VERSION`].
    pub fn of(packet: &[u8]) -> Result<Self, WireError> {
        let first = *packet.first().ok_or(WireError::TooShort {
            actual: 0,
            needed: 1,
        })?;
        let (version, kind) = (first >> 4, first & 0x0f);
        let (kind, expected) = match kind {
            1 => (Self::Hello, 0),
            2 => (Self::Data, VERSION),
            3 => (Self::Ack, VERSION),
            4 => (Self::Ping, VERSION),
            5 => (Self::Pong, VERSION),
            6 => (Self::Close, 0),
            other => return Err(WireError::UnknownKind(other)),
        };
        if version == expected {
            Ok(kind)
        } else {
            Err(WireError::UnknownVersion(version))
        }
    }

    /// The first byte of a packet of this kind.
    pub(super) const fn first_byte(self) -> u8 {
        let version = match self {
            Self::Hello | Self::Close => 0,
            _ => VERSION,
        };
        version << 4 | self as u8
    }
}

/// The second byte: how a segment lies in its message, and on which channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// The segment begins a message.
    pub start: bool,
    /// The segment ends a message.
    pub end: bool,
    /// The channel.
    pub channel: Channel,
}

impl Flags {
    const START: u8 = 1;
    const END: u8 = 1 << 1;
    const CHANNEL_SHIFT: u8 = 2;
    const RESERVED: u8 = 0b1111_0000;

    /// The flags of a packet that carries no segment.
    pub const NONE: Self = Self {
        start: false,
        end: false,
        channel: Channel::Control,
    };

    fn to_byte(self) -> u8 {
        (u8::from(self.start) * Self::START)
            | (u8::from(self.end) * Self::END)
            | ((self.channel as u8) << Self::CHANNEL_SHIFT)
    }

    fn from_byte(byte: u8) -> Result<Self, WireError> {
        let reserved = byte & Self::RESERVED;
        if reserved != 0 {
            return Err(WireError::ReservedFlags(reserved));
        }
        Ok(Self {
            start: byte & Self::START != 0,
            end: byte & Self::END != 0,
            channel: Channel::from_bits(byte >> Self::CHANNEL_SHIFT),
        })
    }
}

/// The first [`HEADER_BYTES`] of a Data, Ack, Ping or Pong packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the packet is for.
    pub kind: Kind,
    /// Position and channel of a segment; [`Flags::NONE`] otherwise.
    pub flags: Flags,
    /// Which connection, and which direction of it, the packet belongs to.
    pub tag: u8,
    /// Data: the packet's number. Ping, Pong: the ping's number. Ack: zero.
    pub seq: u16,
    /// The next sequence number that the sender waits for; all before it have arrived.
    pub ack: u16,
}

impl Header {
    /// Appends the encoded header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let ([s0, s1], [a0, a1]) = (self.seq.to_le_bytes(), self.ack.to_le_bytes());
        let (kind, flags) = (self.kind.first_byte(), self.flags.to_byte());
        out.extend_from_slice(&[kind, flags, self.tag, s0, s1, a0, a1]);
    }

    /// Reads a header and hands back what follows it.
    ///
    /// # Errors
    /// See [`WireError`]; also for Hello and Close, which have another layout.
    pub fn decode(packet: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let kind = Kind::of(packet)?;
        if matches!(kind, Kind::Hello | Kind::Close) {
            return Err(WireError::UnknownKind(kind as u8));
        }
        let [_, flags, tag, s0, s1, a0, a1] = array_at::<HEADER_BYTES>(packet, 0)?;
        let header = Self {
            kind,
            flags: Flags::from_byte(flags)?,
            tag,
            seq: u16::from_le_bytes([s0, s1]),
            ack: u16::from_le_bytes([a0, a1]),
        };
        Ok((header, &packet[HEADER_BYTES..]))
    }
}

/// What a Data packet carries beyond its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment's number on its own channel, so that a gap on one channel does not hold up another.
    pub channel_seq: u8,
}

impl SegmentHeader {
    /// Reads it from what follows the header, and hands back the payload.
    ///
    /// # Errors
    /// [`WireError::TooShort`].
    pub fn decode(body: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (&channel_seq, payload) = body.split_first().ok_or(WireError::TooShort {
            actual: HEADER_BYTES,
            needed: DATA_HEADER_BYTES,
        })?;
        Ok((Self { channel_seq }, payload))
    }
}
