//! Carries out one call on one Thing, at most once.
//!
//! ```text
//! permission -> schema -> is it there? -> ledger: running -> device -> ledger: done -> answer
//! ```
//! What changes a device goes through the ledger: noted durably before the first byte leaves, its outcome durable before it is
//! answered; a repeated id gets the stored outcome. Reads change nothing and skip the ledger.
//!
//! When the connection breaks under a command, the same request is asked again under the same id if that cannot
//! execute it twice: the device is the same power-up (it remembers what it executed), the request never left, or the action is
//! declared idempotent. Otherwise the outcome is [`CommandError::Interrupted`].
//!
//! A device that is busy did nothing, and is asked anew until the deadline: two doors may well command one device at once.

use std::time::{Duration, Instant, SystemTime};

use autoglm_drivers::port::{Answer, Port, PortError};
use autoglm_protocol::{DeliveryState, FaultCode, Reply, Request, RequestFailure, RequestId};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::identity::{digest, next_id, request_id};
use super::outcome::{CommandError, Done, Outcome, Timings};
use super::{Principal, permission};
use crate::store::ledger::{Begin, Ledger, LedgerError};
use crate::things::registry::{Presence, Registry, ThingSnapshot};
use crate::things::value;
use crate::understanding::{Call, Operation};

/// How long the ledger remembers a command whose sender names no expiry.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(86_400);

/// While a device's link is broken for less than this, what is asked waits for the device, up to its deadline: links move within that.
/// Later nobody would think that the device is there, and it is said at once that it is not.
const BREAK: Duration = Duration::from_secs(5);

/// Rest before a busy device is asked anew: short beside what a command takes, long beside what asking costs the line.
const BUSY_REST: Duration = Duration::from_millis(50);

/// A call with everything that identifies it.
#[derive(Debug, Clone)]
pub struct Command {
    /// Identity for at-most-once execution; the same id is the same command.
    pub id: String,
    /// Who asks.
    pub principal: Principal,
    /// What.
    pub call: Call,
    /// How long the device may take; the configured time when `None`.
    pub deadline: Option<Duration>,
    /// When the command is forgotten; [`LIFETIME_DEFAULT`] from now when `None`.
    pub expiry: Option<SystemTime>,
}

impl Command {
    /// A command that nobody can have sent before.
    #[must_use]
    pub fn fresh(principal: Principal, call: Call) -> Self {
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            principal,
            call,
            deadline: None,
            expiry: None,
        }
    }
}

/// Carries out commands. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commands {
    registry: Registry,
    ledger: Ledger,
    deadline: Duration,
    running: TaskTracker,
}

impl Commands {
    /// `running` tracks commands in flight, so that a stop can wait for them.
    #[must_use]
    pub fn new(
        registry: Registry,
        ledger: Ledger,
        deadline: Duration,
        running: TaskTracker,
    ) -> Self {
        Self {
            registry,
            ledger,
            deadline,
            running,
        }
    }

    /// Carries out a command. It goes on to its end even when this future is dropped: a caller that hangs up must not leave
    /// a command half noted.
    ///
    /// # Errors
    /// [`CommandError`]; [`CommandError::is_certain`] tells whether the device cannot have acted.
    pub async fn execute(&self, command: Command) -> Result<Done, CommandError> {
        let this = self.clone();
        match self
            .running
            .spawn(async move { this.run(command).await })
            .await
        {
            Ok(result) => result,
            Err(_) => Err(CommandError::Store {
                cause: "the command was cut off by a stop".to_owned(),
            }),
        }
    }

    #[tracing::instrument(name = "command", skip_all, fields(id = %command.id, principal = %command.principal, thing = %command.call.thing))]
    async fn run(&self, command: Command) -> Result<Done, CommandError> {
        let started = Instant::now();
        let (thing, request) = match self.prepare(&command) {
            Ok(prepared) => prepared,
            Err(error) => return self.refused(&command, error, SystemTime::now()).await,
        };
        let deadline = command.deadline.unwrap_or(self.deadline);
        let id = request_id(&command.id);
        if let Operation::Read { .. } = command.call.operation {
            let (answer, asked) = self
                .ask(&thing, id, request, deadline, Repeat::Harmless)
                .await?;
            return Ok(done(
                answer,
                Duration::ZERO,
                asked.saturating_duration_since(started),
                started,
            ));
        }

        let now = SystemTime::now();
        let expiry = command.expiry.unwrap_or(now + LIFETIME_DEFAULT);
        let digest = digest(&command);
        match self
            .ledger
            .begin(&command.id, &digest, expiry, now)
            .await
            .map_err(not_taken)?
        {
            Begin::Fresh(_) => {}
            known => return earlier(known, command.id, thing.description.title.clone()),
        }
        let noted = started.elapsed();
        let repeat = repeat(&thing, &command.call);
        let result =
            self.ask(&thing, id, request, deadline, repeat)
                .await
                .map(|(answer, asked)| {
                    done(
                        answer,
                        noted,
                        asked.saturating_duration_since(started),
                        started,
                    )
                });
        let finished = self
            .ledger
            .finish(&command.id, Outcome::of(&result).to_json())
            .await;
        if let Err(error) = finished {
            tracing::error!(%error, "the device answered, but its outcome cannot be kept");
            return Err(CommandError::Store {
                cause: format!("the device answered, but that cannot be kept: {error}"),
            });
        }
        match &result {
            Ok(_) => tracing::info!(
                elapsed_ms = started.elapsed().as_millis() as u64,
                "command done"
            ),
            Err(error) => {
                tracing::warn!(%error, elapsed_ms = started.elapsed().as_millis() as u64, "command failed")
            }
        }
        result.map(|mut done| {
            done.timings.total = started.elapsed();
            done
        })
    }

    /// The thing that is meant, and what it is to be asked.
    fn prepare(&self, command: &Command) -> Result<(ThingSnapshot, Request), CommandError> {
        let call = &command.call;
        let thing = self.registry.things().get(&call.thing).cloned();
        let thing = thing.ok_or_else(|| CommandError::UnknownThing {
            thing: call.thing.clone(),
        })?;
        permission::check(&command.principal, &thing.description, call)?;
        let request = request(&thing, call)?;
        Ok((thing, request))
    }

    /// The answer to a command that cannot be begun. A thing that is not known may be known a moment later, when its device has
    /// introduced itself; a duplicate that comes then must not be carried out, for it was promised that nothing is done. So that
    /// refusal is noted like any other outcome.
    async fn refused(
        &self,
        command: &Command,
        error: CommandError,
        now: SystemTime,
    ) -> Result<Done, CommandError> {
        if let Some(known) = self.remembered(command).await {
            return known;
        }
        let is_read = matches!(command.call.operation, Operation::Read { .. });
        if is_read || !matches!(error, CommandError::UnknownThing { .. }) {
            return Err(error);
        }
        let (id, thing) = (command.id.clone(), command.call.thing.to_string());
        let expiry = command.expiry.unwrap_or(now + LIFETIME_DEFAULT);
        match self
            .ledger
            .begin(&id, &digest(command), expiry, now)
            .await
            .map_err(not_taken)?
        {
            Begin::Fresh(_) => {}
            known => return earlier(known, id, thing),
        }
        let refusal = Err(error);
        let _ = self
            .ledger
            .finish(&id, Outcome::of(&refusal).to_json())
            .await
            .map_err(not_taken)?;
        refusal
    }

    /// What came of a command that cannot be begun now, if it was begun before: a duplicate that arrives before its device has
    /// returned must not be told that nothing was done.
    async fn remembered(&self, command: &Command) -> Option<Result<Done, CommandError>> {
        if let Operation::Read { .. } = command.call.operation {
            return None;
        }
        match self.ledger.recall(&command.id, &digest(command)).await {
            Ok(known) => known
                .map(|known| earlier(known, command.id.clone(), command.call.thing.to_string())),
            // Whether it was done is not known then, and must not be denied.
            Err(error) => Some(Err(not_taken(error))),
        }
    }

    /// Asks the device, over a broken connection again where that is harmless. Returns the answer and when it was last asked.
    async fn ask(
        &self,
        thing: &ThingSnapshot,
        mut id: RequestId,
        request: Request,
        deadline: Duration,
        repeat: Repeat,
    ) -> Result<(Answer, Instant), CommandError> {
        let title = || thing.description.title.clone();
        let (mut port, mut boot_id) = match &thing.presence {
            Presence::Online { port, boot_id, .. } => (port.clone(), *boot_id),
            Presence::Interrupted {
                port,
                boot_id,
                since,
            } if since.elapsed() < BREAK => (port.clone(), *boot_id),
            Presence::Interrupted { .. } | Presence::Offline { .. } => {
                return Err(CommandError::NotConnected { thing: title() });
            }
        };
        let ends = Instant::now() + deadline;
        let mut may_have_acted = false;
        loop {
            let asked = Instant::now();
            let remaining = ends.saturating_duration_since(asked);
            match port.request(id, request.clone(), remaining).await {
                Ok(answer) => return Ok((answer, asked)),
                Err(PortError::NotConnected) => {}
                Err(PortError::Failed(RequestFailure::ConnectionLost { delivered })) => {
                    may_have_acted |= delivered != DeliveryState::NotSent;
                }
                Err(PortError::Failed(RequestFailure::Fault(fault)))
                    if fault.code == FaultCode::Busy && Instant::now() + BUSY_REST < ends =>
                {
                    tokio::time::sleep(BUSY_REST).await;
                    // Under another name, for it remembers what it answered to this one.
                    id = next_id(id);
                    continue;
                }
                Err(error) => return Err(self.failed(error, thing, deadline)),
            }
            let returned = tokio::time::timeout_at(ends.into(), self.returned(thing))
                .await
                .ok()
                .flatten();
            let lost = || {
                if may_have_acted {
                    CommandError::Interrupted { thing: title() }
                } else {
                    CommandError::NotConnected { thing: title() }
                }
            };
            let Some((fresh_port, fresh_boot_id)) = returned else {
                return Err(lost());
            };
            if may_have_acted && fresh_boot_id != boot_id && repeat == Repeat::Harmful {
                return Err(CommandError::Interrupted { thing: title() });
            }
            tracing::debug!("connection back; asking again under the same id");
            (port, boot_id) = (fresh_port, fresh_boot_id);
        }
    }

    /// Waits until the thing is online by a port that lives.
    async fn returned(&self, thing: &ThingSnapshot) -> Option<(Port, u32)> {
        let mut things = self.registry.watch();
        let online = |snapshot: &ThingSnapshot| match &snapshot.presence {
            Presence::Online { port, boot_id, .. } if !port.is_closed() => {
                Some((port.clone(), *boot_id))
            }
            _ => None,
        };
        let id = &thing.description.id;
        let found = things
            .wait_for(|things| things.get(id).is_some_and(|thing| online(thing).is_some()))
            .await
            .ok()?;
        found.get(id).and_then(online)
    }

    fn failed(&self, error: PortError, thing: &ThingSnapshot, deadline: Duration) -> CommandError {
        let title = thing.description.title.clone();
        match error {
            PortError::Busy => CommandError::Busy { thing: title },
            PortError::NotConnected => CommandError::NotConnected { thing: title },
            PortError::Refused(error) => CommandError::Device {
                thing: title,
                code: "Unsendable".to_owned(),
                message: error.to_string(),
            },
            PortError::Failed(RequestFailure::Fault(fault)) => CommandError::Device {
                thing: title,
                code: format!("{:?}", fault.code),
                message: if fault.message.is_empty() {
                    format!("{:?}", fault.code)
                } else {
                    fault.message
                },
            },
            PortError::Failed(RequestFailure::DeadlineExceeded {
                delivered: DeliveryState::NotSent,
            }) => CommandError::NotConnected { thing: title },
            PortError::Failed(RequestFailure::DeadlineExceeded { .. }) => CommandError::NoAnswer {
                thing: title,
                deadline,
            },
            PortError::Failed(failure) => CommandError::Device {
                thing: title,
                code: "BadReply".to_owned(),
                message: failure.to_string(),
            },
        }
    }
}

/// The answer to a command that the ledger knows. `thing` is what its device is called.
fn earlier(known: Begin, id: String, thing: String) -> Result<Done, CommandError> {
    match known {
        Begin::Fresh(_) | Begin::Running => Err(CommandError::Running { id }),
        Begin::Conflict => Err(CommandError::Conflict { id }),
        Begin::Interrupted => Err(CommandError::Interrupted { thing }),
        Begin::Done(outcome) => Outcome::from_json(&outcome)
            .ok_or_else(|| CommandError::Store {
                cause: "the ledger's entry is not readable".to_owned(),
            })?
            .into_result(),
    }
}

/// What asking a restarted device again would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Harmful,
}

fn repeat(thing: &ThingSnapshot, call: &Call) -> Repeat {
    match &call.operation {
        Operation::Invoke { action, .. } => match thing.description.actions.get(action) {
            Some(action) if action.idempotent || action.safe => Repeat::Harmless,
            _ => Repeat::Harmful,
        },
        // Reading and writing a value twice is reading and writing it once.
        Operation::Read { .. } | Operation::Write { .. } => Repeat::Harmless,
    }
}

/// Checks the call against the thing's schemas and puts it into the wire's words.
fn request(thing: &ThingSnapshot, call: &Call) -> Result<Request, CommandError> {
    let unsendable = |error: value::Unrepresentable| CommandError::NotTaken {
        reason: error.to_string(),
    };
    Ok(match &call.operation {
        Operation::Invoke { action, input } => {
            thing.schemas.check_input(action, input.as_ref())?;
            let input =
                value::to_wire(input.as_ref().unwrap_or(&Value::Null)).map_err(unsendable)?;
            Request::Invoke {
                action: action.clone(),
                input,
            }
        }
        Operation::Write { property, value } => {
            thing.schemas.check_write(property, value)?;
            Request::Write {
                property: property.clone(),
                value: value::to_wire(value).map_err(unsendable)?,
            }
        }
        Operation::Read { property } => {
            thing.schemas.check_read(property)?;
            Request::Read {
                property: property.clone(),
            }
        }
    })
}

fn done(answer: Answer, noted: Duration, asked: Duration, started: Instant) -> Done {
    let output = match answer.reply {
        Reply::Value(value) | Reply::Done(value) => value::to_json(value),
        // Only Describe gives one, and commands never ask that.
        Reply::Description { .. } => Value::Null,
    };
    let timings = Timings {
        noted,
        written: asked + answer.written_after,
        answered: asked + answer.answered_after,
        total: started.elapsed(),
    };
    Done { output, timings }
}

fn not_taken(error: LedgerError) -> CommandError {
    match error {
        LedgerError::Store(error) => CommandError::Store {
            cause: error.to_string(),
        },
        LedgerError::NotRecovered => CommandError::Store {
            cause: error.to_string(),
        },
        error => CommandError::NotTaken {
            reason: error.to_string(),
        },
    }
}
