//! What observers see of the links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autoglm_drivers::link::{LinkAddress, LinkId};
use tokio::sync::watch;

use super::state::LinkState;

/// How a link is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// Whoever reaches the line can read it and write on it.
    Clear,
    /// Encrypted, and both ends have proved that they have the device's key.
    Private,
}

impl Privacy {
    /// Its name on the bus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Private => "private",
        }
    }
}

/// How a link did when it was used last.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// The smoothed round-trip time, once known.
    pub rtt: Option<Duration>,
    /// The share of packets that had to be sent again, once enough were sent.
    pub loss: Option<f64>,
    /// Bytes to the device since the daemon started.
    pub bytes_sent: u64,
    /// Bytes from it.
    pub bytes_received: u64,
}

/// What observers see of a link.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkSnapshot {
    /// Its name.
    pub id: LinkId,
    /// Its device's name.
    pub device: String,
    /// Where it leads.
    pub address: LinkAddress,
    /// Its state; the one that is connected carries the device.
    pub state: LinkState,
    /// How it is protected.
    pub privacy: Privacy,
    /// How it does.
    pub quality: Quality,
}

/// All links, to watch.
pub type Links = watch::Receiver<Arc<BTreeMap<LinkId, LinkSnapshot>>>;

/// Where supervisors publish their links' states.
#[derive(Debug, Clone)]
pub struct LinkBoard(watch::Sender<Arc<BTreeMap<LinkId, LinkSnapshot>>>);

impl LinkBoard {
    /// An empty board.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::channel(Arc::default()).0)
    }

    /// The board, to watch.
    #[must_use]
    pub fn subscribe(&self) -> Links {
        self.0.subscribe()
    }

    /// Shows the links of one device as they are now. Unchanged ones wake nobody, and a changed quality alone does not either: whoever
    /// looks sees it.
    pub fn publish(&self, snapshots: impl IntoIterator<Item = LinkSnapshot>) {
        self.0.send_if_modified(|links| {
            let mut is_news = false;
            for snapshot in snapshots {
                let shown = links.get(&snapshot.id);
                if shown == Some(&snapshot) {
                    continue;
                }
                is_news |= shown.is_none_or(|shown| shown.state != snapshot.state);
                Arc::make_mut(links).insert(snapshot.id.clone(), snapshot);
            }
            is_news
        });
    }
}

impl Default for LinkBoard {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until each of `count` devices was tried once: it is known, or it is known of each of its links why not.
pub async fn all_tried(mut links: Links, count: usize) {
    // An error means that nobody supervises links any more: then nothing more is to be waited for.
    let _ = links.wait_for(|links| tried(links.values()) >= count).await;
}

/// How many devices were tried.
fn tried<'a>(links: impl Iterator<Item = &'a LinkSnapshot>) -> usize {
    let mut devices: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for link in links {
        let (is_connected, is_open) = devices.entry(&link.device).or_default();
        *is_connected |= matches!(link.state, LinkState::Connected { .. });
        *is_open |= matches!(
            link.state,
            LinkState::Disconnected | LinkState::Connecting { .. } | LinkState::Standby
        );
    }
    devices
        .values()
        .filter(|(is_connected, is_open)| *is_connected || !is_open)
        .count()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn link(device: &str, kind: &str, state: LinkState) -> LinkSnapshot {
        LinkSnapshot {
            id: LinkId(format!("{device}-{kind}")),
            device: device.to_owned(),
            address: "serial:///dev/x".parse().unwrap(),
            state,
            privacy: Privacy::Clear,
            quality: Quality::default(),
        }
    }

    #[test]
    fn a_device_was_tried_when_it_is_connected_or_all_its_links_failed() {
        let now = Instant::now();
        let failed = || LinkState::Reconnecting {
            attempt: 1,
            retry_at: now,
            cause: "no such port".to_owned(),
        };
        let (connected, connecting) = (
            LinkState::Connected { since: now },
            LinkState::Connecting { attempt: 0 },
        );
        let tried = |links: &[LinkSnapshot]| super::tried(links.iter());
        assert_eq!(tried(&[link("a", "serial", failed())]), 1);
        assert_eq!(
            tried(&[link("a", "mqtt", connecting), link("a", "serial", failed())]),
            0
        );
        assert_eq!(
            tried(&[
                link("a", "mqtt", LinkState::Standby),
                link("a", "serial", connected)
            ]),
            1
        );
        assert_eq!(tried(&[link("a", "serial", LinkState::Disconnected)]), 0);
    }

    #[test]
    fn an_unchanged_link_wakes_nobody() {
        let board = LinkBoard::new();
        let mut links = board.subscribe();
        board.publish([link("a", "serial", LinkState::Disconnected)]);
        assert!(links.has_changed().unwrap());
        links.mark_unchanged();
        board.publish([link("a", "serial", LinkState::Disconnected)]);
        assert!(!links.has_changed().unwrap());
        let quality = Quality {
            bytes_sent: 7,
            ..Quality::default()
        };
        let measured = LinkSnapshot {
            quality,
            ..link("a", "serial", LinkState::Disconnected)
        };
        board.publish([measured]);
        assert!(!links.has_changed().unwrap());
        let shown = links.borrow()[&LinkId("a-serial".to_owned())].quality;
        assert_eq!(shown, quality, "whoever looks sees it");
    }
}
