//! What a host machine tells its driver.

use alloc::string::String;

use crate::connection::{LostReason, PeerInfo};
use crate::message::{LogLevel, Value, give_back};
use crate::segment::Buffers;
use crate::wire::VersionRange;

use super::{Reply, RequestFailure, RequestId};

/// What happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum HostEvent {
    /// The device is there and has announced its description; requests are taken from now on.
    Connected {
        /// The device, as it presents itself.
        peer: PeerInfo,
    },
    /// A request ended; exactly one such event follows every accepted [`Host::request`](super::Host::request).
    Reply {
        /// The request.
        id: RequestId,
        /// Its outcome.
        result: Result<Reply, RequestFailure>,
    },
    /// The device's transport acknowledged the whole request. It says that it arrived, not that it was done.
    Accepted {
        /// The request.
        id: RequestId,
    },
    /// An action reports how far it is.
    Progress {
        /// The request.
        id: RequestId,
        /// Whatever the device reports.
        value: Value,
    },
    /// An observed property changed.
    PropertyChanged {
        /// The property's name.
        property: String,
        /// Its new value.
        value: Value,
    },
    /// The device raised an event.
    Event {
        /// The event's name.
        name: String,
        /// Its data.
        data: Value,
    },
    /// The device wrote a log line.
    Log {
        /// How grave.
        level: LogLevel,
        /// The line.
        text: String,
    },
    /// The peer speaks no version that we speak; a Close naming ours was sent. Told once per peer identity.
    IncompatibleVersion {
        /// What the peer speaks.
        theirs: VersionRange,
    },
    /// The connection ended; every open request was answered before this. The machine goes on looking for the device,
    /// unless the reason is [`LostReason::ClosedHere`]. A peer that is not authentic is told of in this way too, although no
    /// connection to it was.
    Lost {
        /// Why.
        reason: LostReason,
    },
}

impl HostEvent {
    pub(super) fn give_back(self, buffers: &mut Buffers) {
        match self {
            Self::Reply { result, .. } => match result {
                Ok(Reply::Value(value) | Reply::Done(value)) => give_back(value, buffers),
                Ok(Reply::Description { document, .. }) => buffers.give(document),
                Err(_) => {}
            },
            Self::Progress { value, .. } => give_back(value, buffers),
            Self::PropertyChanged {
                property: name,
                value,
            }
            | Self::Event { name, data: value } => {
                buffers.give_text(name);
                give_back(value, buffers);
            }
            Self::Log { text, .. } => buffers.give_text(text),
            Self::Connected { .. }
            | Self::Accepted { .. }
            | Self::IncompatibleVersion { .. }
            | Self::Lost { .. } => {}
        }
    }
}
