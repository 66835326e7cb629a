//! Errors on the bus: `org.openautoglm.Edge1.Error.*`, by the same names as everywhere else.

use zbus::DBusError;

use crate::inference::error::{InferenceError, LoadError, ProveError, ReloadError, chain};
use crate::router::conversation::SayError;
use crate::router::outcome::CommandError;
use crate::session::SessionError;

/// What a caller gets when a method fails.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.openautoglm.Edge1.Error")]
pub enum Error {
    /// The bus itself.
    #[zbus(error)]
    ZBus(zbus::Error),
    /// The caller may not do this.
    AccessDenied(String),
    /// No such thing.
    UnknownThing(String),
    /// No such action or property.
    NotOffered(String),
    /// A value that the thing does not take.
    InvalidValue(String),
    /// An argument or option of the method that cannot be used.
    InvalidArgument(String),
    /// The thing is not connected.
    NotConnected(String),
    /// Too much waits; try again.
    Busy(String),
    /// The device refused or failed.
    DeviceFault(String),
    /// No answer in time; whether the device acted is not known.
    NoAnswer(String),
    /// The connection broke meanwhile; whether the device acted is not known.
    Interrupted(String),
    /// The same command is being carried out.
    Running(String),
    /// The command id belongs to another command.
    Conflict(String),
    /// The command is not taken.
    NotTaken(String),
    /// Nothing can be kept durably, so nothing is carried out.
    StoreUnavailable(String),
    /// A model is not there (yet).
    ModelUnavailable(String),
    /// No such bundle.
    UnknownModel(String),
    /// A bundle that is damaged, or does not compute what it should.
    UnsoundModel(String),
    /// No bluetoothd, no adapter, or it is switched off.
    BluetoothUnavailable(String),
    /// A sentence that is empty or too long.
    InvalidSentence(String),
    /// Sound that cannot be read or is too long.
    InvalidSound(String),
    /// Anything else, with its words.
    Failed(String),
}

fn named(name: &str, message: String) -> Error {
    match name {
        "AccessDenied" => Error::AccessDenied(message),
        "UnknownThing" => Error::UnknownThing(message),
        "NotOffered" => Error::NotOffered(message),
        "InvalidValue" => Error::InvalidValue(message),
        "NotConnected" => Error::NotConnected(message),
        "Busy" => Error::Busy(message),
        "DeviceFault" => Error::DeviceFault(message),
        "NoAnswer" => Error::NoAnswer(message),
        "Interrupted" => Error::Interrupted(message),
        "Running" => Error::Running(message),
        "Conflict" => Error::Conflict(message),
        "NotTaken" => Error::NotTaken(message),
        "StoreUnavailable" => Error::StoreUnavailable(message),
        "ModelUnavailable" => Error::ModelUnavailable(message),
        "InvalidSentence" => Error::InvalidSentence(message),
        _ => Error::Failed(message),
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        named(error.name(), error.to_string())
    }
}

impl From<SayError> for Error {
    fn from(error: SayError) -> Self {
        named(error.name(), error.to_string())
    }
}

impl From<ProveError> for Error {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Missing { .. } => Self::UnknownModel(chain(&error)),
            ProveError::Unsound { .. } => Self::UnsoundModel(chain(&error)),
            ProveError::Load(ref load) if matches!(**load, LoadError::Bundle(_)) => {
                Self::UnsoundModel(chain(&error))
            }
            error => Self::ModelUnavailable(chain(&error)),
        }
    }
}

impl Error {
    /// The last part of its name on the bus.
    #[must_use]
    pub fn short_name(&self) -> String {
        let name = zbus::DBusError::name(self);
        let name = name.as_str();
        name.rsplit('.').next().unwrap_or(name).to_owned()
    }
}

impl From<InferenceError> for Error {
    fn from(error: InferenceError) -> Self {
        let message = chain(&error);
        match error {
            InferenceError::Overloaded { .. } => Self::Busy(message),
            InferenceError::NotReady { .. }
            | InferenceError::WaitTimedOut { .. }
            | InferenceError::Phonemes { .. }
            | InferenceError::Stopping => Self::ModelUnavailable(message),
            InferenceError::OutOfRange { .. }
            | InferenceError::Tensor { .. }
            | InferenceError::PromptTooLong { .. } => Self::InvalidArgument(message),
            InferenceError::Silent => Self::InvalidSentence(message),
            _ => Self::Failed(message),
        }
    }
}

impl From<ReloadError> for Error {
    fn from(error: ReloadError) -> Self {
        let message = chain(&error);
        match error {
            ReloadError::Unknown { .. } => Self::InvalidArgument(message),
            ReloadError::Busy => Self::Busy(message),
            _ => Self::ModelUnavailable(message),
        }
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::StoreUnavailable(error.to_string())
    }
}
