//! One device's btleplug handle and its notifications, kept for the life of the process.
//!
//! Two faults of bluez-async 0.9 make it so: a stream that is dropped panics in a task of its own ("No match with that id
//! found"), and `notifications()` neither ends nor says a word when the device leaves. So each device has one stream that is read
//! for ever, and whoever wants notifications is entered here. The number of devices that are ever connected bounds it.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use btleplug::api::Peripheral as _;
use btleplug::platform::Peripheral;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Notifications that wait for their reader: twice the protocol's largest window.
pub(super) const NOTIFICATIONS: usize = 64;

#[derive(Debug)]
struct Subscriber {
    service: Uuid,
    characteristic: Uuid,
    out: mpsc::Sender<io::Result<Vec<u8>>>,
    was_heard: Arc<AtomicBool>,
}

type Subscribers = Arc<Mutex<Vec<Subscriber>>>;

/// A device's handle and notifications. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    pub(super) peripheral: Peripheral,
    subscribers: Subscribers,
}

impl Tap {
    /// Takes the device's stream of notifications.
    pub(super) async fn open(peripheral: Peripheral) -> btleplug::Result<Self> {
        let subscribers = Subscribers::default();
        let mut stream = ManuallyDrop::new(peripheral.notifications().await?);
        let readers = Arc::clone(&subscribers);
        tokio::spawn(async move {
            while let Some(notification) = stream.next().await {
                let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
                readers.retain(|reader| !reader.out.is_closed());
                for reader in readers.iter() {
                    let is_meant = reader.characteristic == notification.uuid
                        && reader.service == notification.service_uuid;
                    if is_meant {
                        reader.was_heard.store(true, Ordering::Relaxed);
                    }
                    // A full queue loses it, as the radio may: the connection above sends again, and D-Bus cannot be held up.
                    if is_meant && reader.out.try_send(Ok(notification.value.clone())).is_err() {
                        tracing::debug!(characteristic = %reader.characteristic, "notification dropped: its reader is too slow");
                    }
                }
            }
            tracing::debug!("stream of notifications ended");
        });
        Ok(Self {
            peripheral,
            subscribers,
        })
    }

    /// Enters a reader; dropping the other end takes it out. The answer says whether anything was heard.
    pub(super) fn read(
        &self,
        service: Uuid,
        characteristic: Uuid,
        out: mpsc::Sender<io::Result<Vec<u8>>>,
    ) -> Arc<AtomicBool> {
        let was_heard = Arc::<AtomicBool>::default();
        let mut readers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !reader.out.is_closed());
        readers.push(Subscriber {
            service,
            characteristic,
            out,
            was_heard: Arc::clone(&was_heard),
        });
        was_heard
    }

    /// Ends all readers' notifications: the device is gone.
    pub(super) fn hang_up(&self) {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
