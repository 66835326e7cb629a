//! Pairing through org.bluez, which btleplug 0.13.5 lacks: an agent of ours answers for exactly the device that is being paired,
//! with what the person who asked gave beforehand, or is asked now. Nothing is confirmed that was not given, and nothing of it is
//! logged.

use std::fmt;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use zbus::{ObjectPath, OwnedObjectPath};

use super::address::DeviceAddress;
use super::bluez::{Bluez, device_path};
use super::fault::OperationError;
use super::machine::Fault;
use super::types::{BleError, PairingWants, Step};

const AGENT_MANAGER: &str = "org.bluez.AgentManager1";
const BLUEZ: &str = "/org/bluez";
/// The most that registering the agent may take.
const REGISTER: Duration = Duration::from_secs(5);

/// What a device's pairing asks of a person. Dropping the answer's sender is a "no".
pub enum Question {
    /// The six digits that the device shows.
    Passkey(oneshot::Sender<u32>),
    /// The PIN of an old device, 1 to 16 characters.
    Pin(oneshot::Sender<String>),
    /// Whether the device shows these six digits.
    Matches(u32, oneshot::Sender<()>),
    /// Nothing: these are to be typed on the device.
    Show(String),
}

impl fmt::Debug for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Passkey(_) => "Passkey",
            Self::Pin(_) => "Pin",
            Self::Matches(..) => "Matches(hidden)",
            Self::Show(_) => "Show(hidden)",
        })
    }
}

/// What the person knows of the device.
#[derive(Clone)]
pub enum Credential {
    /// Nothing yet: a person is there to be asked.
    Ask(mpsc::Sender<Question>),
    /// Nothing: the device has neither keys nor a display ("just works"), which anybody near may overhear and imitate.
    None,
    /// The six digits that the device shows, or that it expects, 0 to 999999.
    Passkey(u32),
    /// The PIN of an old device, 1 to 16 characters.
    Pin(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ask(_) => "Ask",
            Self::None => "None",
            Self::Passkey(_) => "Passkey(hidden)",
            Self::Pin(_) => "Pin(hidden)",
        })
    }
}

impl Credential {
    /// What the agent says that it can do (BlueZ, `doc/org.bluez.AgentManager.rst`): it decides how BlueZ pairs.
    fn capability(&self) -> &'static str {
        match self {
            Self::None => "NoInputNoOutput",
            Self::Ask(_) | Self::Passkey(_) | Self::Pin(_) => "KeyboardDisplay",
        }
    }
}

/// Asks the person, and waits for the answer; BlueZ itself gives up after a while.
async fn ask<T>(
    person: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, AgentError> {
    let (reply, answer) = oneshot::channel();
    // Nobody is there any more: that is a "no", too.
    let _ = person.send(question(reply)).await;
    answer
        .await
        .map_err(|_| AgentError::Rejected("the person said no".to_owned()))
}

/// An error that BlueZ understands as the person's "no".
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.bluez.Error")]
enum AgentError {
    #[zbus(error)]
    ZBus(zbus::Error),
    Rejected(String),
}

struct Agent {
    device: OwnedObjectPath,
    credential: Credential,
    /// What was asked and not given; whoever pairs need not wait then.
    wants: watch::Sender<Option<PairingWants>>,
}

impl Agent {
    fn check(&self, device: &ObjectPath<'_>) -> Result<(), AgentError> {
        match device.as_str() == self.device.as_str() {
            true => Ok(()),
            false => Err(AgentError::Rejected(
                "not the device to be paired".to_owned(),
            )),
        }
    }

    /// BlueZ takes no answer to this, and would wait for the digits.
    async fn show(&self, digits: String) {
        if let Credential::Ask(person) = &self.credential {
            let _ = person.send(Question::Show(digits)).await;
        } else {
            self.wants.send_replace(Some(PairingWants::Typing));
        }
    }

    fn rejected<T>(&self, wants: PairingWants) -> Result<T, AgentError> {
        self.wants.send_replace(Some(wants));
        Err(AgentError::Rejected(
            "the device asks for something else than was given".to_owned(),
        ))
    }
}

/// `org.bluez.Agent1`; BlueZ is its only caller.
#[zbus::interface(name = "org.bluez.Agent1")]
impl Agent {
    fn release(&self) {}

    async fn request_pin_code(&self, device: ObjectPath<'_>) -> Result<String, AgentError> {
        self.check(&device)?;
        match &self.credential {
            Credential::Pin(pin) => Ok(pin.clone()),
            Credential::Ask(person) => ask(person, Question::Pin).await,
            Credential::None | Credential::Passkey(_) => self.rejected(PairingWants::Pin),
        }
    }

    async fn request_passkey(&self, device: ObjectPath<'_>) -> Result<u32, AgentError> {
        self.check(&device)?;
        match &self.credential {
            Credential::Passkey(passkey) => Ok(*passkey),
            Credential::Ask(person) => ask(person, Question::Passkey).await,
            Credential::None | Credential::Pin(_) => self.rejected(PairingWants::Passkey),
        }
    }

    async fn request_confirmation(
        &self,
        device: ObjectPath<'_>,
        passkey: u32,
    ) -> Result<(), AgentError> {
        self.check(&device)?;
        match &self.credential {
            Credential::Passkey(given) if *given == passkey => Ok(()),
            Credential::Ask(person) => ask(person, |reply| Question::Matches(passkey, reply)).await,
            _ => self.rejected(PairingWants::Comparison),
        }
    }

    fn request_authorization(&self, device: ObjectPath<'_>) -> Result<(), AgentError> {
        self.check(&device)?;
        match self.credential {
            // To pair is what the person asked for; there is nothing to compare.
            Credential::None | Credential::Ask(_) => Ok(()),
            Credential::Passkey(_) | Credential::Pin(_) => self.rejected(PairingWants::Consent),
        }
    }

    fn authorize_service(&self, device: ObjectPath<'_>, _uuid: &str) -> Result<(), AgentError> {
        self.check(&device)
    }

    /// Called again with each key that is pressed on the device.
    async fn display_passkey(&self, device: ObjectPath<'_>, passkey: u32, entered: u16) {
        if entered == 0 && self.check(&device).is_ok() {
            self.show(format!("{passkey:06}")).await;
        }
    }

    async fn display_pin_code(&self, device: ObjectPath<'_>, pin: &str) {
        if self.check(&device).is_ok() {
            self.show(pin.to_owned()).await;
        }
    }

    fn cancel(&self) {}
}

/// Pairs and trusts a device.
pub(super) async fn pair(
    bluez: &Bluez,
    adapter: &str,
    device: DeviceAddress,
    credential: Credential,
    within: Duration,
) -> Result<(), OperationError> {
    let failed = |error| OperationError::from_zbus(device, Step::Pair, error);
    // BlueZ takes one agent from each connection to the bus.
    let _alone = bluez.pairing_turn().await;
    let (wants, mut wanted) = watch::channel(None);
    let agent = format!("/org/openautoglm/Edge1/pairing/{adapter}");
    let path = ObjectPath::try_from(agent.as_str()).map_err(failed)?;
    let object = Agent {
        device: ObjectPath::try_from(device_path(adapter, device))
            .map_err(failed)?
            .into(),
        credential: credential.clone(),
        wants,
    };
    let server = bluez.connection().object_server();
    server.at(&path, object).await.map_err(failed)?;
    let paired = async {
        let asked = (&path, credential.capability());
        bluez
            .call(BLUEZ, AGENT_MANAGER, "RegisterAgent", &asked, REGISTER)
            .await?;
        let paired = tokio::select! {
            paired = bluez.pair(adapter, device, within) => paired,
            // Its error would come late, or never: then this one stands for it.
            _ = wanted.wait_for(|wants| *wants == Some(PairingWants::Typing)) => {
                Err(zbus::Error::Failure("nobody is shown the digits".to_owned()))
            }
        };
        if paired.is_err() {
            let _ = bluez.cancel_pairing(adapter, device).await;
        }
        let _ = bluez
            .call(BLUEZ, AGENT_MANAGER, "UnregisterAgent", &path, REGISTER)
            .await;
        match paired {
            Err(zbus::Error::MethodError(name, ..)) if name == "org.bluez.Error.AlreadyExists" => {}
            other => other?,
        }
        bluez.trust(adapter, device).await
    }
    .await;
    let _ = server.remove::<Agent, _>(&path).await;
    let wants = *wanted.borrow();
    paired.map_err(|error| explain(device, wants, failed(error)))
}

/// What BlueZ says of a pairing is why it ended, and seldom what to do.
fn explain(
    device: DeviceAddress,
    wants: Option<PairingWants>,
    failed: OperationError,
) -> OperationError {
    let error = match (wants, failed.error) {
        (Some(wants), _) => BleError::PairingWants { device, wants },
        (None, BleError::Authentication { device, source }) => {
            BleError::PairingRefused { device, source }
        }
        (None, other) => other,
    };
    let fault = match &error {
        BleError::PairingWants { .. } => Fault::Authentication,
        _ => failed.fault,
    };
    OperationError { fault, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(wants: Option<PairingWants>, name: &str) -> String {
        let device = DeviceAddress::default();
        let fault = super::super::fault::sort(name, "");
        let source: super::super::types::Source = name.into();
        let error = match fault {
            Fault::Authentication => BleError::Authentication { device, source },
            _ => BleError::Failed {
                device,
                step: Step::Pair,
                source,
            },
        };
        explain(device, wants, OperationError { fault, error })
            .error
            .to_string()
    }

    #[test]
    fn a_pairing_that_failed_says_what_to_do() {
        for (wants, name, words) in [
            (
                None,
                "org.bluez.Error.AuthenticationFailed",
                "wrong passkey",
            ),
            (
                Some(PairingWants::Passkey),
                "org.bluez.Error.AuthenticationRejected",
                "shows a passkey",
            ),
            (Some(PairingWants::Typing), "", "typed on it"),
            (None, "org.bluez.Error.Failed", "pairing failed"),
        ] {
            let said = said(wants, name);
            assert!(said.contains(words), "{name}: {said}");
        }
    }
}
