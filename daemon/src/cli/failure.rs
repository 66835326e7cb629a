//! Why a run of `autoglmctl` failed: what is told on standard error, and the number that it ends with.
//!
//! One line, the chain of causes, and a hint where there is something to do. Errors of the daemon keep the words that the
//! daemon chose; this module adds only what a person at a command line can do about them.

use std::error::Error as StdError;
use std::io;

use serde_json::{Value as Json, json};
use zbus::DBusError as _;

use super::bus::Bus;
use super::exit::Exit;
use crate::control::dbus::client::ERROR_PREFIX;

/// A run that did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// The number that the run ends with. [`Exit::Success`] is a reader who closed our output: nothing is told then.
    pub exit: Exit,
    /// The line.
    pub message: String,
    /// What lies beneath, outermost first.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure that is told in one line.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// With what lies beneath.
    #[must_use]
    pub fn because(mut self, cause: &(dyn StdError + 'static)) -> Self {
        self.causes.extend(causes(cause));
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Standard output could not be written.
    #[must_use]
    pub fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Success, "the reader went away"),
            _ => Self::new(Exit::Internal, "cannot write to standard output").because(error),
        }
    }

    /// Ctrl-C.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
    }

    /// An error of the daemon by its short name (`NotConnected`), as D-Bus and the events of an answer give it.
    #[must_use]
    pub fn daemon(name: &str, message: impl Into<String>) -> Self {
        let failure = Self::new(Exit::of_error(name), message);
        match hint_for(name) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// A call over `bus` that failed.
    #[must_use]
    pub fn call(bus: &Bus, error: &zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, message, _) => {
                Self::named(bus, name.as_str(), message.clone().unwrap_or_default())
            }
            zbus::Error::FDO(error) => match error.as_ref() {
                zbus::fdo::Error::ZBus(error) => Self::call(bus, error),
                error => Self::named(
                    bus,
                    error.name().as_str(),
                    zbus::DBusError::description(error)
                        .unwrap_or_default()
                        .to_owned(),
                ),
            },
            zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => {
                Self::new(Exit::Unreachable, "the daemon did not answer in time").hint(
                    "`--timeout` gives it longer; `systemctl status autoglm-edged` shows how it is",
                )
            }
            zbus::Error::InputOutput(_) => {
                Self::new(Exit::Unreachable, format!("the connection to {bus} broke"))
                    .because(error)
            }
            error => Self::new(Exit::Internal, "the daemon answered in an unexpected way")
                .because(error)
                .hint("daemon and command line may be of different versions"),
        }
    }

    fn named(bus: &Bus, name: &str, message: String) -> Self {
        if let Some(name) = name.strip_prefix(ERROR_PREFIX) {
            return Self::daemon(name, message);
        }
        match name
            .strip_prefix("org.freedesktop.DBus.Error.")
            .unwrap_or(name)
        {
            "ServiceUnknown" | "NameHasNoOwner" => Self::new(
                Exit::Unreachable,
                format!("the daemon is not running on {bus}"),
            )
            .hint("`systemctl start autoglm-edged`, or `--bus session` for one on the session bus"),
            "NoReply" | "Timeout" | "TimedOut" | "Disconnected" => {
                Self::new(Exit::Unreachable, "the daemon did not answer").because_text(message)
            }
            "AccessDenied" | "AuthFailed" | "InteractiveAuthorizationRequired" => {
                Self::daemon("AccessDenied", message)
            }
            "UnknownMethod" | "UnknownInterface" | "UnknownObject" | "UnknownProperty"
            | "InvalidArgs" => Self::new(Exit::Internal, "the daemon does not know this call")
                .because_text(message)
                .hint("daemon and command line may be of different versions"),
            _ if message.is_empty() => Self::new(Exit::Internal, name.to_owned()),
            _ => Self::new(Exit::Internal, message).because_text(name.to_owned()),
        }
    }

    fn because_text(mut self, cause: String) -> Self {
        if !cause.is_empty() {
            self.causes.push(cause);
        }
        self
    }

    /// As `--json` tells it (on standard error, like every failure).
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "code": self.exit as u8,
            "message": self.message,
            "causes": self.causes,
            "hint": self.hint,
        })
    }
}

/// An error and everything beneath it, without repeating what an outer line already says.
fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
        if lines.last().is_none_or(|outer| !outer.ends_with(&line)) {
            lines.push(line);
        }
        next = error.source();
    }
    lines
}

fn hint_for(name: &str) -> Option<&'static str> {
    Some(match name {
        "AccessDenied" => {
            "polkit decides by the actions org.openautoglm.edge1.*; root may do everything"
        }
        "UnknownThing" => "`autoglmctl things` lists them",
        "NotOffered" => "`autoglmctl things THING` shows what it offers",
        "NotConnected" => "`autoglmctl links` shows why",
        "NoAnswer" | "Interrupted" => "`autoglmctl read` asks the device how it stands",
        "Busy" | "Running" => "try again in a moment",
        "ModelUnavailable" => "`autoglmctl models` shows why; `autoglmctl wait` waits for them",
        "BluetoothUnavailable" => {
            "`systemctl status bluetooth`, and `bluetoothctl list`, show how it is"
        }
        "StoreUnavailable" => "`autoglmctl status` shows why",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, message: &str) -> Failure {
        Failure::named(&Bus::System, name, message.to_owned())
    }

    #[test]
    fn errors_of_the_daemon_keep_its_words_and_get_their_number() {
        let failure = named(
            "org.openautoglm.Edge1.Error.NotConnected",
            "Desk lamp is not connected",
        );
        assert_eq!(failure.exit, Exit::Device);
        assert_eq!(failure.message, "Desk lamp is not connected");
        assert!(failure.hint.is_some_and(|hint| hint.contains("links")));
    }

    #[test]
    fn a_daemon_that_is_not_there_is_said_with_the_way_to_start_it() {
        let failure = named(
            "org.freedesktop.DBus.Error.ServiceUnknown",
            "The name … was not provided",
        );
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(
            failure.message,
            "the daemon is not running on the system bus"
        );
        assert!(
            failure
                .hint
                .is_some_and(|hint| hint.contains("systemctl start autoglm-edged"))
        );
    }

    #[test]
    fn a_refusal_by_the_bus_is_a_refusal() {
        assert_eq!(
            named("org.freedesktop.DBus.Error.AccessDenied", "no").exit,
            Exit::Denied
        );
    }

    #[test]
    fn a_reader_who_left_is_success() {
        let failure = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit, Exit::Success);
        let failure = Failure::output(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(failure.exit, Exit::Internal);
    }
}
