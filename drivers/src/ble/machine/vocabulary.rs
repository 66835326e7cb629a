//! The words of the machine: what it is told, and what it wants done.

use std::time::Duration;

use uuid::Uuid;

use crate::ble::address::{DeviceAddress, Target};

/// Names one job, and the hold on a device that it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::ble) struct Ticket(pub(in crate::ble) u64);

/// What is asked of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ble) enum Job {
    /// Connect, and stay connected until the ticket is given back.
    Connect(Target),
    /// Pair and trust; not kept connected.
    Pair(Target),
    /// Remove all that BlueZ knows of a device, its bond too.
    Forget(DeviceAddress),
}

/// The adapter's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ble) enum Power {
    /// Not plugged in, or nobody serves it.
    Absent,
    /// There, but switched off.
    Off,
    /// Usable.
    On,
}

/// What went wrong in an operation, as far as decisions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ble) enum Fault {
    /// It took too long.
    TimedOut,
    /// BlueZ is still at an earlier attempt.
    Busy,
    /// Connected, but without the services that are needed: the cache is of older firmware, or it is another kind of device.
    ServicesMissing,
    /// The device wants to be paired, or the bond is broken.
    Authentication,
    /// It left meanwhile.
    NotConnected,
    /// BlueZ does not know the device (any more).
    Unknown,
    /// Anything else.
    Failed,
}

/// Why a job was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ble) enum Refusal {
    /// The adapter is not there.
    Absent,
    /// The adapter is switched off.
    Off,
    /// The device was not heard.
    NotHeard,
    /// The adapter cannot scan at present, so nobody can be heard.
    ScanFailed,
    /// Too many jobs wait.
    QueueFull,
    /// The operation failed.
    Fault(Fault),
}

/// Why a granted device is no longer connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ble) enum Loss {
    /// The device, or the radio path to it, went away.
    Disconnected,
    /// The adapter was switched off.
    Off,
    /// The adapter was unplugged, or bluetoothd stopped.
    Absent,
}

/// What the machine is told.
#[derive(Debug, Clone)]
pub(in crate::ble) enum Input {
    /// The adapter's state.
    Power(Power),
    /// A device was heard.
    Heard {
        device: DeviceAddress,
        name: Option<String>,
        services: Vec<Uuid>,
    },
    /// Somebody listens to advertisements, or nobody any more.
    Listeners(bool),
    /// A device whose appearance somebody waits for, and the service by which it carries packets.
    Interest { target: Target, service: Uuid },
    /// A device that was connected before this process was, with the name and services that BlueZ has of it.
    LeftConnected {
        device: DeviceAddress,
        name: Option<String>,
        services: Vec<Uuid>,
    },
    /// A job.
    Ask { ticket: Ticket, job: Job },
    /// A ticket's owner has heard nothing over it, and will give it back.
    Silent(Ticket),
    /// A device said something over a hold that has ended: what was cached of it is right.
    Spoke(DeviceAddress),
    /// A ticket's owner no longer wants it, in whatever state it is.
    GiveBack(Ticket),
    /// The scan was started or stopped, or that failed.
    ScanChanged(Result<(), ()>),
    /// The present operation is over.
    Done(Result<(), Fault>),
    /// A device is no longer connected.
    Disconnected(DeviceAddress),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ble) enum Action {
    /// Start scanning; answered by [`Input::ScanChanged`].
    StartScan,
    /// Stop scanning; answered by [`Input::ScanChanged`].
    StopScan,
    /// Connect and prepare; answered by [`Input::Done`].
    Connect {
        ticket: Ticket,
        device: DeviceAddress,
        within: Duration,
    },
    /// Pair and trust; answered by [`Input::Done`].
    Pair {
        ticket: Ticket,
        device: DeviceAddress,
        within: Duration,
    },
    /// Disconnect, which also ends an attempt that BlueZ goes on with; answered by [`Input::Done`].
    Disconnect(DeviceAddress),
    /// Remove the device, its cache and its bond; answered by [`Input::Done`].
    Forget(DeviceAddress),
    /// Disconnect, and drop what BlueZ has cached of it unless that costs a bond; answered by [`Input::Done`].
    DropCache(DeviceAddress),
    /// Switch the adapter off and on; answered by [`Input::Done`].
    PowerCycle,
    /// Take a new event stream beside the old one.
    ListenAnew,
    /// The job is done; a connected device is held until the ticket is given back.
    Grant {
        ticket: Ticket,
        device: DeviceAddress,
    },
    /// The job is not done.
    Refuse { ticket: Ticket, why: Refusal },
    /// A granted device is gone.
    Lost { ticket: Ticket, why: Loss },
    /// A device appeared: who waits for it may try.
    Announce(DeviceAddress),
}
