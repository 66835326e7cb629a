//! What a device machine asks of its driver.

use alloc::string::String;

use crate::connection::{LostReason, PeerInfo};
use crate::message::{Value, give_back};
use crate::segment::Buffers;
use crate::wire::VersionRange;
use crate::{Instant, RequestId, TimeSample};

/// What happened, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceEvent {
    /// A host is there.
    Connected {
        /// The host, as it presents itself.
        peer: PeerInfo,
    },
    /// A property is asked for (or begins to be observed); answer with [`Device::respond`](super::Device::respond).
    Read {
        /// The request.
        id: RequestId,
        /// The property's name.
        property: String,
    },
    /// A property is to be set. Surfaced at most once per id.
    Write {
        /// The request.
        id: RequestId,
        /// The property's name.
        property: String,
        /// Its new value.
        value: Value,
    },
    /// An action is to run. Surfaced at most once per id.
    Invoke {
        /// The request.
        id: RequestId,
        /// The action's name.
        action: String,
        /// Its input.
        input: Value,
        /// When the host stops waiting.
        deadline: Instant,
    },
    /// The host no longer wants a running request; it must still be answered, with whatever came of it.
    Cancel {
        /// The request.
        id: RequestId,
    },
    /// The host told the time; a later one replaces it.
    TimeSync(TimeSample),
    /// The peer speaks no version that we speak.
    IncompatibleVersion {
        /// What the peer speaks.
        theirs: VersionRange,
    },
    /// The connection ended. Running requests go on; their results wait in the request memory.
    /// A peer that is not authentic is told of in this way too, although no connection to it was.
    Lost {
        /// Why.
        reason: LostReason,
    },
}

impl DeviceEvent {
    pub(super) fn give_back(self, buffers: &mut Buffers) {
        match self {
            Self::Read { property, .. } => buffers.give_text(property),
            Self::Write {
                property: name,
                value,
                ..
            }
            | Self::Invoke {
                action: name,
                input: value,
                ..
            } => {
                buffers.give_text(name);
                give_back(value, buffers);
            }
            Self::Connected { .. }
            | Self::Cancel { .. }
            | Self::TimeSync { .. }
            | Self::IncompatibleVersion { .. }
            | Self::Lost { .. } => {}
        }
    }
}
