//! The link below a port, with what is on its way in and out of it.
//!
//! Little is taken ahead of the link, so that an urgent message overtakes what the machine still holds.

use std::io;

use autoglm_protocol::{Host, Instant, LinkKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::LinkEnd;
use crate::link::{ByteStream, Delivery, Link, PacketLink};

/// Bytes read from a link in one turn: some 20 ms of a 921,600 baud line.
const READ_BYTES: usize = 2048;
/// Bytes handed to the link ahead of it. More would only age in the tty's queue, before more urgent ones.
const WRITE_AHEAD_BYTES: usize = 4096;

/// The link below.
pub(super) enum Pipe {
    /// None now.
    Absent,
    /// A byte stream.
    Stream {
        reader: ReadHalf<Box<dyn ByteStream>>,
        writer: WriteHalf<Box<dyn ByteStream>>,
        input: Box<[u8; READ_BYTES]>,
        output: Vec<u8>,
    },
    /// Packets; `output` is the next one, empty when there is none.
    Packets { link: PacketLink, output: Vec<u8> },
}

/// What one turn of the link brought.
pub(super) enum Turn {
    /// So many bytes wait in [`Pipe::input`].
    Read(usize),
    /// A packet came.
    Packet(Vec<u8>),
    /// So many bytes left.
    Wrote(usize),
}

impl Pipe {
    pub(super) fn new(link: Link) -> Self {
        match link {
            Link::Stream(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                Self::Stream {
                    reader,
                    writer,
                    input: Box::new([0; READ_BYTES]),
                    output: Vec::with_capacity(WRITE_AHEAD_BYTES),
                }
            }
            Link::Packets(link) => Self::Packets {
                link,
                output: Vec::new(),
            },
        }
    }

    /// The kind of link that the machine is to expect; a stream while there is none.
    pub(super) fn kind(&self) -> LinkKind {
        match self {
            Self::Absent | Self::Stream { .. } => LinkKind::Stream,
            Self::Packets { link, .. } => {
                let mtu = link.mtu_bytes;
                match link.delivery {
                    Delivery::Unreliable | Delivery::AtLeastOnce => LinkKind::Datagram { mtu },
                    Delivery::ReliableOrdered => LinkKind::ReliableDatagram { mtu },
                }
            }
        }
    }

    /// Takes from the machine as much as the link takes now.
    pub(super) fn fill(&mut self, now: Instant, host: &mut Host) {
        match self {
            Self::Absent => {}
            Self::Stream { output, .. } => {
                while output.len() < WRITE_AHEAD_BYTES && host.poll_transmit(now, output) {}
            }
            Self::Packets { output, .. } => {
                if output.is_empty() {
                    host.poll_transmit(now, output);
                }
            }
        }
    }

    /// Whether all that was taken from the machine has been handed to the link.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Stream { output, .. } | Self::Packets { output, .. } => output.is_empty(),
        }
    }

    /// What the last turn read.
    pub(super) fn input(&self, count: usize) -> &[u8] {
        match self {
            Self::Stream { input, .. } => &input[..count],
            Self::Absent | Self::Packets { .. } => &[],
        }
    }

    /// Reads or writes once, whichever is possible first. Cancel-safe: read, write, recv and reserve lose nothing when dropped.
    pub(super) async fn turn(&mut self, reading: Reading) -> Result<Turn, LinkEnd> {
        let may_read = reading == Reading::Open;
        match self {
            Self::Absent => std::future::pending().await,
            Self::Stream {
                reader,
                writer,
                input,
                output,
            } => tokio::select! {
                read = reader.read(&mut input[..]), if may_read => match read {
                    // tokio-serial reports an unplugged adapter as an endless end of file.
                    Ok(0) => Err(LinkEnd::Closed),
                    Ok(count) => Ok(Turn::Read(count)),
                    Err(error) => Err(LinkEnd::Failed(error)),
                },
                wrote = writer.write(output), if !output.is_empty() => match wrote {
                    Ok(0) => Err(LinkEnd::Closed),
                    Ok(count) => {
                        output.drain(..count);
                        Ok(Turn::Wrote(count))
                    }
                    Err(error) => Err(LinkEnd::Failed(error)),
                },
                else => std::future::pending().await,
            },
            Self::Packets { link, output } => tokio::select! {
                packet = link.incoming.recv(), if may_read => match packet {
                    None => Err(LinkEnd::Closed),
                    Some(Err(error)) => Err(LinkEnd::Failed(error)),
                    Some(Ok(packet)) => Ok(Turn::Packet(packet)),
                },
                permit = link.outgoing.reserve(), if !output.is_empty() => match permit {
                    Err(_) => Err(LinkEnd::Closed),
                    Ok(permit) => {
                        let count = output.len();
                        permit.send(std::mem::take(output));
                        Ok(Turn::Wrote(count))
                    }
                },
                else => std::future::pending().await,
            },
        }
    }

    /// Hands over the machine's last words, as far as that can be done without waiting for long.
    pub(super) async fn finish(&mut self, now: Instant, host: &mut Host) -> io::Result<()> {
        match self {
            Self::Absent => Ok(()),
            Self::Stream { writer, output, .. } => {
                while host.poll_transmit(now, output) {}
                writer.write_all(output).await
            }
            Self::Packets { link, output } => loop {
                if output.is_empty() && !host.poll_transmit(now, output) {
                    return Ok(());
                }
                let sent = link.outgoing.send(std::mem::take(output)).await;
                sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            },
        }
    }
}

/// Whether the port has room for what the link brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Open,
    Paused,
}
