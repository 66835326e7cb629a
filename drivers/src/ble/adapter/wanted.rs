//! What is wanted of an adapter, with the way back to who wants it.

use tokio::sync::oneshot;

use crate::ble::address::{DeviceAddress, Target};
use crate::ble::gatt::{GattClient, Purpose};
use crate::ble::machine::Job;
use crate::ble::pairing::Credential;
use crate::ble::types::BleError;
use crate::link::PacketLink;

/// What is wanted, and where the answer goes.
#[derive(Debug)]
pub(in super::super) enum Wanted {
    Packets {
        target: Target,
        purpose: Purpose,
        reply: oneshot::Sender<Result<PacketLink, BleError>>,
    },
    Gatt {
        target: Target,
        purpose: Purpose,
        reply: oneshot::Sender<Result<GattClient, BleError>>,
    },
    Pair {
        target: Target,
        credential: Credential,
        reply: oneshot::Sender<Result<DeviceAddress, BleError>>,
    },
    Forget {
        device: DeviceAddress,
        reply: oneshot::Sender<Result<DeviceAddress, BleError>>,
    },
}

impl Wanted {
    /// Answers that it cannot be.
    pub(in super::super) fn refuse(self, error: BleError) {
        // Whoever asked may have given up.
        match self {
            Self::Packets { reply, .. } => drop(reply.send(Err(error))),
            Self::Gatt { reply, .. } => drop(reply.send(Err(error))),
            Self::Pair { reply, .. } | Self::Forget { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Packets { reply, .. } => reply.is_closed(),
            Self::Gatt { reply, .. } => reply.is_closed(),
            Self::Pair { reply, .. } | Self::Forget { reply, .. } => reply.is_closed(),
        }
    }

    pub(super) fn job(&self) -> Job {
        match self {
            Self::Packets { target, .. } | Self::Gatt { target, .. } => {
                Job::Connect(target.clone())
            }
            Self::Pair { target, .. } => Job::Pair(target.clone()),
            Self::Forget { device, .. } => Job::Forget(*device),
        }
    }

    /// Who is meant.
    pub(in super::super) fn target(&self) -> Target {
        match self {
            Self::Packets { target, .. }
            | Self::Gatt { target, .. }
            | Self::Pair { target, .. } => target.clone(),
            Self::Forget { device, .. } => Target::Address(*device),
        }
    }
}
