//! What a driver may choose about a connection, with each default's reason.
//!
//! Values outside the stated range are brought to its nearest end when a machine is built, so that a configuration
//! can make a connection slow but never unsafe.

use core::time::Duration;

use crate::wire::{
    MAX_MESSAGE_LOG2_MAX, MAX_MESSAGE_LOG2_MIN, MTU_MAX, MTU_MIN, WINDOW_MAX, WINDOW_MIN,
};

/// The least send queue: room for an announcement on a fresh connection and some requests.
const SEND_QUEUE_BYTES_MIN: usize = 1024;

/// The kind of link below: whether it delimits packets itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A stream of bytes in which anything may be lost or garbled (a serial line): packets are framed and checked.
    Stream,
    /// A link that keeps packet bounds and checks them itself (a BLE characteristic, an MQTT publish).
    Datagram {
        /// The most bytes one packet may have, 20 to 65,536.
        mtu: usize,
    },
    /// A stream of bytes that loses, garbles and reorders nothing, or ends (a pseudo-terminal, TCP, a USB serial device). If both ends
    /// say so nothing is repeated, and a packet that is missing all the same ends the connection as a violation.
    ReliableStream,
    /// As [`LinkKind::Datagram`], of a link that loses and reorders nothing, or ends (MQTT with QoS 1 or 2 on one topic, BLE without
    /// EATT). If both ends say so nothing is repeated, as on a [`LinkKind::ReliableStream`].
    ReliableDatagram {
        /// The most bytes one packet may have, 20 to 65,536.
        mtu: usize,
    },
}

impl LinkKind {
    /// Whether the link is a stream of bytes, on which packets are framed.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::ReliableStream)
    }

    /// Whether the link loses nothing and keeps the order.
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::ReliableStream | Self::ReliableDatagram { .. })
    }
}

/// Who sees to it that every packet arrives, agreed on by both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// We do: what is lost is repeated.
    Repeating,
    /// The link does.
    Trusting,
}

/// The settings of one connection; both roles use the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The largest packet on a [`LinkKind::Stream`], in bytes before framing, 20 to 65,536. Default 512: at 115,200
    /// baud one such segment takes 45 ms, which is the longest that bulk data can delay a command.
    pub stream_mtu: usize,
    /// Packets that this side takes out of order, and so the most that the peer may have in flight, 4 to 64. Default 32.
    pub receive_window: u8,
    /// The largest message taken, as a power of two, 8 (256 bytes) to 20 (1 MiB). Default 16: 64 KiB.
    pub max_message_log2: u8,
    /// Bytes of messages that may wait for transmission, on all channels together; longer ones can never be sent. Default 256 KiB.
    /// A message that does not fit is refused with [`SendError::QueueFull`](crate::SendError::QueueFull).
    pub send_queue_bytes: usize,
    /// Bytes of received messages that may wait in the event queue before the peer is asked to pause. Default 128 KiB.
    pub receive_backlog_bytes: usize,
    /// The first pause between two Hello packets; it doubles up to [`Config::hello_interval_max`]. Default 250 ms.
    pub hello_interval_min: Duration,
    /// The longest pause between two Hello packets. Default 4 s: a device plugged in is found within that.
    pub hello_interval_max: Duration,
    /// How long the line may be silent before a Ping is sent. Default 10 s.
    pub keep_alive: Duration,
    /// After how many silent keep-alive intervals the peer counts as lost, at least 1. Default 3.
    pub keep_alive_missed_max: u32,
    /// How long an acknowledgement may wait for data to ride on. Default 20 ms; RFC 9293 §3.8.6.3 allows up to 500 ms.
    pub ack_delay: Duration,
    /// The retransmission time-out before the first round trip is known. Default 1 s (RFC 6298 §2.1).
    pub rto_initial: Duration,
    /// The least retransmission time-out. Default 100 ms: RFC 6298 §2.4 asks for 1 s for the sake of the Internet's
    /// delayed acknowledgements; one hop with a 20 ms delay needs less.
    pub rto_min: Duration,
    /// The greatest retransmission time-out. Default 8 s, so that three retries fit in the liveness limit.
    pub rto_max: Duration,
    /// How long a connection that was interrupted is kept, to be resumed on the same link or another with nothing lost and nothing
    /// doubled, instead of ending at once. Default zero: it is not kept. Both ends must keep it. While it is kept, requests and
    /// events are taken as far as there is room, and what was sent counts in the send queue until it has arrived.
    pub resume_window: Duration,
    /// Requests that a host may have open at a time. Default 64.
    pub requests_max: usize,
    /// Requests that a device remembers, running and answered together. Default 64.
    pub request_memory_max: usize,
    /// Bytes of one result that a device remembers; a greater one is answered once and then forgotten, and a repeated
    /// request is told so by [`FaultCode::ResultForgotten`](crate::FaultCode::ResultForgotten). Default 1 KiB.
    pub remembered_result_bytes: usize,
    /// Properties that one host may observe at a time. Default 128.
    pub observed_max: usize,
    /// The largest description document that a host fetches, in bytes. Default 1 MiB.
    pub description_bytes_max: usize,
    /// The longest transfer that is taken, in bytes; a longer one is refused before its owner hears of it. Default 0: none is, so that
    /// an owner who fetches no [`TransferEvent`](crate::transfer::TransferEvent) has none. Nothing is allocated for it.
    pub transfer_bytes_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_mtu: 512,
            receive_window: 32,
            max_message_log2: 16,
            send_queue_bytes: 256 * 1024,
            receive_backlog_bytes: 128 * 1024,
            hello_interval_min: Duration::from_millis(250),
            hello_interval_max: Duration::from_secs(4),
            keep_alive: Duration::from_secs(10),
            keep_alive_missed_max: 3,
            ack_delay: Duration::from_millis(20),
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(100),
            rto_max: Duration::from_secs(8),
            resume_window: Duration::ZERO,
            requests_max: 64,
            request_memory_max: 64,
            remembered_result_bytes: 1024,
            observed_max: 128,
            description_bytes_max: 1024 * 1024,
            transfer_bytes_max: 0,
        }
    }
}

impl Config {
    /// A configuration for microcontrollers: short messages, a narrow window and a small memory of requests.
    ///
    /// `tests/freestanding` prints what it costs. A peer needs no other configuration for it, since each side says in its
    /// Hello what it takes.
    #[must_use]
    pub fn constrained() -> Self {
        Self {
            stream_mtu: 128,
            receive_window: 4,
            max_message_log2: 9,
            send_queue_bytes: 4 * 1024,
            receive_backlog_bytes: 1024,
            requests_max: 4,
            request_memory_max: 8,
            remembered_result_bytes: 64,
            observed_max: 8,
            description_bytes_max: 4 * 1024,
            ..Self::default()
        }
    }

    /// This configuration with every value brought into its range.
    pub(crate) fn clamped(mut self) -> Self {
        const TICK: Duration = Duration::from_millis(1);
        self.stream_mtu = self.stream_mtu.clamp(MTU_MIN, MTU_MAX);
        self.receive_window = self.receive_window.clamp(WINDOW_MIN, WINDOW_MAX);
        self.max_message_log2 = self
            .max_message_log2
            .clamp(MAX_MESSAGE_LOG2_MIN, MAX_MESSAGE_LOG2_MAX);
        self.hello_interval_min = self.hello_interval_min.max(TICK);
        self.hello_interval_max = self.hello_interval_max.max(self.hello_interval_min);
        self.keep_alive = self.keep_alive.max(TICK);
        self.keep_alive_missed_max = self.keep_alive_missed_max.max(1);
        self.rto_min = self.rto_min.max(TICK);
        self.rto_max = self.rto_max.max(self.rto_min);
        self.rto_initial = self.rto_initial.clamp(self.rto_min, self.rto_max);
        self.send_queue_bytes = self.send_queue_bytes.max(SEND_QUEUE_BYTES_MIN);
        self.requests_max = self.requests_max.max(1);
        self.request_memory_max = self.request_memory_max.max(1);
        self
    }

    /// The largest packet that this side takes over `link`, in bytes.
    pub(crate) fn mtu(&self, link: LinkKind) -> usize {
        match link {
            LinkKind::Stream | LinkKind::ReliableStream => self.stream_mtu,
            LinkKind::Datagram { mtu } | LinkKind::ReliableDatagram { mtu } => {
                mtu.clamp(MTU_MIN, MTU_MAX)
            }
        }
    }
}
