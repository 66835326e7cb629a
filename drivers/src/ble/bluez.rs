//! What btleplug 0.13.5 lacks, straight from org.bluez over zbus: who is there, scanning without the classic radio, power, pairing
//! and forgetting.
//!
//! btleplug starts scans with the transport `auto`, which spends half of a dual-mode controller's time on classic inquiries,
//! and switches the adapter on unasked; it has no `Pair`, no `RemoveDevice`, and does not tell of adapters that come and go.
//!
//! Every call has a time limit. Nothing is called before the name `org.bluez` has an owner: a call would activate the service,
//! which on a box without an adapter never comes up, and hang.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use zbus::fdo::{DBusProxy, ObjectManagerProxy};
use zbus::names::BusName;
use zbus::{Connection, MatchRule, MessageStream};
use zbus::{ObjectPath, OwnedVariant, Variant};

use super::address::DeviceAddress;

const SERVICE: &str = "org.bluez";
const ADAPTER: &str = "org.bluez.Adapter1";
const DEVICE: &str = "org.bluez.Device1";
/// The most that a short call may take. BlueZ answers these without the radio; starting a scan took 2.1 s at most in the lab.
const CALL: Duration = Duration::from_secs(5);
/// The most that any call may take; pairing has its own, shorter limit.
const CALL_MAX: Duration = Duration::from_secs(60);

/// Signals of adapters that wait to be read; there are a few an hour.
const SIGNALS: NonZero<usize> = NonZero::new(64).expect("not zero");

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// bluetoothd answers, or not; not: all adapters are gone with it.
    Service(bool),
    /// An adapter was plugged in.
    Adapter {
        name: String,
        address: DeviceAddress,
        is_on: bool,
    },
    /// An adapter was switched.
    Power { name: String, is_on: bool },
    /// An adapter was unplugged.
    Gone { name: String },
}

/// A connection to the system bus.
#[derive(Debug, Clone)]
pub(super) struct Bluez {
    connection: Connection,
    pairing: Arc<Mutex<()>>,
}

/// The object of an adapter.
pub(super) fn adapter_path(adapter: &str) -> String {
    format!("/org/bluez/{adapter}")
}

/// The object of a device.
pub(super) fn device_path(adapter: &str, device: DeviceAddress) -> String {
    format!("/org/bluez/{}", device_id(adapter, device))
}

/// A device's name within BlueZ, `hci0/dev_C0_FF_EE_00_00_01`.
pub(super) fn device_id(adapter: &str, device: DeviceAddress) -> String {
    format!("{adapter}/dev_{}", device.to_string().replace(':', "_"))
}

/// The device that such a name names.
pub(super) fn device_of(id: &str) -> Option<DeviceAddress> {
    id.rsplit_once("dev_")?.1.replace('_', ":").parse().ok()
}

fn adapter_of(path: &str) -> Option<&str> {
    path.strip_prefix("/org/bluez/")
        .filter(|name| !name.contains('/'))
}

impl Bluez {
    /// Connects to the system bus, which is not yet to say that bluetoothd is there.
    pub(super) async fn connect() -> zbus::Result<Self> {
        let connecting = zbus::connection::Builder::system()
            .method_timeout(CALL_MAX)
            .build();
        let connection = limited(CALL, connecting).await?;
        Ok(Self {
            connection,
            pairing: Arc::default(),
        })
    }

    /// Waits until nobody else pairs.
    pub(super) async fn pairing_turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.pairing).lock_owned().await
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Tells what is there, now and from now on; returns when the bus is gone or nobody listens.
    pub(super) async fn watch(&self, out: &mpsc::Sender<Vec<Presence>>) -> zbus::Result<()> {
        let bus = DBusProxy::new(&self.connection).await?;
        let objects = ObjectManagerProxy::builder(&self.connection)
            .destination(SERVICE)
            .path("/")
            .build()
            .await?;
        // Listen first, then ask: what happens in between is told twice rather than not at all.
        let mut owners = bus
            .receive_name_owner_changed_with_args(&[(0, SERVICE)])
            .await?;
        let mut added = objects.receive_interfaces_added().await?;
        let mut removed = objects.receive_interfaces_removed().await?;
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SERVICE)
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .add_arg(ADAPTER)
            .build()?;
        let mut changed =
            MessageStream::for_match_rule(rule, &self.connection, Some(SIGNALS)).await?;

        let is_there = limited(CALL, async {
            Ok(bus.name_has_owner(BusName::try_from(SERVICE)?).await?)
        });
        let mut found = vec![Presence::Service(is_there.await?)];
        if found[0] == Presence::Service(true) {
            found.extend(self.adapters(&objects).await);
        }
        loop {
            if !found.is_empty() && out.send(found).await.is_err() {
                return Ok(());
            }
            found = tokio::select! {
                owner = owners.next() => {
                    let Some(owner) = owner else { return Ok(()) };
                    let is_there = owner.args()?.new_owner.is_some();
                    // An owner that changed without a pause has lost all that the one before knew.
                    let mut found = vec![Presence::Service(false)];
                    if is_there {
                        found.push(Presence::Service(true));
                        found.extend(self.adapters(&objects).await);
                    }
                    found
                }
                added = added.next() => {
                    let Some(added) = added else { return Ok(()) };
                    let args = added.args()?;
                    let properties = args.interfaces_and_properties.get(ADAPTER);
                    properties
                        .and_then(|properties| adapter(&args.object_path, |name| properties.get(name)))
                        .into_iter()
                        .collect()
                }
                removed = removed.next() => {
                    let Some(removed) = removed else { return Ok(()) };
                    let args = removed.args()?;
                    let is_adapter = args.interfaces.iter().any(|interface| interface == ADAPTER);
                    adapter_of(&args.object_path)
                        .filter(|_| is_adapter)
                        .map(|name| Presence::Gone { name: name.to_owned() })
                        .into_iter()
                        .collect()
                }
                message = changed.next() => {
                    let Some(message) = message else { return Ok(()) };
                    switched(&message?).into_iter().collect()
                }
            };
        }
    }

    /// The adapters at present; none where bluetoothd has gone again meanwhile, which is told by itself.
    async fn adapters(&self, objects: &ObjectManagerProxy<'_>) -> Vec<Presence> {
        let listing = limited(CALL, async { Ok(objects.get_managed_objects().await?) });
        match listing.await {
            Ok(listing) => listing
                .iter()
                .filter_map(|(path, interfaces)| {
                    let properties = interfaces.get(ADAPTER)?;
                    adapter(path, |name| properties.get(name).map(|value| &**value))
                })
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "bluetoothd did not list its adapters");
                Vec::new()
            }
        }
    }

    /// Starts a scan for low-energy devices that tells of every advertisement.
    pub(super) async fn start_scan(&self, adapter: &str) -> zbus::Result<()> {
        let filter = HashMap::from([
            ("Transport", Variant::from("le")),
            ("DuplicateData", Variant::from(true)),
        ]);
        let path = adapter_path(adapter);
        self.call(&path, ADAPTER, "SetDiscoveryFilter", &filter, CALL)
            .await?;
        self.call(&path, ADAPTER, "StartDiscovery", &(), CALL).await
    }

    pub(super) async fn stop_scan(&self, adapter: &str) -> zbus::Result<()> {
        self.call(&adapter_path(adapter), ADAPTER, "StopDiscovery", &(), CALL)
            .await
    }

    pub(super) async fn switch_on(&self, adapter: &str) -> zbus::Result<()> {
        self.set(&adapter_path(adapter), ADAPTER, "Powered", true.into())
            .await
    }

    pub(super) async fn switch_off(&self, adapter: &str) -> zbus::Result<()> {
        self.set(&adapter_path(adapter), ADAPTER, "Powered", false.into())
            .await
    }

    /// Removes a device, its cached services and its bond.
    pub(super) async fn remove_device(
        &self,
        adapter: &str,
        device: DeviceAddress,
    ) -> zbus::Result<()> {
        let path = ObjectPath::try_from(device_path(adapter, device))?;
        self.call(&adapter_path(adapter), ADAPTER, "RemoveDevice", &path, CALL)
            .await
    }

    pub(super) async fn disconnect(
        &self,
        adapter: &str,
        device: DeviceAddress,
    ) -> zbus::Result<()> {
        let path = device_path(adapter, device);
        self.call(&path, DEVICE, "Disconnect", &(), CALL).await
    }

    pub(super) async fn is_paired(
        &self,
        adapter: &str,
        device: DeviceAddress,
    ) -> zbus::Result<bool> {
        let (path, properties) = (
            device_path(adapter, device),
            "org.freedesktop.DBus.Properties",
        );
        let asked = (DEVICE, "Paired");
        let called =
            self.connection
                .call_method(Some(SERVICE), path, Some(properties), "Get", &asked);
        let value: OwnedVariant = limited(CALL, called).await?.body().deserialize()?;
        bool::try_from(value)
    }

    pub(super) async fn pair(
        &self,
        adapter: &str,
        device: DeviceAddress,
        within: Duration,
    ) -> zbus::Result<()> {
        self.call(&device_path(adapter, device), DEVICE, "Pair", &(), within)
            .await
    }

    pub(super) async fn cancel_pairing(
        &self,
        adapter: &str,
        device: DeviceAddress,
    ) -> zbus::Result<()> {
        let path = device_path(adapter, device);
        self.call(&path, DEVICE, "CancelPairing", &(), CALL).await
    }

    pub(super) async fn trust(&self, adapter: &str, device: DeviceAddress) -> zbus::Result<()> {
        self.set(
            &device_path(adapter, device),
            DEVICE,
            "Trusted",
            true.into(),
        )
        .await
    }

    async fn set(
        &self,
        path: &str,
        interface: &str,
        property: &str,
        value: Variant<'_>,
    ) -> zbus::Result<()> {
        let properties = "org.freedesktop.DBus.Properties";
        self.call(path, properties, "Set", &(interface, property, value), CALL)
            .await
    }

    pub(super) async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
        limit: Duration,
    ) -> zbus::Result<()>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let called =
            self.connection
                .call_method(Some(SERVICE), path, Some(interface), method, body);
        limited(limit, called).await.map(|_| ())
    }
}

async fn limited<T>(
    limit: Duration,
    work: impl Future<Output = zbus::Result<T>>,
) -> zbus::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(zbus::Error::InputOutput(
            std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
        )),
    }
}

/// The adapter of these properties.
fn adapter<'a>(path: &str, property: impl Fn(&str) -> Option<&'a Variant<'a>>) -> Option<Presence> {
    let text = |value: &Variant<'_>| match value {
        Variant::Str(text) => text.parse().ok(),
        _ => None,
    };
    Some(Presence::Adapter {
        name: adapter_of(path)?.to_owned(),
        address: property("Address").and_then(text)?,
        is_on: matches!(property("Powered"), Some(Variant::Bool(true))),
    })
}

/// An adapter that was switched on or off, if that is what a `PropertiesChanged` says.
fn switched(message: &zbus::Message) -> Option<Presence> {
    let header = message.header();
    let name = adapter_of(header.path()?.as_str())?.to_owned();
    let body = message.body();
    let (_, changed, _): (String, HashMap<String, OwnedVariant>, Vec<String>) =
        body.deserialize().ok()?;
    let is_on = bool::try_from(changed.get("Powered")?).ok()?;
    Some(Presence::Power { name, is_on })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_in_the_names_of_bluez() {
        let device: DeviceAddress = "C0:FF:EE:00:00:01".parse().unwrap();
        assert_eq!(device_id("hci0", device), "hci0/dev_C0_FF_EE_00_00_01");
        assert_eq!(device_of(&device_id("hci0", device)), Some(device));
        assert_eq!(device_of(&device_path("hci0", device)), Some(device));
        assert_eq!(device_of("hci0"), None);
        assert_eq!(adapter_of("/org/bluez/hci0"), Some("hci0"));
        assert_eq!(adapter_of("/org/bluez/hci0/dev_C0_FF_EE_00_00_01"), None);
    }
}
