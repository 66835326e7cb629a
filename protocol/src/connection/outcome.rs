//! Who the peer is, why a connection ended, why a message was not taken.

use crate::segment::ReassemblyError;
use crate::wire::CloseReason;

/// The peer, as it presents itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// Which power-up of the peer this is.
    pub boot_id: u32,
    /// Which of its connections.
    pub epoch: u32,
    /// The protocol version agreed on.
    pub version: u8,
    /// The largest packet that both take, in bytes.
    pub mtu: usize,
    /// The largest message that the peer takes, in bytes.
    pub max_message: usize,
    /// SHA-256 of a device's description; `None` when the peer is a host.
    pub description_hash: Option<[u8; 32]>,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// There is none, or its handshake is under way.
    #[default]
    Absent,
    /// It was interrupted, and is kept to be resumed within [`Config::resume_window`](crate::Config::resume_window).
    Interrupted,
    /// Both ends have each other.
    Connected,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// We ended it; the machine stays closed.
    #[error("closed here")]
    ClosedHere,
    /// The peer ended it.
    #[error("closed by the peer: {0:?}")]
    ClosedByPeer(CloseReason),
    /// The peer was silent for too long.
    #[error("the peer is silent")]
    Silent,
    /// The driver went on to another link, and nothing was kept to be resumed there.
    #[error("the link was changed")]
    LinkChanged,
    /// A packet was sent as often as allowed and never acknowledged, although the peer is not silent.
    #[error("a packet cannot be delivered")]
    Undeliverable,
    /// The peer began anew: another boot id or epoch.
    #[error("the peer began anew")]
    PeerRestarted,
    /// The peer did not prove that it has the key, or uses none, or demands one; or a message was changed on its way. It is told even if
    /// the connection never was, and the peer is left alone for a while.
    #[error("the peer is not authentic")]
    Unauthenticated,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Violation(ReassemblyError),
}

/// Why a message was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection now.
    #[error("not connected")]
    NotConnected,
    /// The send queue is full; later there may be room.
    #[error("the send queue is full")]
    QueueFull,
    /// The encoded message exceeds what the peer takes, or what our send queue ever holds.
    #[error("the message has {size} bytes, at most {limit} can be sent")]
    TooLarge {
        /// Encoded size in bytes.
        size: usize,
        /// The lesser limit in bytes.
        limit: usize,
    },
    /// A name or value breaks the protocol's bounds.
    #[error("a name or value breaks the protocol's bounds")]
    OutOfBounds,
}
