//! The device's end of a BLE link: a GATT server and an advertisement on one of this machine's controllers, through BlueZ.
//!
//! It serves the Nordic UART service. The world plays with it by signals: USR1 makes it vanish (no advertisement, and whoever is
//! connected is disconnected), USR2 makes it return, HUP gives it other handles, as new firmware does, and ALRM gives the handles that it had
//! to other characteristics.

use std::io;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use autoglm_drivers::ble::address::Layout;
use autoglm_drivers::link::{Delivery, PacketLink};
use bluer::adv::{Advertisement, AdvertisementHandle};
use bluer::gatt::CharacteristicWriter;
use bluer::gatt::local::{
    Application, ApplicationHandle, Characteristic, CharacteristicControl,
    CharacteristicControlEvent, CharacteristicNotify, CharacteristicNotifyMethod,
    CharacteristicRead, CharacteristicWrite, CharacteristicWriteMethod, Service,
    characteristic_control,
};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Packets that wait on either side of the device; more are lost, as on a radio.
const PACKETS: usize = 64;
/// Hosts that were connected and not yet taken by the device's loop.
const HOSTS: usize = 2;
/// How often it is made sure that the controller advertises: it forgets with each power-down.
const LOOK: Duration = Duration::from_secs(1);

/// Where packets of the present host go.
type Host = Arc<Mutex<Option<mpsc::Sender<io::Result<Vec<u8>>>>>>;

/// A BLE peripheral; each host that connects gives a link.
#[derive(Debug)]
pub struct Peripheral {
    links: mpsc::Receiver<PacketLink>,
}

impl Peripheral {
    /// Starts advertising `name` on the controller `adapter` (as in `hci1`), with packets of up to `mtu_bytes_max`.
    ///
    /// # Errors
    /// When BlueZ or the controller is not there.
    pub async fn start(adapter: &str, name: &str, mtu_bytes_max: usize) -> anyhow::Result<Self> {
        let session = bluer::Session::new().await.context("no BlueZ")?;
        let adapter = session
            .adapter(adapter)
            .with_context(|| format!("no controller {adapter}"))?;
        adapter.set_powered(true).await?;
        let (links, taken) = mpsc::channel(HOSTS);
        let mut server = Server {
            adapter,
            name: name.to_owned(),
            mtu_bytes_max,
            host: Host::default(),
            links,
            table: Table::First,
            served: None,
            advertised: None,
            is_hidden: false,
        };
        server.serve().await?;
        server.advertise().await?;
        eprintln!("advertising as {name}");
        tokio::spawn(async move {
            if let Err(error) = server.run().await {
                eprintln!("the peripheral failed: {error:#}");
            }
            drop(session);
        });
        Ok(Self { links: taken })
    }

    /// The hosts that connect and ask for notifications.
    #[must_use]
    pub fn into_hosts(self) -> mpsc::Receiver<PacketLink> {
        self.links
    }
}

/// Which attribute table is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    First,
    /// With another service in front, so that all handles are others.
    Shifted,
    /// What was written notifies, and what notified is written, at handles that were those of the other.
    Swapped,
}

struct Server {
    adapter: bluer::Adapter,
    name: String,
    mtu_bytes_max: usize,
    host: Host,
    links: mpsc::Sender<PacketLink>,
    table: Table,
    served: Option<(ApplicationHandle, std::pin::Pin<Box<CharacteristicControl>>)>,
    advertised: Option<AdvertisementHandle>,
    is_hidden: bool,
}

impl Server {
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut vanish = signal(SignalKind::user_defined1())?;
        let mut appear = signal(SignalKind::user_defined2())?;
        let mut change = signal(SignalKind::hangup())?;
        let mut swap = signal(SignalKind::alarm())?;
        let mut look = tokio::time::interval(LOOK);
        let mut was_on = true;
        loop {
            tokio::select! {
                _ = vanish.recv() => {
                    self.is_hidden = true;
                    self.advertised = None;
                    self.disconnect_all().await?;
                    eprintln!("vanished");
                }
                _ = appear.recv() => {
                    self.is_hidden = false;
                    self.advertise().await?;
                    eprintln!("returned");
                }
                _ = change.recv() => {
                    self.change_table(match self.table {
                        Table::First => Table::Shifted,
                        Table::Shifted | Table::Swapped => Table::First,
                    })
                    .await?;
                }
                _ = swap.recv() => self.change_table(Table::Swapped).await?,
                _ = look.tick() => {
                    let is_on = self.adapter.is_powered().await.unwrap_or(false);
                    if is_on && !was_on && !self.is_hidden {
                        self.advertised = None;
                        self.advertise().await?;
                    }
                    was_on = is_on;
                }
                event = next_event(&mut self.served) => match event {
                    Some(CharacteristicControlEvent::Notify(writer)) => self.on_host(writer),
                    Some(CharacteristicControlEvent::Write(_)) => {}
                    None => self.served = None,
                },
            }
        }
    }

    fn on_host(&self, writer: CharacteristicWriter) {
        let (outgoing, mut packets) = mpsc::channel::<Vec<u8>>(PACKETS);
        let (received, incoming) = mpsc::channel(PACKETS);
        let mtu_bytes = writer.mtu().min(self.mtu_bytes_max);
        eprintln!("a host asks for notifications, up to {mtu_bytes} bytes");
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(received.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    packet = packets.recv() => match packet {
                        Some(packet) => {
                            if let Err(error) = writer.send(&packet).await {
                                let _ = received.try_send(Err(error));
                                return;
                            }
                        }
                        None => return,
                    },
                    _ = writer.closed() => {
                        let _ = received.try_send(Err(io::ErrorKind::ConnectionReset.into()));
                        return;
                    }
                }
            }
        });
        let link = PacketLink {
            mtu_bytes,
            delivery: Delivery::Unreliable,
            outgoing,
            incoming,
        };
        // A host that nobody takes goes unanswered, and tries again.
        let _ = self.links.try_send(link);
    }

    async fn change_table(&mut self, table: Table) -> anyhow::Result<()> {
        self.table = table;
        self.served = None;
        self.serve().await?;
        eprintln!("serving the table {table:?}");
        Ok(())
    }

    async fn serve(&mut self) -> anyhow::Result<()> {
        let (control, handle) = characteristic_control();
        let host = Arc::clone(&self.host);
        let write = CharacteristicWriteMethod::Fun(Box::new(move |packet, _| {
            let host = host.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(host) = host {
                let _ = host.try_send(Ok(packet));
            }
            async { Ok(()) }.boxed()
        }));
        let layout = Layout::NORDIC_UART;
        // Given, since BlueZ would number them in the order of a hash table. A characteristic has two handles, and one for its
        // configuration if it notifies.
        let (first, write_at, notify_at) = match self.table {
            Table::First => (SERVICE_AT, SERVICE_AT + 1, SERVICE_AT + 3),
            Table::Swapped => (SERVICE_AT, SERVICE_AT + 4, SERVICE_AT + 1),
            Table::Shifted => (SERVICE_AT + 16, SERVICE_AT + 17, SERVICE_AT + 19),
        };
        let uart = Service {
            uuid: layout.service,
            handle: NonZeroU16::new(first),
            primary: true,
            characteristics: vec![
                Characteristic {
                    uuid: layout.write,
                    handle: NonZeroU16::new(write_at),
                    write: Some(CharacteristicWrite {
                        write: true,
                        write_without_response: true,
                        method: write,
                        ..Default::default()
                    }),
                    ..Default::default()
                },
                Characteristic {
                    uuid: layout.notify,
                    handle: NonZeroU16::new(notify_at),
                    notify: Some(CharacteristicNotify {
                        notify: true,
                        method: CharacteristicNotifyMethod::Io,
                        ..Default::default()
                    }),
                    control_handle: handle,
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        let services = match self.table {
            Table::First | Table::Swapped => vec![uart],
            Table::Shifted => vec![device_information(), uart],
        };
        let application = Application {
            services,
            ..Default::default()
        };
        let served = self.adapter.serve_gatt_application(application).await?;
        self.served = Some((served, Box::pin(control)));
        Ok(())
    }

    async fn advertise(&mut self) -> anyhow::Result<()> {
        let advertisement = Advertisement {
            service_uuids: [Layout::NORDIC_UART.service].into_iter().collect(),
            discoverable: Some(true),
            local_name: Some(self.name.clone()),
            ..Default::default()
        };
        self.advertised = Some(self.adapter.advertise(advertisement).await?);
        Ok(())
    }

    async fn disconnect_all(&self) -> anyhow::Result<()> {
        for address in self.adapter.device_addresses().await? {
            let device = self.adapter.device(address)?;
            if device.is_connected().await? {
                device.disconnect().await?;
            }
        }
        Ok(())
    }
}

async fn next_event(
    served: &mut Option<(ApplicationHandle, std::pin::Pin<Box<CharacteristicControl>>)>,
) -> Option<CharacteristicControlEvent> {
    match served {
        Some((_, control)) => control.next().await,
        None => std::future::pending().await,
    }
}

/// Where the attribute table's part of ours begins; bluetoothd's own services are below.
const SERVICE_AT: u16 = 0x40;

/// The Device Information service (0x180A) with a model number (0x2A24).
fn device_information() -> Service {
    let uuid = |short: u16| bluer::Uuid::from_u128((u128::from(short) << 96) | BASE);
    Service {
        uuid: uuid(0x180A),
        handle: NonZeroU16::new(SERVICE_AT + 8),
        primary: true,
        characteristics: vec![Characteristic {
            uuid: uuid(0x2A24),
            read: Some(CharacteristicRead {
                read: true,
                fun: Box::new(|_| async { Ok(b"simulated".to_vec()) }.boxed()),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The Bluetooth base UUID (Core 5.4 Vol 3 Part B §2.5.1).
const BASE: u128 = 0x0000_0000_0000_1000_8000_0080_5f9b_34fb;
