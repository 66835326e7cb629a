//! `org.openautoglm.Edge1.Link`: one link of a device, by the board of links.
//!
//! Never opens or closes one: [`crate::link`] does.

use std::time::Duration;

use autoglm_drivers::link::LinkId;
use zbus::interface;

use crate::link::board::{LinkSnapshot, Links};

/// A link on the bus.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) links: Links,
}

impl Link {
    fn look<T: Default>(&self, part: impl FnOnce(&LinkSnapshot) -> T) -> T {
        self.links
            .borrow()
            .get(&self.id)
            .map(part)
            .unwrap_or_default()
    }
}

#[interface(name = "org.openautoglm.Edge1.Link")]
impl Link {
    /// Its device's name in the configuration, and its kind.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.id.to_string()
    }

    /// Name of its device in the configuration.
    #[zbus(property(emits_changed_signal = "const"))]
    fn device(&self) -> String {
        self.look(|link| link.device.clone())
    }

    /// Where it leads, as a URI.
    #[zbus(property(emits_changed_signal = "const"))]
    fn address(&self) -> String {
        self.look(|link| link.address.to_string())
    }

    /// `connected`: it carries the device. `standby`: another does. `connecting`, `reconnecting`, `disconnected`; `refused`: whoever
    /// answers is not authentic, or the key cannot be used.
    #[zbus(property)]
    fn state(&self) -> String {
        self.look(|link| link.state.name().to_owned())
    }

    /// Why it is not connected; empty otherwise.
    #[zbus(property)]
    fn detail(&self) -> String {
        self.look(|link| link.state.cause().unwrap_or_default().to_owned())
    }

    /// `private`: encrypted, and both ends have proved that they have the device's key. `clear`: neither.
    #[zbus(property(emits_changed_signal = "const"))]
    fn security(&self) -> String {
        self.look(|link| link.privacy.name().to_owned())
    }

    /// Smoothed round-trip time in microseconds, when the link was used last; 0 while it is not known.
    #[zbus(property(emits_changed_signal = "false"))]
    fn rtt_us(&self) -> u64 {
        self.look(|link| micros(link.quality.rtt))
    }

    /// Share of packets that had to be sent again, 0 to 1, when the link was used last; -1 while it is not known.
    #[zbus(property(emits_changed_signal = "false"))]
    fn loss(&self) -> f64 {
        self.look(|link| link.quality.loss.unwrap_or(-1.0))
    }

    /// Bytes handed to the link since the daemon started.
    #[zbus(property(emits_changed_signal = "false"))]
    fn bytes_sent(&self) -> u64 {
        self.look(|link| link.quality.bytes_sent)
    }

    /// Bytes taken from the link since the daemon started.
    #[zbus(property(emits_changed_signal = "false"))]
    fn bytes_received(&self) -> u64 {
        self.look(|link| link.quality.bytes_received)
    }
}

fn micros(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    })
}
