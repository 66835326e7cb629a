//! What a connection counts: every packet that was not plain progress has a counter with a name.

use core::time::Duration;

use crate::frame::FrameStats;

/// Counters since the machine was built, over all its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// What came off the link and was no packet.
    pub frame: FrameStats,
    /// Packets sent, of all kinds.
    pub packets_sent: u64,
    /// Data packets sent for the first time.
    pub segments_sent: u64,
    /// Data packets sent again.
    pub retransmissions: u64,
    /// Data packets taken for the first time.
    pub segments_received: u64,
    /// Data packets that had arrived before.
    pub duplicates: u64,
    /// Data packets beyond the window.
    pub out_of_window: u64,
    /// Data packets dropped because the driver does not fetch its events.
    pub overrun: u64,
    /// Packets of an earlier connection, by tag, epoch or token.
    pub stale: u64,
    /// Packets of a version that was not negotiated.
    pub unknown_version: u64,
    /// Packets of a kind that this version does not use.
    pub unknown_kind: u64,
    /// Packets that set a reserved flag.
    pub reserved_flags: u64,
    /// Packets that are too short or hold a field out of its range.
    pub malformed: u64,
    /// Hello packets of our own role: an echo or a miswired line.
    pub own_role: u64,
    /// Acknowledgements of what was never sent.
    pub bad_ack: u64,
    /// Retransmission time-outs.
    pub timeouts: u64,
    /// Pings sent.
    pub pings_sent: u64,
    /// Connections that were established.
    pub connections: u64,
    /// Connections that resumed an interrupted one; not counted among `connections`.
    pub resumptions: u64,
    /// Messages received whole.
    pub messages_received: u64,
    /// Messages accepted for sending.
    pub messages_sent: u64,
    /// Messages that were not understood.
    pub bad_messages: u64,
    /// Messages of a kind that this version, or this role, does not expect.
    pub unexpected_messages: u64,
    /// Answers to requests that are no longer open.
    pub late_replies: u64,
    /// Requests that came again and were answered from memory.
    pub repeated_requests: u64,
    /// The smoothed round-trip time, once known.
    pub smoothed_rtt: Option<Duration>,
}
