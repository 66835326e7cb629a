//! The exit codes of `autoglmctl`, in one place. Scripts rely on the numbers: they are added to, never changed.

use std::process::ExitCode;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done. A reader of our output who went away early is this, too.
    Success = 0,
    /// A fault that has no number of its own.
    Internal = 1,
    /// The command line (or an argument that the daemon refused) is not usable.
    Usage = 2,
    /// The bus, the daemon or (for `models add`) the hub is not there, or does not answer.
    Unreachable = 3,
    /// No such thing, action, property, conversation or model; or a title that several things share.
    Unknown = 4,
    /// A value that the thing does not take, or a sentence or sound that is not taken.
    InvalidValue = 5,
    /// The device is not connected, refused, failed or did not answer.
    Device = 6,
    /// The caller may not do this.
    Denied = 7,
    /// Busy, or a model, the store or Bluetooth is not available (yet).
    Unavailable = 8,
    /// `chat TEXT` only: a question came back.
    Asked = 9,
    /// `chat TEXT` only: it was understood, and must not or cannot be carried out.
    Refused = 10,
    /// `models` only: a bundle is damaged, or does not compute what it should.
    Unsound = 11,
    /// Ctrl-C (128 + SIGINT, as shells report it).
    Interrupted = 130,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Success,
        Self::Internal,
        Self::Usage,
        Self::Unreachable,
        Self::Unknown,
        Self::InvalidValue,
        Self::Device,
        Self::Denied,
        Self::Unavailable,
        Self::Asked,
        Self::Refused,
        Self::Unsound,
        Self::Interrupted,
    ];

    /// What the number means, for `--help` and the man page.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Internal => "a fault that has no number of its own",
            Self::Usage => "the command line is not usable",
            Self::Unreachable => "the bus, the daemon or the hub is not there, or does not answer",
            Self::Unknown => {
                "no such thing, action, property, conversation or model; or an ambiguous title"
            }
            Self::InvalidValue => {
                "a value that the thing does not take, or sound that cannot be used"
            }
            Self::Device => "the device is not connected, refused, failed or did not answer",
            Self::Denied => "you may not do this",
            Self::Unavailable => {
                "busy or in use; a model, the store, Bluetooth or disk space is not available (yet)"
            }
            Self::Asked => "chat TEXT: a question came back",
            Self::Refused => "chat TEXT: understood, but must not or cannot be carried out",
            Self::Unsound => "models: a bundle is damaged, or does not compute what it should",
            Self::Interrupted => "interrupted by Ctrl-C",
        }
    }

    /// The exit code for an error of the daemon, by the last part of its name (`org.openautoglm.Edge1.Error.` stands before it).
    #[must_use]
    pub fn of_error(name: &str) -> Self {
        match name {
            "InvalidArgument" | "Conflict" | "NotTaken" => Self::Usage,
            "UnknownThing" | "UnknownModel" | "NotOffered" => Self::Unknown,
            "InvalidValue" | "InvalidSentence" | "InvalidSound" => Self::InvalidValue,
            "NotConnected" | "DeviceFault" | "NoAnswer" | "Interrupted" => Self::Device,
            "AccessDenied" => Self::Denied,
            "Busy"
            | "Running"
            | "StoreUnavailable"
            | "ModelUnavailable"
            | "BluetoothUnavailable" => Self::Unavailable,
            "UnsoundModel" => Self::Unsound,
            _ => Self::Internal,
        }
    }

    /// The table for `--help`.
    #[must_use]
    pub fn help() -> String {
        Self::ALL
            .iter()
            .map(|exit| format!("  {:>3}  {}\n", *exit as u8, exit.meaning()))
            .collect()
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_documented_once_and_in_order() {
        let numbers: Vec<u8> = Exit::ALL.iter().map(|exit| *exit as u8).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(numbers, sorted);
        for exit in Exit::ALL {
            assert!(Exit::help().contains(exit.meaning()), "{exit:?}");
        }
    }

    #[test]
    fn errors_of_one_kind_share_a_number_and_unknown_names_are_internal() {
        assert_eq!(Exit::of_error("NoAnswer") as u8, 6);
        assert_eq!(Exit::of_error("DeviceFault") as u8, 6);
        assert_eq!(Exit::of_error("AccessDenied") as u8, 7);
        assert_eq!(Exit::of_error("ModelUnavailable") as u8, 8);
        assert_eq!(Exit::of_error("NotOffered") as u8, 4);
        assert_eq!(Exit::of_error("FromTheFuture") as u8, 1);
    }
}
