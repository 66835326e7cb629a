//! BLE through btleplug on BlueZ: links that carry packets, foreign devices' characteristics, advertisements, pairing.
//!
//! ```text
//! Radio (handle) ─► radio (who is there, which adapter) ─► adapter, one task each ─► machine (pure: what, when, whom)
//!      ▲                      ▲                                   │  ▲
//!      │                      └── bluez (org.bluez by zbus)       │  └── listener (events, for ever)
//!      └────── packets, GattClient ◄── gatt, tap (btleplug) ◄─────┘
//! ```
//!
//! A link is a characteristic that is written and one that notifies (the Nordic UART service by default). Its packets come whole
//! but, with BlueZ's default of three EATT channels, not in order, and may be lost at either end's queues: the protocol's segments
//! are numbered.
//!
//! No bluetoothd, no adapter, an adapter that is off: normal states, shown in [`RadioStatus`], said once, ended when the part
//! appears. This module never decides when a lost link is tried again (it tells when its device advertises, by
//! [`Radio::announcements`]), and knows nothing of what packets or characteristics mean.
//!
//! Read [`address`], then [`machine`], then [`adapter`]. What is worked around: [`tap`], [`listener`], [`bluez`].

mod adapter;
pub mod address;
mod bluez;
mod fault;
pub mod gatt;
mod listener;
mod machine;
mod nameless;
mod pairing;
mod radio;
mod session;
mod tap;
pub mod types;

use std::sync::Arc;

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use address::{BleAddress, DeviceAddress};
pub use gatt::GattClient;
pub use pairing::{Credential, Question};
pub use types::{AdapterStatus, Advertisement, BleError, RadioStatus};

use self::adapter::Wanted;
use self::gatt::Purpose;
use self::radio::{Interest, RadioTask, Request};
use crate::link::PacketLink;

/// Requests on their way to the radio's task, which only passes them on; more wait.
const REQUESTS: usize = 16;
/// Advertisements that a slow listener may be behind before it loses the oldest.
const ADVERTISEMENTS: usize = 256;

/// Handle to Bluetooth on this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Radio {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<RadioStatus>,
    advertisements: broadcast::Sender<Advertisement>,
}

impl Radio {
    /// Starts the owner task on `tracker`; it ends, and with it all links, when `cancel` is. Never waits for a part to be there.
    #[must_use]
    pub fn spawn(tracker: &TaskTracker, cancel: CancellationToken) -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let (status, watched) = watch::channel(RadioStatus::default());
        let (advertisements, _) = broadcast::channel(ADVERTISEMENTS);
        let task = RadioTask::new(tracker.clone(), status, advertisements.clone());
        tracker.spawn(task.run(queue, cancel));
        Self {
            requests,
            status: watched,
            advertisements,
        }
    }

    /// What is there, to watch.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<RadioStatus> {
        self.status.clone()
    }

    /// All advertisements from now on, of all devices. While somebody listens the adapters scan.
    pub async fn advertisements(&self) -> broadcast::Receiver<Advertisement> {
        let listener = self.advertisements.subscribe();
        // The task is gone: then nothing will ever come, and the stream says so by its end.
        let _ = self.requests.send(Request::Listeners).await;
        listener
    }

    /// Connects a device and opens its packets. Waits for the device to advertise for up to 4 s of scanning; dropping the
    /// future gives up.
    ///
    /// # Errors
    /// What is missing, with its remedy.
    pub async fn open(&self, address: &BleAddress) -> Result<PacketLink, BleError> {
        let (reply, answer) = oneshot::channel();
        let purpose = Purpose::Packets {
            layout: address.layout,
            mtu_bytes_max: address.mtu_bytes_max,
        };
        let target = address.target.clone();
        let wanted = Wanted::Packets {
            target,
            purpose,
            reply,
        };
        self.ask(address, wanted, answer).await
    }

    /// Connects a foreign device for reading and writing its characteristics, as [`Radio::open`] does. It must have all of
    /// `characteristics`, given as (service, characteristic); if it seems not to, its services are learnt anew once.
    ///
    /// # Errors
    /// What is missing, with its remedy.
    pub async fn connect(
        &self,
        address: &BleAddress,
        characteristics: Arc<[(Uuid, Uuid)]>,
    ) -> Result<GattClient, BleError> {
        let (reply, answer) = oneshot::channel();
        let wanted = Wanted::Gatt {
            target: address.target.clone(),
            purpose: Purpose::Gatt(characteristics),
            reply,
        };
        self.ask(address, wanted, answer).await
    }

    /// Pairs with a device that advertises and trusts it from then on. It may take up to 45 s, since a person may have to press
    /// a button there. Returns its address.
    ///
    /// # Errors
    /// What is missing, or that the device refuses.
    pub async fn pair(
        &self,
        address: &BleAddress,
        credential: Credential,
    ) -> Result<DeviceAddress, BleError> {
        let (reply, answer) = oneshot::channel();
        let wanted = Wanted::Pair {
            target: address.target.clone(),
            credential,
            reply,
        };
        self.ask(address, wanted, answer).await
    }

    /// Removes all that BlueZ keeps of a device: bond, keys and cached services. It is disconnected.
    ///
    /// # Errors
    /// What is missing. A device that BlueZ does not know is forgotten.
    pub async fn forget(
        &self,
        address: &BleAddress,
        device: DeviceAddress,
    ) -> Result<(), BleError> {
        let (reply, answer) = oneshot::channel();
        self.ask(address, Wanted::Forget { device, reply }, answer)
            .await
            .map(|_| ())
    }

    /// What is notified when the device appears: advertises after it was silent for 10 s, not yet heard, or connected. The
    /// adapters scan for it until it is connected, as long as somebody keeps the answer.
    #[must_use]
    pub fn announcements(&self, address: &BleAddress) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        let request = Request::Interest(Interest {
            adapter: address.adapter.clone(),
            target: address.target.clone(),
            service: address.layout.service,
            notify: Arc::downgrade(&notify),
        });
        // In a task, for the queue may be full for a moment. An error means that nobody will ever appear.
        let requests = self.requests.clone();
        tokio::spawn(async move { requests.send(request).await });
        notify
    }

    async fn ask<T>(
        &self,
        address: &BleAddress,
        wanted: Wanted,
        answer: oneshot::Receiver<Result<T, BleError>>,
    ) -> Result<T, BleError> {
        let request = Request::Want {
            adapter: address.adapter.clone(),
            wanted,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| BleError::Stopped)?;
        answer.await.unwrap_or(Err(BleError::Stopped))
    }
}
