//! Opens links, and says when one may be worth opening.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Link, LinkAddress};
use crate::ble::{BleError, Radio};
use crate::mqtt::device::{AttachError, Brokers};
use crate::serial::{self, OpenError};

/// How often the name of an absent serial line is looked for: a fifth of the second within which a replugged adapter is to be
/// back, and a look costs a few microseconds.
const LOOK: Duration = Duration::from_millis(200);

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The serial line could not be opened.
    #[error(transparent)]
    Serial(#[from] OpenError),
    /// The device cannot be reached by radio.
    #[error(transparent)]
    Ble(#[from] BleError),
    /// The device cannot be reached by its broker.
    #[error(transparent)]
    Mqtt(#[from] AttachError),
}

/// Opens links of all kinds. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Opener {
    brokers: Brokers,
    radio: Option<Radio>,
}

impl Opener {
    /// An opener that reaches devices by these brokers, and by this radio if there is to be one.
    #[must_use]
    pub fn new(brokers: Brokers, radio: Option<Radio>) -> Self {
        Self { brokers, radio }
    }

    /// Opens a link; that somebody answers on it is not said by this.
    ///
    /// # Errors
    /// What is missing, with its remedy.
    pub async fn open(&self, address: &LinkAddress) -> Result<Link, LinkError> {
        match address {
            LinkAddress::Serial { path, baud } => {
                Ok(Link::Stream(Box::new(serial::open(path, *baud)?)))
            }
            LinkAddress::Ble(address) => {
                let radio = self.radio.as_ref().ok_or(BleError::Stopped)?;
                Ok(Link::Packets(radio.open(address).await?))
            }
            LinkAddress::Mqtt { broker, topic } => {
                Ok(Link::Packets(self.brokers.attach(broker, topic).await?))
            }
        }
    }

    /// What tells when a link may be worth trying.
    #[must_use]
    pub fn announcements(&self, address: &LinkAddress) -> Announcements {
        match address {
            LinkAddress::Serial { path, .. } => Announcements::Path(path.clone()),
            LinkAddress::Ble(address) => Announcements::Device(
                self.radio
                    .as_ref()
                    .map(|radio| radio.announcements(address)),
            ),
            LinkAddress::Mqtt { broker, topic } => {
                Announcements::Device(self.brokers.announcements(broker, topic))
            }
        }
    }
}

/// Tells when a link may be worth trying at once: its node has appeared, or its device has spoken.
#[derive(Debug)]
pub enum Announcements {
    /// A node that may appear.
    Path(PathBuf),
    /// A device that may speak at its broker, or advertise; `None` for a broker that nobody knows.
    Device(Option<Arc<Notify>>),
}

impl Announcements {
    /// Waits for the next announcement. Dropping the future loses none but a node that came and went.
    pub async fn next(&mut self) {
        match self {
            Self::Path(path) => appears(path).await,
            Self::Device(Some(spoke)) => spoke.notified().await,
            Self::Device(None) => std::future::pending().await,
        }
    }
}

/// Waits until a path that is absent exists.
async fn appears(path: &Path) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_absent = false;
    loop {
        look.tick().await;
        match path.exists() {
            true if was_absent => return,
            is_there => was_absent = !is_there,
        }
    }
}
