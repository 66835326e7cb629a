//! The attribute tables that a peripheral serves, and their handles.

use std::num::NonZeroU16;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use autoglm_drivers::ble::address::Layout;
use bluer::Adapter;
use bluer::gatt::local::{
    Application, ApplicationHandle, Characteristic, CharacteristicControl,
    CharacteristicControlHandle, CharacteristicNotify, CharacteristicNotifyMethod,
    CharacteristicRead, CharacteristicWrite, CharacteristicWriteMethod, Service,
    characteristic_control,
};
use futures_util::FutureExt as _;

use super::Host;

/// How often BlueZ is asked for another order of the characteristics; each try is as good as the toss of a coin.
const ORDERINGS_MAX: u32 = 30;
/// How the handles are waited for, which is longer on an emulated machine.
const HANDLE_POLL: Duration = Duration::from_millis(10);
const HANDLE_PATIENCE: Duration = Duration::from_secs(20);

/// A table that BlueZ serves, until it is dropped, and who asks for its notifications.
pub(super) type Served = (ApplicationHandle, std::pin::Pin<Box<CharacteristicControl>>);

/// Which attribute table is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    First,
    /// With another service in front, so that all handles are others.
    Shifted,
    /// What was written notifies, and what notified is written, at handles that were those of the other.
    Swapped,
}

impl Table {
    /// BlueZ numbers characteristics in the order in which a hash table of ours gives them. Numbers that are given it takes, but what it
    /// then answers to a discovery is in its order of registration, and whoever asks misses descriptors. So it numbers them
    /// itself, and is asked again until the order is the wanted one.
    pub(super) async fn serve(self, adapter: &Adapter, host: &Host) -> anyhow::Result<Served> {
        for _ in 0..ORDERINGS_MAX {
            let (write, write_handle) = characteristic_control();
            let (notify, notify_handle) = characteristic_control();
            let application = self.application(host, write_handle, notify_handle);
            let served = adapter.serve_gatt_application(application).await?;
            let (write_at, notify_at) = (assigned(&write).await?, assigned(&notify).await?);
            if (notify_at < write_at) == (self == Self::Swapped) {
                return Ok((served, Box::pin(notify)));
            }
        }
        anyhow::bail!(
            "BlueZ numbered the characteristics otherwise than wanted, {ORDERINGS_MAX} times"
        )
    }

    fn application(
        self,
        host: &Host,
        write_handle: CharacteristicControlHandle,
        notify_handle: CharacteristicControlHandle,
    ) -> Application {
        let host = Arc::clone(host);
        let method = CharacteristicWriteMethod::Fun(Box::new(move |packet, _| {
            let host = host.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(host) = host {
                let _ = host.try_send(Ok(packet));
            }
            async { Ok(()) }.boxed()
        }));
        let layout = Layout::NORDIC_UART;
        let write = Characteristic {
            uuid: layout.write,
            write: Some(CharacteristicWrite {
                write: true,
                write_without_response: true,
                method,
                ..Default::default()
            }),
            control_handle: write_handle,
            ..Default::default()
        };
        let notify = Characteristic {
            uuid: layout.notify,
            notify: Some(CharacteristicNotify {
                notify: true,
                method: CharacteristicNotifyMethod::Io,
                ..Default::default()
            }),
            control_handle: notify_handle,
            ..Default::default()
        };
        let at = match self {
            Self::First | Self::Swapped => SERVICE_AT,
            Self::Shifted => SERVICE_AT + 16,
        };
        let uart = Service {
            uuid: layout.service,
            handle: NonZeroU16::new(at),
            primary: true,
            characteristics: vec![write, notify],
            ..Default::default()
        };
        let services = match self {
            Self::First | Self::Swapped => vec![uart],
            Self::Shifted => vec![device_information(), uart],
        };
        Application {
            services,
            ..Default::default()
        }
    }
}

/// The handle that BlueZ gave a characteristic's value. It tells it after the registration.
async fn assigned(control: &CharacteristicControl) -> anyhow::Result<NonZeroU16> {
    let told = async {
        loop {
            match control.handle() {
                Ok(handle) => return handle,
                Err(_) => tokio::time::sleep(HANDLE_POLL).await,
            }
        }
    };
    let handle = tokio::time::timeout(HANDLE_PATIENCE, told).await;
    handle.context("BlueZ did not tell the handle of a characteristic")
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
