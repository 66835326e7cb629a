//! By what devices are reached: serial ports, brokers and the radio, each made once for all devices.
//!
//! Links are opened on them by [`Opener`](autoglm_drivers::link::Opener); who opens which is [`crate::link`]'s.

use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::ble::Radio;
use autoglm_drivers::link::{LinkAddress, LinkClass};
use autoglm_drivers::mqtt::device::{Brokers, End};
use autoglm_drivers::serial::TtyWatch;

use super::tasks::Tree;
use crate::config::Config;

/// Rests between connections to a broker by which devices are reached: short at first, since devices wait, and jittered, since all
/// boxes of a broker that restarts come back at once.
const BROKER_BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(250),
    max: Duration::from_secs(30),
    healthy_after: Duration::from_secs(60),
};

/// One connection for each broker by which devices are reached.
pub(super) fn device_brokers(config: &Config, tree: &Tree) -> Brokers {
    let links = config.devices.iter().flat_map(|device| &device.links);
    let places = links.filter_map(|link| match &link.address {
        LinkAddress::Mqtt { broker, topic } => Some((broker.clone(), topic.clone())),
        LinkAddress::Serial { .. } | LinkAddress::Ble(_) => None,
    });
    Brokers::spawn(
        places,
        End::Box,
        &config.box_id,
        BROKER_BACKOFF,
        &tree.tasks,
        &tree.cancel,
    )
}

/// What watches the serial ports. Without it they are looked for again and again.
pub(super) fn serial_ports() -> Option<TtyWatch> {
    TtyWatch::start()
        .inspect_err(|error| tracing::error!(%error, "serial ports cannot be watched"))
        .ok()
}

/// Bluetooth, if a device is reached by it: without one, nothing on the box is asked for it.
pub(super) fn device_radio(config: &Config, tree: &Tree) -> Option<Radio> {
    let mut links = config.devices.iter().flat_map(|device| &device.links);
    let is_wanted =
        config.foreign.ble.is_some() || links.any(|link| link.address.class() == LinkClass::Ble);
    is_wanted.then(|| Radio::spawn(&tree.tasks, tree.cancel.clone()))
}
