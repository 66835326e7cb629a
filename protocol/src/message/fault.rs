//! The one table of error codes that a device answers with.

use alloc::string::String;
use core::fmt;

/// The longest message in a [`Fault`], in bytes of UTF-8; a longer one is cut.
pub const FAULT_MESSAGE_BYTES_MAX: usize = 512;

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal),* $(,)?) => {
        /// Why a device did not do what it was asked; the number is what stands on the wire.
        ///
        /// A number that this table lacks (a newer device) is kept as [`FaultCode::Other`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FaultCode {
            $($(#[$doc])* $name,)*
            /// A code of a later version of this protocol. Never 0, which stands for success: as a fault that is sent as
            /// [`FaultCode::Failed`].
            Other(u16),
        }

        impl FaultCode {
            /// Every code that has a name.
            pub const NAMED: &'static [Self] = &[$(Self::$name),*];

            /// The number on the wire.
            #[must_use]
            pub const fn to_u16(self) -> u16 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(0) => Self::Failed.to_u16(),
                    Self::Other(code) => code,
                }
            }

            /// The code that a number stands for.
            #[must_use]
            pub const fn from_u16(code: u16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

fault_codes! {
    /// The Thing has no property, action or event of that name.
    UnknownAffordance = 1,
    /// The value has another type than the description says.
    WrongType = 2,
    /// The value is of the right type but outside its range.
    OutOfRange = 3,
    /// The property cannot be written.
    ReadOnly = 4,
    /// The property cannot be read.
    WriteOnly = 5,
    /// The device has no room for another request now; asking later is right.
    Busy = 6,
    /// The device cannot do it in its present state (still starting, door open).
    NotReady = 7,
    /// The device tried and failed; the message says how.
    Failed = 8,
    /// The request's deadline had passed before the device could begin.
    Expired = 9,
    /// The device does not know this kind of request.
    Unsupported = 10,
    /// The request was cancelled while it ran.
    Cancelled = 11,
    /// The caller may not do this.
    Denied = 12,
    /// The request id was used before for a different request. Nothing was executed.
    IdReused = 13,
    /// The request was executed earlier, but its result was too large to be remembered.
    ResultForgotten = 14,
    /// The request was executed, but its result is larger than a message may be.
    ResultTooLarge = 15,
    /// The message could not be understood although its kind is known.
    Malformed = 16,
    /// What was transferred does not match its hash.
    HashMismatch = 17,
    /// What is offered for transfer is longer than is taken.
    TransferTooLarge = 18,
}

/// A device's refusal or failure: a code to decide by and words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault.
    pub code: FaultCode,
    /// The device's words, at most [`FAULT_MESSAGE_BYTES_MAX`] bytes; may be empty.
    pub message: String,
}

impl Fault {
    /// A fault; `message` is cut at [`FAULT_MESSAGE_BYTES_MAX`].
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(FAULT_MESSAGE_BYTES_MAX));
        Self { code, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl core::error::Error for Fault {}
