//! What a link is: a way to one device, as a stream of bytes or as packets, with back-pressure.
//!
//! [`address`] names links, [`open`] opens what they name. A link is opened, used until it breaks, and dropped; it never mends
//! itself (when to try again is the supervisor's policy) and never looks into what it carries.

pub mod address;
pub mod open;

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use address::{AddressError, LinkAddress};
pub use open::{LinkError, Opener};

/// Name of a link: its device's name and its kind, as in `desk-serial`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub String);

impl fmt::Display for LinkId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The kinds of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkClass {
    /// A serial line.
    Serial,
    /// Characteristics of a BLE device.
    Ble,
    /// Topics at a broker.
    Mqtt,
}

impl LinkClass {
    /// Its name in addresses and in the names of links.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Ble => "ble",
            Self::Mqtt => "mqtt",
        }
    }
}

/// What a link promises about what was handed to it. Whatever it promises, the connection above counts its packets: the
/// promises are each link's own and end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Anything may be lost, garbled or cut (a serial line); packets, where the link keeps their bounds, come whole or not at all,
    /// and in any order (BLE).
    Unreliable,
    /// Packets come whole and in order while the link lasts, and may come twice: MQTT at QoS 1.
    AtLeastOnce,
    /// Packets come whole, once and in order while the link lasts.
    ReliableOrdered,
}

/// A byte stream in both directions, as every stream link gives it.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// An open link.
pub enum Link {
    /// Bytes, without bounds between packets.
    Stream(Box<dyn ByteStream>),
    /// Packets.
    Packets(PacketLink),
}

impl fmt::Debug for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => out.write_str("Stream"),
            Self::Packets(link) => link.fmt(out),
        }
    }
}

/// A link that keeps the bounds of packets. Dropped by the port it is closed; the driver closes it by dropping `incoming`'s
/// other end, or with a last `Err` that says why.
#[derive(Debug)]
pub struct PacketLink {
    /// The most bytes that one packet may have.
    pub mtu_bytes: usize,
    /// What it promises.
    pub delivery: Delivery,
    /// To the device. Full: the port sends nothing more until there is room.
    pub outgoing: mpsc::Sender<Vec<u8>>,
    /// From the device. Full: the driver drops packets, which the connection above sends again.
    pub incoming: mpsc::Receiver<io::Result<Vec<u8>>>,
}
