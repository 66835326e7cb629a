//! Keeps `org.openautoglm.Edge1` on the bus: connects, exports everything, takes the name, follows the snapshots, and starts over
//! when the bus goes away.

use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use futures_util::StreamExt as _;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use zbus::fdo::{ObjectManager, RequestNameFlags, RequestNameReply};
use zbus::{Connection, MatchRule, MessageStream, connection};

use super::access::Access;
use super::bluetooth::BluetoothObject;
use super::manager::Manager;
use super::models::Models;
use super::names::{ROOT, SERVICE};
use super::objects::Tree;
use super::transcribe::Transcriber;
use crate::bluetooth::Bluetooth;
use crate::config::Bus;
use crate::inference::InferenceHandle;
use crate::link::board::Links;
use crate::router::command::Commands;
use crate::router::conversation::Conversations;
use crate::session::Sessions;
use crate::status::StatusSource;
use crate::things::registry::Registry;

/// Waits for a bus that is away: it is on this machine, so it is back soon or not at all.
const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(200),
    max: Duration::from_secs(5),
    healthy_after: Duration::from_secs(10),
};
/// No answer from a bus on this machine within this means that there is none.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the door stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorState {
    /// Not yet.
    Starting,
    /// The name is ours and everything is exported.
    Open,
    /// Not on the bus, and why.
    Closed {
        /// The cause.
        cause: String,
    },
}

/// Why the door is not on the bus.
#[derive(Debug, thiserror::Error)]
enum DoorError {
    #[error("no message bus answers: {0}")]
    Bus(#[from] zbus::Error),
    #[error("no message bus answers within {} s", CONNECT.as_secs())]
    Silent,
    #[error("another process owns {SERVICE} (is another daemon running?)")]
    NameTaken,
    #[error("the bus took the name away or closed the connection")]
    Lost,
}

/// Everything that the door needs.
#[derive(Debug, Clone)]
pub struct Door {
    /// Which bus.
    pub bus: Bus,
    /// The daemon's user.
    pub own_uid: u32,
    /// Carries out commands.
    pub commands: Commands,
    /// Answers what is said.
    pub conversations: Conversations,
    /// Reads conversations.
    pub sessions: Sessions,
    /// Tells how things stand.
    pub status: StatusSource,
    /// Things.
    pub registry: Registry,
    /// Links.
    pub links: Links,
    /// Models.
    pub inference: InferenceHandle,
    /// Pairs and forgets.
    pub bluetooth: Bluetooth,
}

impl Door {
    /// Serves until cancelled; `state` is where it stands.
    pub async fn run(self, state: watch::Sender<DoorState>, cancel: CancellationToken) {
        let mut attempt = 0;
        loop {
            let began = Instant::now();
            let error = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.serve(&state, &cancel) => match ended {
                    Ok(()) => return,
                    Err(error) => error,
                },
            };
            attempt = BACKOFF.attempt_after(attempt, began.elapsed());
            let cause = error.to_string();
            let is_new = *state.borrow()
                != DoorState::Closed {
                    cause: cause.clone(),
                };
            if is_new {
                tracing::warn!(%cause, "D-Bus door closed; it opens when the bus is there");
            }
            state.send_replace(DoorState::Closed { cause });
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(BACKOFF.delay(attempt.saturating_sub(1), rand::random())) => {}
            }
        }
    }

    async fn connect(&self) -> Result<Connection, DoorError> {
        let access = Access::new(self.bus, self.own_uid);
        let bluetooth = BluetoothObject {
            access: access.clone(),
            bluetooth: self.bluetooth.clone(),
        };
        let models = Models {
            access: access.clone(),
            inference: self.inference.clone(),
            transcriber: Transcriber::new(self.inference.clone()),
        };
        let manager = Manager {
            access,
            commands: self.commands.clone(),
            conversations: self.conversations.clone(),
            sessions: self.sessions.clone(),
            status: self.status.clone(),
        };
        let builder = match self.bus {
            Bus::Session => connection::Builder::session(),
            Bus::System | Bus::Off => connection::Builder::system(),
        };
        let building = builder
            .serve_at(ROOT, manager)
            .serve_at(ROOT, models)
            .serve_at(ROOT, bluetooth)
            .serve_at(ROOT, ObjectManager)
            .build();
        tokio::time::timeout(CONNECT, building)
            .await
            .map_err(|_| DoorError::Silent)?
            .map_err(DoorError::Bus)
    }

    /// One connection to the bus, from its beginning to its end; `Ok` when cancelled.
    async fn serve(
        &self,
        state: &watch::Sender<DoorState>,
        cancel: &CancellationToken,
    ) -> Result<(), DoorError> {
        let connection = self.connect().await?;
        let mut strain = self.inference.adaptation();
        let (mut things, mut links, mut models) = (
            self.registry.watch(),
            self.links.clone(),
            self.inference.status(),
        );
        let mut events = self.registry.events();
        let mut tree = Tree::new(
            connection.clone(),
            self.registry.clone(),
            self.links.clone(),
            self.inference.clone(),
        );
        tree.follow().await?;

        // The stream ends with the connection, and a NameLost is the bus's own word that we are no longer served.
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameLost")
            .build()?;
        let mut lost = MessageStream::for_match_rule(rule, &connection, None).await?;
        match connection
            .request_name_with_flags(SERVICE, RequestNameFlags::DO_NOT_QUEUE)
            .await
        {
            Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => {}
            Ok(_) | Err(zbus::Error::NameTaken) => return Err(DoorError::NameTaken),
            Err(error) => return Err(error.into()),
        }
        tracing::info!(name = SERVICE, bus = ?self.bus, "D-Bus door open");
        state.send_replace(DoorState::Open);
        loop {
            tokio::select! {
                () = cancel.cancelled() => {
                    let _ = connection.release_name(SERVICE).await;
                    return Ok(());
                }
                _ = lost.next() => return Err(DoorError::Lost),
                Ok(()) = things.changed() => { things.mark_unchanged(); tree.follow().await?; }
                Ok(()) = links.changed() => { links.mark_unchanged(); tree.follow().await?; }
                Ok(()) = strain.changed() => { strain.mark_unchanged(); tree.follow().await?; }
                Ok(()) = models.changed() => { models.mark_unchanged(); tree.follow().await?; }
                event = events.recv() => match event {
                    Ok(event) => tree.announce(&event).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => tracing::warn!(missed, "device events not announced"),
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
            }
        }
    }
}
