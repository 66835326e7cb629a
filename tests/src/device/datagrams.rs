//! The device's end of a radio that another program plays: packets over a pair of UNIX datagram sockets.
//!
//! The other program is at PATH, the device at `PATH.device`. To the device: `+` and the packet size (two bytes, little-endian) when a host
//! listens, `=` and a packet, `-` when the host is gone. From the device: packets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use autoglm_drivers::link::{Delivery, PacketLink};
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

/// Packets that wait on either side of the device; more are lost, as on a radio.
const PACKETS: usize = 64;
/// Hosts that listen and were not yet taken by the device's loop.
const HOSTS: usize = 2;
/// More than a packet by radio can have.
const DATAGRAM_BYTES_MAX: usize = 1024;

/// Opens the socket; each host that listens gives a link.
///
/// # Errors
/// When the socket cannot be made.
pub fn links(path: &Path) -> io::Result<mpsc::Receiver<PacketLink>> {
    let own = PathBuf::from(format!("{}.device", path.display()));
    // Left by a device that was killed.
    let _ = std::fs::remove_file(&own);
    let socket = Arc::new(UnixDatagram::bind(&own)?);
    let (links, taken) = mpsc::channel(HOSTS);
    tokio::spawn(read(socket, path.to_owned(), links));
    Ok(taken)
}

async fn read(socket: Arc<UnixDatagram>, far: PathBuf, links: mpsc::Sender<PacketLink>) {
    let mut host: Option<mpsc::Sender<io::Result<Vec<u8>>>> = None;
    let mut bytes = [0u8; DATAGRAM_BYTES_MAX];
    while let Ok(count) = socket.recv(&mut bytes).await {
        match &bytes[..count] {
            [b'+', low, high] => {
                let (outgoing, packets) = mpsc::channel(PACKETS);
                let (received, incoming) = mpsc::channel(PACKETS);
                host = Some(received);
                tokio::spawn(write(Arc::clone(&socket), far.clone(), packets));
                let link = PacketLink {
                    mtu_bytes: usize::from(u16::from_le_bytes([*low, *high])),
                    delivery: Delivery::Unreliable,
                    outgoing,
                    incoming,
                };
                // A host that nobody takes goes unanswered, and tries again.
                let _ = links.try_send(link);
            }
            [b'=', packet @ ..] => {
                if let Some(host) = &host {
                    let _ = host.try_send(Ok(packet.to_vec()));
                }
            }
            _ => host = None,
        }
    }
}

async fn write(socket: Arc<UnixDatagram>, far: PathBuf, mut packets: mpsc::Receiver<Vec<u8>>) {
    while let Some(packet) = packets.recv().await {
        // The radio's program may be gone: then nobody hears it.
        let _ = socket.send_to(&packet, &far).await;
    }
}
