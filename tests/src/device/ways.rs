//! The ways by which a device can be reached: its serial line, a radio, a broker, or several at once.
//!
//! One of them is in use. The host decides which: whoever sends a host's Hello on another way, while the present one has been
//! silent, is followed there. A task reads each way, so that a Hello is heard on all; what a way that is not in use brings besides
//! is dropped.

use std::io;
use std::time::Duration;

use autoglm_drivers::link::PacketLink;
use autoglm_drivers::mqtt::Broker;
use autoglm_drivers::mqtt::device::Brokers;
use autoglm_protocol::frame::StreamDecoder;
use autoglm_protocol::wire::{Hello, Kind, Role};
use autoglm_protocol::{Config, LinkKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_serial::SerialStream;

use super::line::{FarEnd, Line};

/// What was read and not yet taken; full, the readers wait.
const INPUTS: usize = 64;
/// A host that still speaks on the present way is not followed to another.
const SILENT: Duration = Duration::from_millis(150);
/// Rest before a broker that is away is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// What came by a way.
#[derive(Debug)]
enum Input {
    Bytes(Vec<u8>),
    Packet(Vec<u8>),
    /// A way by packets is open, for packets of so many bytes.
    Opened(mpsc::Sender<Vec<u8>>, usize),
    Gone,
}

/// What the device's loop has to do with what came.
#[derive(Debug)]
pub enum Arrival {
    /// Of the way in use.
    Bytes(Vec<u8>),
    /// The host is on another way now, and this came from there.
    Moved(LinkKind, Vec<u8>),
    /// Nothing for the machine.
    Nothing,
}

enum Way {
    Line {
        writer: WriteHalf<SerialStream>,
        decoder: StreamDecoder,
        _far_end: Option<FarEnd>,
    },
    Packets(Option<(mpsc::Sender<Vec<u8>>, usize)>),
}

/// All ways of one device.
pub struct Ways {
    ways: Vec<Way>,
    current: usize,
    heard_at: Option<Instant>,
    inputs: mpsc::Receiver<(usize, Input)>,
    read: mpsc::Sender<(usize, Input)>,
    /// On its way out, on the way in use.
    output: Vec<u8>,
}

impl Default for Ways {
    fn default() -> Self {
        let (read, inputs) = mpsc::channel(INPUTS);
        Self {
            ways: Vec::new(),
            current: 0,
            heard_at: None,
            inputs,
            read,
            output: Vec::new(),
        }
    }
}

impl Ways {
    /// Adds a serial line.
    pub fn add_line(&mut self, line: Line) {
        let index = self.ways.len();
        let (reader, writer) = tokio::io::split(line.stream);
        tokio::spawn(read_line(reader, index, self.read.clone()));
        self.ways.push(Way::Line {
            writer,
            decoder: StreamDecoder::new(Config::default().stream_mtu),
            _far_end: line.far_end,
        });
    }

    /// Adds a broker.
    pub fn add_broker(&mut self, brokers: Brokers, broker: Broker, topic: String) {
        let index = self.ways.len();
        tokio::spawn(read_broker(
            brokers,
            broker,
            topic,
            index,
            self.read.clone(),
        ));
        self.ways.push(Way::Packets(None));
    }

    /// Adds a radio: each host that connects is a link.
    pub fn add_radio(&mut self, hosts: mpsc::Receiver<PacketLink>) {
        let index = self.ways.len();
        tokio::spawn(read_radio(hosts, index, self.read.clone()));
        self.ways.push(Way::Packets(None));
    }

    /// The kind of the way in use.
    #[must_use]
    pub fn kind(&self) -> LinkKind {
        match &self.ways[self.current] {
            Way::Packets(Some((_, mtu))) => LinkKind::Datagram { mtu: *mtu },
            Way::Line { .. } | Way::Packets(None) => LinkKind::Stream,
        }
    }

    /// Whether the machine may give more to be sent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.is_empty() && !matches!(self.ways[self.current], Way::Packets(None))
    }

    /// Sends this by and by: bytes on a line, one packet on a broker.
    pub fn send(&mut self, output: Vec<u8>) {
        self.output = output;
    }

    /// Waits until something has come, or a part of what is to be sent has left. Cancel-safe.
    ///
    /// # Errors
    /// When the only way is gone for good.
    pub async fn turn(&mut self) -> io::Result<Arrival> {
        let (way, output) = (&mut self.ways[self.current], &mut self.output);
        tokio::select! {
            () = write(way, output) => Ok(Arrival::Nothing),
            Some((from, input)) = self.inputs.recv() => self.on_input(from, input),
        }
    }

    fn on_input(&mut self, from: usize, input: Input) -> io::Result<Arrival> {
        let is_current = from == self.current;
        let (bytes, hello) = match input {
            Input::Opened(outgoing, mtu) => {
                self.ways[from] = Way::Packets(Some((outgoing, mtu)));
                // Nobody has said anything yet: begin with what is there.
                return Ok(match is_current {
                    true => Arrival::Moved(self.kind(), Vec::new()),
                    false => Arrival::Nothing,
                });
            }
            Input::Gone => {
                if let Way::Packets(link) = &mut self.ways[from] {
                    *link = None;
                    return Ok(Arrival::Nothing);
                }
                return match self.ways.len() {
                    1 => Err(io::Error::other("the line is gone")),
                    _ => Ok(Arrival::Nothing),
                };
            }
            Input::Packet(packet) => {
                let hello = is_hello(&packet).then(|| packet.clone());
                (packet, hello)
            }
            Input::Bytes(bytes) => {
                let hello = match &mut self.ways[from] {
                    Way::Line { decoder, .. } if !is_current => find_hello(decoder, &bytes),
                    _ => None,
                };
                (bytes, hello)
            }
        };
        if is_current {
            self.heard_at = Some(Instant::now());
            return Ok(Arrival::Bytes(bytes));
        }
        let is_silent = self.heard_at.is_none_or(|heard| heard.elapsed() >= SILENT);
        if hello.is_none() || !is_silent {
            return Ok(Arrival::Nothing);
        }
        self.current = from;
        self.heard_at = Some(Instant::now());
        self.output.clear();
        Ok(Arrival::Moved(self.kind(), bytes))
    }
}

/// Sends a part of what is to be sent; never ends when there is nothing.
async fn write(way: &mut Way, output: &mut Vec<u8>) {
    if output.is_empty() {
        return std::future::pending().await;
    }
    match way {
        // A line that fails is told of by its reader.
        Way::Line { writer, .. } => match writer.write(output).await {
            Ok(count) => drop(output.drain(..count)),
            Err(_) => output.clear(),
        },
        Way::Packets(Some((outgoing, _))) => match outgoing.reserve().await {
            Ok(permit) => permit.send(std::mem::take(output)),
            Err(_) => output.clear(),
        },
        Way::Packets(None) => output.clear(),
    }
}

fn is_hello(packet: &[u8]) -> bool {
    matches!(Kind::of(packet), Ok(Kind::Hello))
        && Hello::decode(packet).is_ok_and(|hello| hello.role == Role::Host)
}

fn find_hello(decoder: &mut StreamDecoder, mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    while let Some((packet, rest)) = decoder.next_packet(bytes) {
        bytes = rest;
        if is_hello(&packet) {
            found = Some(packet);
        }
    }
    found
}

async fn read_line(
    mut reader: ReadHalf<SerialStream>,
    index: usize,
    read: mpsc::Sender<(usize, Input)>,
) {
    let mut input = [0u8; 4096];
    loop {
        let input = match reader.read(&mut input).await {
            Ok(count) if count > 0 => Input::Bytes(input[..count].to_vec()),
            _ => Input::Gone,
        };
        let is_over = matches!(input, Input::Gone);
        if read.send((index, input)).await.is_err() || is_over {
            return;
        }
    }
}

async fn read_broker(
    brokers: Brokers,
    broker: Broker,
    topic: String,
    index: usize,
    read: mpsc::Sender<(usize, Input)>,
) {
    loop {
        let Ok(mut link) = brokers.attach(&broker, &topic).await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let opened = Input::Opened(link.outgoing, link.mtu_bytes);
        if read.send((index, opened)).await.is_err() {
            return;
        }
        while let Some(Ok(packet)) = link.incoming.recv().await {
            if read.send((index, Input::Packet(packet))).await.is_err() {
                return;
            }
        }
        if read.send((index, Input::Gone)).await.is_err() {
            return;
        }
    }
}

/// Each host that connects is a link; one that comes while another is there takes its place.
async fn read_radio(
    mut hosts: mpsc::Receiver<PacketLink>,
    index: usize,
    read: mpsc::Sender<(usize, Input)>,
) {
    let mut present = hosts.recv().await;
    while let Some(mut link) = present {
        let opened = Input::Opened(link.outgoing, link.mtu_bytes);
        if read.send((index, opened)).await.is_err() {
            return;
        }
        present = loop {
            tokio::select! {
                next = hosts.recv() => break next,
                packet = link.incoming.recv() => match packet {
                    Some(Ok(packet)) => {
                        if read.send((index, Input::Packet(packet))).await.is_err() {
                            return;
                        }
                    }
                    Some(Err(_)) | None => {
                        if read.send((index, Input::Gone)).await.is_err() {
                            return;
                        }
                        break hosts.recv().await;
                    }
                },
            }
        };
    }
}
