//! Messages cut into segments that fit the link, and joined again, on four channels of falling priority.

mod buffers;
mod outgoing;
mod reassembly;

pub use buffers::Buffers;
pub(crate) use outgoing::MESSAGE_OVERHEAD_BYTES;
pub use outgoing::{MessageToken, NeverSent, OutgoingQueues, Segment};
pub use reassembly::{ArrivedSegment, Reassembly, ReassemblyError};

/// A stream of messages with an order of its own. The lower the number, the sooner it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Announcements and time.
    Control = 0,
    /// Requests, results, progress, cancellations.
    Command = 1,
    /// Changes, events, log lines.
    Event = 2,
    /// Descriptions, and later firmware and audio.
    Bulk = 3,
}

impl Channel {
    /// All channels, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Command, Self::Event, Self::Bulk];

    /// The channel that the two low bits name.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Control,
            1 => Self::Command,
            2 => Self::Event,
            _ => Self::Bulk,
        }
    }
}
