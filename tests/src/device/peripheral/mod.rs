//! The device's end of a BLE link: a GATT server and an advertisement on one of this machine's controllers, through BlueZ.
//!
//! It serves the Nordic UART service. The world plays with it by signals: USR1 makes it vanish (no advertisement, and whoever is
//! connected is disconnected), USR2 makes it return, HUP gives it other handles, as new firmware does, and ALRM gives the handles that it had
//! to other characteristics.

mod table;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use autoglm_drivers::ble::address::Layout;
use autoglm_drivers::link::{Delivery, PacketLink};
use bluer::adv::{Advertisement, AdvertisementHandle};
use bluer::gatt::CharacteristicWriter;
use bluer::gatt::local::CharacteristicControlEvent;
use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::table::{Served, Table};

/// Packets that wait on either side of the device; more are lost, as on a radio.
const PACKETS: usize = 64;
/// Hosts that were connected and not yet taken by the device's loop.
const HOSTS: usize = 2;
/// How often it advertises anew while nobody is connected. A real controller does so by itself, many times a second; an emulated one (btvirt)
/// passes an advertisement on once when it is switched on, and forgets it with each power-down.
const ADVERTISE_AGAIN: Duration = Duration::from_secs(1);

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

struct Server {
    adapter: bluer::Adapter,
    name: String,
    mtu_bytes_max: usize,
    host: Host,
    links: mpsc::Sender<PacketLink>,
    table: Table,
    served: Option<Served>,
    advertised: Option<AdvertisementHandle>,
    is_hidden: bool,
}

impl Server {
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut vanish = signal(SignalKind::user_defined1())?;
        let mut appear = signal(SignalKind::user_defined2())?;
        let mut change = signal(SignalKind::hangup())?;
        let mut swap = signal(SignalKind::alarm())?;
        let mut again = tokio::time::interval(ADVERTISE_AGAIN);
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
                _ = again.tick() => {
                    // Without power, or about to lose it: at the next tick.
                    if !self.is_hidden && !self.is_anyone_connected().await.unwrap_or(true) {
                        self.advertised = None;
                        self.advertise().await.unwrap_or_else(|error| eprintln!("not advertising: {error:#}"));
                    }
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
        self.served = Some(self.table.serve(&self.adapter, &self.host).await?);
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

    async fn is_anyone_connected(&self) -> bluer::Result<bool> {
        for address in self.adapter.device_addresses().await? {
            if self.adapter.device(address)?.is_connected().await? {
                return Ok(true);
            }
        }
        Ok(false)
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

async fn next_event(served: &mut Option<Served>) -> Option<CharacteristicControlEvent> {
    match served {
        Some((_, control)) => control.next().await,
        None => std::future::pending().await,
    }
}
