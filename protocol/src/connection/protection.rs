//! Where a connection stands with its security.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::secure::{Ciphers, Forged, Handshake};
use crate::segment::Channel;
use crate::wire::Role;

/// The two handshake messages are the first of the Control channel in each direction; everything after them is sealed.
#[derive(Debug)]
pub(crate) enum Protection {
    /// No security was configured, on either end.
    Clear,
    /// Waits for the other end's handshake message.
    Expecting(Box<Handshake>),
    /// The device's message is on its way; until it has arrived the host cannot open what is sealed.
    Answering(Box<Ciphers>),
    Sealed(Box<Ciphers>),
    /// It failed; the connection ends.
    Failed,
}

/// What a message turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// For the owner.
    Message,
    /// The handshake's; this is ours in return, if there is one.
    Handshake(Option<Vec<u8>>),
}

impl Protection {
    /// Whether the owner may send, and has been told of the connection.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Clear | Self::Sealed(_))
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }

    /// Seals a message that is about to be sent; handshake messages go as they are.
    pub(crate) fn seal(&mut self, channel: Channel, message: &mut Vec<u8>) {
        if let Self::Sealed(ciphers) = self {
            ciphers.seal(channel, message);
        }
    }

    /// Takes a message that came in.
    pub(crate) fn open(
        &mut self,
        role: Role,
        channel: Channel,
        message: &mut Vec<u8>,
    ) -> Result<Opened, Forged> {
        match self {
            Self::Clear => Ok(Opened::Message),
            Self::Sealed(ciphers) => ciphers.open(channel, message).map(|()| Opened::Message),
            Self::Answering(_) | Self::Failed => Err(Forged),
            Self::Expecting(_) if channel != Channel::Control => Err(Forged),
            Self::Expecting(_) => {
                let Self::Expecting(mut handshake) = core::mem::replace(self, Self::Failed) else {
                    return Err(Forged);
                };
                handshake.read(message)?;
                let answer = match role {
                    Role::Host => None,
                    Role::Device => Some(handshake.write()?),
                };
                let ciphers = handshake.finish(role);
                *self = match role {
                    Role::Host => Self::Sealed(ciphers),
                    Role::Device => Self::Answering(ciphers),
                };
                Ok(Opened::Handshake(answer))
            }
        }
    }

    /// The device's handshake message has arrived.
    pub(crate) fn on_answered(&mut self) {
        *self = match core::mem::replace(self, Self::Failed) {
            Self::Answering(ciphers) => Self::Sealed(ciphers),
            other => other,
        };
    }
}
