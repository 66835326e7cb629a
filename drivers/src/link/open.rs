//! Opens links, and says when one may be worth opening.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Link, LinkAddress};
use crate::ble::{BleError, Radio};
use crate::mqtt::device::{AttachError, Brokers};
use crate::serial::{self, Arrivals, LineFormat, OpenError, TtyWatch};

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
    ttys: Option<TtyWatch>,
}

impl Opener {
    /// An opener that reaches devices by these brokers, and by this radio if there is to be one.
    #[must_use]
    pub fn new(brokers: Brokers, radio: Option<Radio>) -> Self {
        Self {
            brokers,
            radio,
            ttys: None,
        }
    }

    /// With serial ports that are watched: they are opened once udev's rules have run, and announced then. Without, paths that are absent
    /// are looked for again and again.
    #[must_use]
    pub fn with_ttys(self, ttys: TtyWatch) -> Self {
        Self {
            ttys: Some(ttys),
            ..self
        }
    }

    /// Opens a link; that somebody answers on it is not said by this.
    ///
    /// # Errors
    /// What is missing, with its remedy.
    pub async fn open(&self, address: &LinkAddress) -> Result<Link, LinkError> {
        match address {
            LinkAddress::Serial { place, baud } => {
                let format = LineFormat::at(*baud);
                let line = serial::open_place(place, format, self.ttys.as_ref()).await?;
                Ok(Link::Stream(Box::new(line)))
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
            LinkAddress::Serial { place, .. } => {
                Announcements::Port(Arrivals::new(place.clone(), self.ttys.clone()))
            }
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

/// Tells when a link may be worth trying at once: its port was plugged in, or its device has spoken.
#[derive(Debug)]
pub enum Announcements {
    /// A port that may be plugged in.
    Port(Arrivals),
    /// A device that may speak at its broker, or advertise; `None` for a broker that nobody knows.
    Device(Option<Arc<Notify>>),
}

impl Announcements {
    /// Waits for the next announcement. Dropping the future loses none but a port that came and went.
    pub async fn next(&mut self) {
        match self {
            Self::Port(arrivals) => arrivals.next().await,
            Self::Device(Some(spoke)) => spoke.notified().await,
            Self::Device(None) => std::future::pending().await,
        }
    }
}
