//! A connected device: its characteristics for foreign devices, and the two that carry packets of the protocol.
//!
//! Whoever holds a [`GattClient`] or the packets of a link holds the device connected; dropped, it is given back and, if nobody
//! else holds it, disconnected. Never retries and never reconnects.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use btleplug::api::{CharPropFlags, Characteristic, Peripheral as _, WriteType};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::address::{DeviceAddress, Layout, MTU_BYTES_MIN};
use super::fault::OperationError;
use super::machine::{Fault, Loss, Ticket};
use super::tap::{NOTIFICATIONS, Tap};
use super::types::{BleError, Step};
use crate::link::{Delivery, PacketLink};

/// The most that one read, write or subscription may take. ATT itself gives up after 30 s (Core 5.4 Vol 3 Part F §3.3.3), which
/// is longer than a caller waits.
const OPERATION: Duration = Duration::from_secs(10);
/// The most that giving up a connection may take.
pub(super) const DISCONNECT: Duration = Duration::from_secs(5);
/// Bytes of an ATT write or notification that are not its value: opcode and handle (Core 5.4 Vol 3 Part F §3.4).
const ATT_HEADER: usize = 3;
/// Tries of a subscription: BlueZ may still be at the end of the last one's.
const SUBSCRIBE_TRIES: u32 = 3;
/// Packets handed to the driver ahead of the radio: more would only age there.
const OUTGOING: usize = 4;

/// What a device is connected for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To carry packets.
    Packets {
        layout: Layout,
        mtu_bytes_max: usize,
    },
    /// To read, write and observe its characteristics; of these, as (service, characteristic), it must have all.
    Gatt(Arc<[(Uuid, Uuid)]>),
}

/// A device that was connected and prepared.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) tap: Tap,
    channel: Option<Channel>,
}

#[derive(Debug)]
struct Channel {
    write: Characteristic,
    mtu_bytes: usize,
    incoming: mpsc::Receiver<io::Result<Vec<u8>>>,
    last_word: mpsc::Sender<io::Result<Vec<u8>>>,
    was_heard: Arc<AtomicBool>,
}

/// The hold on a device.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) ticket: Ticket,
    pub(super) device: DeviceAddress,
    pub(super) returns: mpsc::UnboundedSender<Returned>,
    pub(super) loss: watch::Receiver<Option<Loss>>,
    /// Of a device whose silence would mean something: whether it said anything.
    pub(super) was_heard: Option<Arc<AtomicBool>>,
}

/// A hold that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) ticket: Ticket,
    pub(super) device: DeviceAddress,
    /// Whether a packet came; `None` where it carried none.
    pub(super) was_heard: Option<bool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The adapter's task is gone: nothing is held any more.
        let was_heard = self.was_heard.as_ref();
        let _ = self.returns.send(Returned {
            ticket: self.ticket,
            device: self.device,
            was_heard: was_heard.map(|heard| heard.load(Ordering::Relaxed)),
        });
    }
}

impl Lease {
    /// Waits until the device is lost.
    async fn lost(&self) -> Loss {
        let mut loss = self.loss.clone();
        match loss.wait_for(Option::is_some).await {
            Ok(loss) => loss.unwrap_or(Loss::Disconnected),
            // The adapter's task is gone.
            Err(_) => Loss::Absent,
        }
    }
}

/// Connects and prepares a device.
pub(super) async fn reach(
    tap: Tap,
    device: DeviceAddress,
    purpose: Purpose,
    within: Duration,
) -> Result<Reached, OperationError> {
    limited(device, Step::Connect, within, tap.peripheral.connect()).await?;
    limited(
        device,
        Step::Discover,
        OPERATION,
        tap.peripheral.discover_services(),
    )
    .await?;
    let channel = match purpose {
        Purpose::Gatt(wanted) => {
            for (service, uuid) in wanted.iter() {
                characteristic(&tap, device, *service, *uuid).map_err(missing)?;
            }
            None
        }
        Purpose::Packets {
            layout,
            mtu_bytes_max,
        } => Some(prepare(&tap, device, layout, mtu_bytes_max).await?),
    };
    Ok(Reached { tap, channel })
}

async fn prepare(
    tap: &Tap,
    device: DeviceAddress,
    layout: Layout,
    mtu_bytes_max: usize,
) -> Result<Channel, OperationError> {
    let write = characteristic(tap, device, layout.service, layout.write).map_err(missing)?;
    let notify = characteristic(tap, device, layout.service, layout.notify).map_err(missing)?;
    // Entered before it is asked for, so that the first notification has a reader.
    let (last_word, incoming) = mpsc::channel(NOTIFICATIONS);
    let was_heard = tap.read(layout.service, layout.notify, last_word.clone());
    subscribe(tap, device, &notify).await?;
    // BlueZ tells the MTU only once it was negotiated, and btleplug says 23 as long as it does not know.
    let mtu_bytes = usize::from(tap.peripheral.mtu())
        .saturating_sub(ATT_HEADER)
        .clamp(MTU_BYTES_MIN, mtu_bytes_max);
    Ok(Channel {
        write,
        mtu_bytes,
        incoming,
        last_word,
        was_heard,
    })
}

/// The cache is of older firmware, or it is another kind of device: the machine finds out which.
fn missing(error: BleError) -> OperationError {
    OperationError {
        fault: Fault::ServicesMissing,
        error,
    }
}

fn characteristic(
    tap: &Tap,
    device: DeviceAddress,
    service: Uuid,
    characteristic: Uuid,
) -> Result<Characteristic, BleError> {
    tap.peripheral
        .services()
        .into_iter()
        .filter(|found| found.uuid == service)
        .flat_map(|found| found.characteristics)
        .find(|found| found.uuid == characteristic)
        .ok_or(BleError::ServiceMissing {
            device,
            service,
            characteristic,
        })
}

async fn subscribe(
    tap: &Tap,
    device: DeviceAddress,
    characteristic: &Characteristic,
) -> Result<(), OperationError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let asked = tap.peripheral.subscribe(characteristic);
        match limited(device, Step::Subscribe, OPERATION, asked).await {
            Ok(()) => return Ok(()),
            Err(error) if tries >= SUBSCRIBE_TRIES => return Err(error),
            // A subscription of an earlier connection may be in the way.
            Err(_) => {
                let ended = tap.peripheral.unsubscribe(characteristic);
                let _ = limited(device, Step::Subscribe, OPERATION, ended).await;
            }
        }
    }
}

async fn limited<T>(
    device: DeviceAddress,
    step: Step,
    limit: Duration,
    work: impl Future<Output = btleplug::Result<T>>,
) -> Result<T, OperationError> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(OperationError::from_btleplug(device, step, error)),
        Err(_) => Err(OperationError::timed_out(device, step, limit)),
    }
}

fn write_type(characteristic: &Characteristic) -> WriteType {
    // Without a response costs no round trip, and the connection above repeats what is lost.
    match characteristic
        .properties
        .contains(CharPropFlags::WRITE_WITHOUT_RESPONSE)
    {
        true => WriteType::WithoutResponse,
        false => WriteType::WithResponse,
    }
}

impl Reached {
    /// The device as a client of its characteristics.
    pub(super) fn into_client(self, lease: Lease) -> GattClient {
        GattClient {
            tap: self.tap,
            lease,
        }
    }

    /// The device as packets; `None` if it was connected for something else.
    pub(super) fn into_packets(self, mut lease: Lease) -> Option<PacketLink> {
        let channel = self.channel?;
        lease.was_heard = Some(channel.was_heard);
        let (outgoing, packets) = mpsc::channel(OUTGOING);
        let pump = Pump {
            tap: self.tap,
            lease,
            write: channel.write,
            packets,
            last_word: channel.last_word,
        };
        tokio::spawn(pump.run());
        Some(PacketLink {
            mtu_bytes: channel.mtu_bytes,
            delivery: Delivery::Unreliable,
            outgoing,
            incoming: channel.incoming,
        })
    }
}

/// Writes packets until the link is dropped or lost.
struct Pump {
    tap: Tap,
    lease: Lease,
    write: Characteristic,
    packets: mpsc::Receiver<Vec<u8>>,
    last_word: mpsc::Sender<io::Result<Vec<u8>>>,
}

impl Pump {
    async fn run(mut self) {
        let device = self.lease.device;
        let write_type = write_type(&self.write);
        let error = loop {
            tokio::select! {
                loss = self.lease.lost() => break lost(device, loss),
                () = self.last_word.closed() => return,
                packet = self.packets.recv() => {
                    let Some(packet) = packet else { return };
                    let written = self.tap.peripheral.write(&self.write, &packet, write_type);
                    match limited(device, Step::Write, OPERATION, written).await {
                        Ok(()) => {}
                        Err(failed) => break io::Error::other(failed.error),
                    }
                }
            }
        };
        // Full: the reader sees the end of the link all the same, when the sender is dropped.
        let _ = self.last_word.try_send(Err(error));
    }
}

fn lost(device: DeviceAddress, loss: Loss) -> io::Error {
    let why = match loss {
        Loss::Disconnected => "the device is out of reach, or disconnected",
        Loss::Off => "the Bluetooth adapter was switched off",
        Loss::Absent => "the Bluetooth adapter or bluetoothd is gone",
    };
    io::Error::new(io::ErrorKind::ConnectionReset, format!("{device}: {why}"))
}

/// How a characteristic is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// The device confirms.
    WithResponse,
    /// Nobody confirms; it may be lost.
    WithoutResponse,
}

/// A connected device's characteristics. Of several with the same UUID in a service only the first is seen (btleplug 0.13.5).
#[derive(Debug)]
pub struct GattClient {
    tap: Tap,
    lease: Lease,
}

impl GattClient {
    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceAddress {
        self.lease.device
    }

    /// Reads a characteristic's value. Dropping the future does not stop the radio.
    ///
    /// # Errors
    /// It is not there, the device refused, left, or did not answer within 10 s.
    pub async fn read(&self, service: Uuid, characteristic: Uuid) -> Result<Vec<u8>, BleError> {
        let found = self.find(service, characteristic)?;
        let read = self.tap.peripheral.read(&found);
        self.limited(Step::Read, read).await
    }

    /// Writes a characteristic.
    ///
    /// # Errors
    /// It is not there, the device refused, or did not confirm within 10 s.
    pub async fn write(
        &self,
        service: Uuid,
        characteristic: Uuid,
        value: &[u8],
        mode: WriteMode,
    ) -> Result<(), BleError> {
        let found = self.find(service, characteristic)?;
        let mode = match mode {
            WriteMode::WithResponse => WriteType::WithResponse,
            WriteMode::WithoutResponse => WriteType::WithoutResponse,
        };
        let written = self.tap.peripheral.write(&found, value, mode);
        self.limited(Step::Write, written).await
    }

    /// Asks for a characteristic's notifications (or indications). They end when the device is lost; those that find the
    /// queue of 64 full are dropped. With BlueZ's default of three EATT channels they may come out of order.
    ///
    /// # Errors
    /// It is not there, the device refused, or did not confirm within 10 s.
    pub async fn notifications(
        &self,
        service: Uuid,
        characteristic: Uuid,
    ) -> Result<mpsc::Receiver<io::Result<Vec<u8>>>, BleError> {
        let found = self.find(service, characteristic)?;
        let (out, notifications) = mpsc::channel(NOTIFICATIONS);
        self.tap.read(service, characteristic, out);
        subscribe(&self.tap, self.device(), &found)
            .await
            .map_err(|failed| failed.error)?;
        Ok(notifications)
    }

    /// Waits until the device is no longer connected.
    pub async fn lost(&self) {
        self.lease.lost().await;
    }

    fn find(&self, service: Uuid, uuid: Uuid) -> Result<Characteristic, BleError> {
        if self.lease.loss.borrow().is_some() {
            return Err(BleError::NotConnected {
                device: self.device(),
            });
        }
        characteristic(&self.tap, self.device(), service, uuid)
    }

    async fn limited<T>(
        &self,
        step: Step,
        work: impl Future<Output = btleplug::Result<T>>,
    ) -> Result<T, BleError> {
        tokio::select! {
            result = limited(self.device(), step, OPERATION, work) => result.map_err(|failed| match failed.fault {
                Fault::NotConnected => BleError::LostMeanwhile { device: self.device(), step },
                _ => failed.error,
            }),
            _ = self.lease.lost() => Err(BleError::LostMeanwhile { device: self.device(), step }),
        }
    }
}
