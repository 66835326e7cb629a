//! `org.openautoglm.Edge1.Manager`: commands, conversations and the state of the box, at the root of our tree.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value as Json, json};
use tokio::sync::mpsc;
use zbus::message::Header;
use zbus::{Connection, OwnedVariant, Variant, interface};

use super::access::{Access, Verb};
use super::error::Error;
use super::value;
use crate::control::json as form;
use crate::inference::class::Class;
use crate::router::Principal;
use crate::router::command::{Command, Commands};
use crate::router::conversation::{Conversations, SayEvent, Utterance};
use crate::session::{SessionId, Sessions};
use crate::status::StatusSource;
use crate::things::description::ThingId;
use crate::understanding::{Call, Operation};

/// Longest time that a caller may give a device.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// The Manager object.
#[derive(Debug)]
pub struct Manager {
    /// Judges callers.
    pub access: Access,
    /// Carries out commands.
    pub commands: Commands,
    /// Answers what is said.
    pub conversations: Conversations,
    /// Reads conversations.
    pub sessions: Sessions,
    /// Tells how things stand.
    pub status: StatusSource,
}

type Dictionary = HashMap<String, OwnedVariant>;

#[interface(name = "org.openautoglm.Edge1.Manager")]
impl Manager {
    /// Carries out an action on a thing and returns what the device answered: `output` (where it has one) and `timings_us`.
    ///
    /// Options: `input` (v), `id` (s, identity for at-most-once execution), `deadline-ms` (u).
    async fn invoke(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        thing: &str,
        action: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Dictionary, Error> {
        let input = options
            .get("input")
            .map(|input| json_of(input))
            .transpose()?;
        let operation = Operation::Invoke {
            action: action.to_owned(),
            input,
        };
        self.execute(
            &header,
            connection,
            Verb::Control,
            thing,
            operation,
            &options,
        )
        .await
    }

    /// Writes a property. Options as for `Invoke`, without `input`.
    async fn write(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        thing: &str,
        property: &str,
        value: Variant<'_>,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Dictionary, Error> {
        let operation = Operation::Write {
            property: property.to_owned(),
            value: json_of(&value)?,
        };
        self.execute(
            &header,
            connection,
            Verb::Control,
            thing,
            operation,
            &options,
        )
        .await
    }

    /// Asks the device for a property's value: `output` and `timings_us`. Options: `deadline-ms` (u).
    async fn read(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        thing: &str,
        property: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Dictionary, Error> {
        let operation = Operation::Read {
            property: property.to_owned(),
        };
        self.execute(
            &header,
            connection,
            Verb::Observe,
            thing,
            operation,
            &options,
        )
        .await
    }

    /// Says something in a conversation. Returns the reading end of a pipe, on which the answer comes as it happens: one JSON object a
    /// line, the last with `event` `done` or `failed`. Closing the pipe ends the language model's answer, but no command.
    ///
    /// Options: `class` (s: `local`, `voice` for somebody who speaks, or `background`), whose turn comes first where a model is busy;
    /// `deadline-ms` (u): the language model refuses at once what it will probably not have answered by then.
    async fn say(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        session: &str,
        text: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<zbus::OwnedFd, Error> {
        known_options(&options, &["class", "deadline-ms"])?;
        let end_within = deadline_option(&options)?;
        let principal = self
            .access
            .authorise(connection, &header, Verb::Converse)
            .await?;
        let session = session_id(session)?;
        let class = class_option(&options, &principal)?;
        let events = self.conversations.say(Utterance {
            session,
            principal,
            text: text.to_owned(),
            class,
            end_within,
        })?;
        let (reader, writer) =
            std::io::pipe().map_err(|error| Error::Failed(format!("no pipe: {error}")))?;
        // A pipe blocks its writer: a thread of its own, not the runtime's.
        tokio::task::spawn_blocking(move || stream(events, writer));
        Ok(zbus::OwnedFd::from(OwnedFd::from(reader)))
    }

    /// How everything stands, in one call: box, store, runtime, models, links, things, fleet.
    async fn status(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Dictionary, Error> {
        self.access
            .authorise(connection, &header, Verb::Observe)
            .await?;
        Ok(owned(self.status.snapshot()))
    }

    /// All conversations, the one that was active last first.
    async fn list_sessions(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Dictionary>, Error> {
        self.access
            .authorise(connection, &header, Verb::Converse)
            .await?;
        let sessions = self.sessions.list().await?;
        Ok(sessions
            .into_iter()
            .map(|record| {
                owned(json!({
                    "id": record.id,
                    "title": record.title,
                    "created-ms": record.created_unix_ms,
                    "updated-ms": record.updated_unix_ms,
                    "turns": record.next_seq - record.first_seq,
                }))
            })
            .collect())
    }

    /// The last `count` turns of a conversation, oldest first.
    async fn session_turns(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        session: &str,
        count: u32,
    ) -> Result<Vec<Dictionary>, Error> {
        self.access
            .authorise(connection, &header, Verb::Converse)
            .await?;
        let turns = self
            .sessions
            .last_turns(&session_id(session)?, count as usize)
            .await?;
        turns
            .into_iter()
            .map(|turn| {
                serde_json::to_value(turn)
                    .map(owned)
                    .map_err(|error| Error::Failed(error.to_string()))
            })
            .collect()
    }

    /// Deletes a conversation; false when there was none.
    async fn delete_session(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        session: &str,
    ) -> Result<bool, Error> {
        self.access
            .authorise(connection, &header, Verb::Converse)
            .await?;
        Ok(self.sessions.delete(&session_id(session)?).await?.is_some())
    }

    /// How hard the box has it: `normal`, `eased` (fewer threads) or `strained` (the smaller bundle, background work rests, conversations may go
    /// elsewhere).
    #[zbus(property)]
    fn strain(&self) -> String {
        self.status.strain().0.name().to_owned()
    }

    /// Why it came to that, in words; empty before the first change.
    #[zbus(property)]
    fn strain_reason(&self) -> String {
        self.status.strain().1
    }

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// The box's name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn box_id(&self) -> String {
        self.status.box_id().to_owned()
    }
}

impl Manager {
    async fn execute(
        &self,
        header: &Header<'_>,
        connection: &Connection,
        verb: Verb,
        thing: &str,
        operation: Operation,
        options: &HashMap<String, OwnedVariant>,
    ) -> Result<Dictionary, Error> {
        let known: &[&str] = match operation {
            Operation::Invoke { .. } => &["input", "id", "deadline-ms"],
            Operation::Write { .. } => &["id", "deadline-ms"],
            Operation::Read { .. } => &["deadline-ms"],
        };
        known_options(options, known)?;
        let principal = self.access.authorise(connection, header, verb).await?;
        let thing =
            ThingId::new(thing).map_err(|error| Error::InvalidArgument(error.to_string()))?;
        let mut command = Command::fresh(principal, Call { thing, operation });
        if let Some(id) = options.get("id") {
            let id = String::try_from(id.clone())
                .map_err(|_| Error::InvalidArgument("option id must be a string".to_owned()))?;
            command.id = format!("dbus:{id}");
        }
        if let Some(deadline) = deadline_option(options)? {
            command.deadline = Some(deadline);
        }
        let done = self.commands.execute(command).await?;
        let mut result = form::executed(&Ok(done));
        result.remove("status");
        Ok(value::owned_dictionary(&result))
    }
}

/// Writes an answer to its pipe; a listener who closed it ends the answer.
fn stream(mut events: mpsc::Receiver<SayEvent>, mut pipe: std::io::PipeWriter) {
    while let Some(event) = events.blocking_recv() {
        let mut line = form::event(&event).to_string();
        line.push('\n');
        if pipe.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

fn json_of(value: &Variant<'_>) -> Result<Json, Error> {
    value::to_json(value).map_err(|error| Error::InvalidArgument(error.to_string()))
}

fn session_id(text: &str) -> Result<SessionId, Error> {
    SessionId::new(text)
        .map_err(|error| Error::InvalidArgument(format!("session {text:?}: {error}")))
}

/// Refuses an option that is not known, since a mistyped one would silently be without effect.
pub(super) fn deadline_option(
    options: &HashMap<String, OwnedVariant>,
) -> Result<Option<Duration>, Error> {
    let Some(deadline) = options.get("deadline-ms") else {
        return Ok(None);
    };
    let millis = u32::try_from(deadline).map_err(|_| {
        Error::InvalidArgument("option deadline-ms must be an unsigned 32-bit integer".to_owned())
    })?;
    Ok(Some(
        Duration::from_millis(u64::from(millis)).min(DEADLINE_MAX),
    ))
}

pub(super) fn class_option(
    options: &HashMap<String, OwnedVariant>,
    principal: &Principal,
) -> Result<Class, Error> {
    let Some(class) = options.get("class") else {
        return Ok(principal.class());
    };
    let name = String::try_from(class.clone()).unwrap_or_default();
    Class::from_name(&name)
        .filter(|class| principal.may_ask_as(*class))
        .ok_or_else(|| {
            let all = Class::ALL.into_iter();
            let may: Vec<&str> = all
                .filter(|class| principal.may_ask_as(*class))
                .map(Class::name)
                .collect();
            Error::InvalidArgument(format!("option class must be one of {}", may.join(", ")))
        })
}

pub(super) fn known_options(
    options: &HashMap<String, OwnedVariant>,
    known: &[&str],
) -> Result<(), Error> {
    match options.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Error::InvalidArgument(format!(
            "unknown option {key:?} (known: {})",
            known.join(", ")
        ))),
    }
}

pub(super) fn owned(json: Json) -> Dictionary {
    match json {
        Json::Object(members) => value::owned_dictionary(&members),
        _ => value::owned_dictionary(&Map::new()),
    }
}

/// Milliseconds since 1970, as the bus shows times.
#[must_use]
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
