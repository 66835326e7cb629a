//! The owner task of one adapter: carries out what its [machine](super::machine) decides, and tells it what came of it.
//!
//! It lives as long as the process, also while the adapter is unplugged or bluetoothd is gone; the [radio](super::radio) tells it
//! which. Its loop is one select over commands, devices heard, tickets given back, finished work and the machine's deadline; it
//! drains the machine fully after each. [`work`] is what it starts; it always ends, within its time limit. [`wanted`] is what it is
//! asked, [`answer`] what it answers.

mod answer;
mod wanted;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use btleplug::api::Peripheral as _;
use btleplug::platform::Adapter;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::wanted::Wanted;
use self::work::{DyingWord, Outcome};
use super::address::{DeviceAddress, Target};
use super::bluez::Bluez;
use super::gatt::{Reached, Returned};
use super::listener::{Heard, Listener};
use super::machine::{Action, Input, Loss, Machine, Power, Ticket};
use super::tap::Tap;
use super::types::{Advertisement, BleError, RadioStatus};

/// Commands that wait for the task; more are refused at once.
const COMMANDS: usize = 32;
/// Devices heard that wait for the task; more are dropped, since they advertise again.
const HEARD: usize = 256;
/// Event streams taken in one process, since none can be given back.
const LISTENERS_MAX: u32 = 8;
/// The most that disconnecting everybody at the end may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What an adapter's task is told.
#[derive(Debug)]
pub(super) enum Command {
    Power(Power),
    Listeners(bool),
    Interest { target: Target, service: uuid::Uuid },
    Want(Wanted),
}

/// A device that appeared at an adapter.
#[derive(Debug, Clone)]
pub(super) struct Appearance {
    pub(super) adapter: String,
    pub(super) device: DeviceAddress,
    /// Whom it may be, of those who are waited for.
    pub(super) awaited: Vec<Target>,
}

/// The parts that an adapter's task needs.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) adapter: Adapter,
    pub(super) bluez: Bluez,
    pub(super) status: watch::Sender<RadioStatus>,
    pub(super) advertisements: broadcast::Sender<Advertisement>,
    pub(super) appearances: mpsc::Sender<Appearance>,
}

/// The task's state.
struct AdapterTask {
    parts: Parts,
    machine: Machine,
    next_ticket: u64,
    asked: BTreeMap<Ticket, Wanted>,
    leases: BTreeMap<Ticket, (DeviceAddress, watch::Sender<Option<Loss>>)>,
    reached: Option<(Ticket, Reached)>,
    failed: Option<(Ticket, BleError)>,
    taps: BTreeMap<DeviceAddress, Tap>,
    listeners: u32,
    heard: mpsc::Sender<Heard>,
    returns: mpsc::UnboundedSender<Returned>,
    work: FuturesUnordered<JoinHandle<Outcome>>,
    /// What the running work reports if it dies of a fault of ours or of a library.
    dying: Vec<DyingWord>,
}

/// Starts the task of an adapter.
pub(super) fn spawn(
    parts: Parts,
    tracker: &TaskTracker,
    cancel: CancellationToken,
) -> mpsc::Sender<Command> {
    let (commands, queue) = mpsc::channel(COMMANDS);
    let (heard, all_heard) = mpsc::channel(HEARD);
    let (returns, returned) = mpsc::unbounded_channel();
    let task = AdapterTask {
        parts,
        machine: Machine::new(),
        next_ticket: 0,
        asked: BTreeMap::new(),
        leases: BTreeMap::new(),
        reached: None,
        failed: None,
        taps: BTreeMap::new(),
        listeners: 0,
        heard,
        returns,
        work: FuturesUnordered::new(),
        dying: Vec::new(),
    };
    tracker.spawn(task.run(queue, all_heard, returned, cancel));
    commands
}

impl AdapterTask {
    #[tracing::instrument(name = "ble", skip_all, fields(adapter = %self.parts.name))]
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut heard: mpsc::Receiver<Heard>,
        mut returned: mpsc::UnboundedReceiver<Returned>,
        cancel: CancellationToken,
    ) {
        self.listen();
        loop {
            self.give_back_abandoned();
            self.act();
            self.publish();
            let deadline = self.machine.poll_timeout();
            // Every branch is cancel-safe: receivers lose nothing when dropped.
            let input = tokio::select! {
                () = cancel.cancelled() => return self.disconnect_all().await,
                command = commands.recv() => match command {
                    Some(Command::Power(power)) => Input::Power(power),
                    Some(Command::Listeners(any)) => Input::Listeners(any),
                    Some(Command::Interest { target, service }) => {
                        Input::Interest { target, service }
                    }
                    Some(Command::Want(wanted)) => self.on_wanted(wanted),
                    None => return,
                },
                Some(heard) = heard.recv() => self.on_heard(heard),
                Some(Returned { ticket, device, was_heard }) = returned.recv() => {
                    self.leases.remove(&ticket);
                    if let Some(was_heard) = was_heard {
                        let told = match was_heard {
                            true => Input::Spoke(device),
                            false => Input::Silent(ticket),
                        };
                        self.machine.handle_input(Instant::now(), told);
                    }
                    Input::GiveBack(ticket)
                }
                Some(outcome) = self.work.next(), if !self.work.is_empty() => {
                    self.on_outcome(outcome)
                }
                () = sleep_until(deadline) => {
                    self.machine.handle_timeout(Instant::now());
                    continue;
                }
            };
            tracing::trace!(?input);
            self.machine.handle_input(Instant::now(), input);
        }
    }

    fn on_wanted(&mut self, wanted: Wanted) -> Input {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let job = wanted.job();
        self.asked.insert(ticket, wanted);
        Input::Ask { ticket, job }
    }

    fn on_heard(&mut self, heard: Heard) -> Input {
        match heard {
            Heard::Advertisement {
                device,
                name,
                services,
            } => Input::Heard {
                device,
                name,
                services,
            },
            Heard::Disconnected(device) => Input::Disconnected(device),
            Heard::LeftConnected {
                device,
                name,
                services,
            } => Input::LeftConnected {
                device,
                name,
                services,
            },
        }
    }

    /// A caller who no longer waits holds no place in the queue.
    fn give_back_abandoned(&mut self) {
        let abandoned: Vec<_> = self
            .asked
            .extract_if(.., |_, wanted| wanted.is_abandoned())
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in abandoned {
            self.machine
                .handle_input(Instant::now(), Input::GiveBack(ticket));
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            tracing::debug!(?action);
            match action {
                Action::StartScan => self.start_scan(),
                Action::StopScan => self.stop_scan(),
                Action::Connect {
                    ticket,
                    device,
                    within,
                } => self.connect(ticket, device, within),
                Action::Pair {
                    ticket,
                    device,
                    within,
                } => self.pair(ticket, device, within),
                Action::Disconnect(device) => self.disconnect(device),
                Action::Forget(device) => self.forget(device),
                Action::DropCache(device) => self.drop_cache(device),
                Action::PowerCycle => self.power_cycle(),
                Action::ListenAnew => self.listen(),
                Action::Grant { ticket, device } => self.grant(ticket, device),
                Action::Refuse { ticket, why } => self.refuse(ticket, why),
                Action::Lost { ticket, why } => self.lose(ticket, why),
                Action::Announce(device) => self.announce(device),
            }
        }
    }

    fn listen(&mut self) {
        if self.listeners >= LISTENERS_MAX {
            return;
        }
        self.listeners += 1;
        let listener = Listener::new(
            self.parts.adapter.clone(),
            self.parts.name.clone(),
            self.heard.clone(),
            self.parts.advertisements.clone(),
        );
        let is_first = self.listeners == 1;
        // Beside this task, which a BlueZ that does not answer must not hold up.
        tokio::spawn(async move {
            if is_first {
                listener.tell_of_left_connected().await;
            }
            if let Err(error) = listener.start().await {
                tracing::warn!(%error, "no event stream from BlueZ; it is asked for again when the scan stays silent");
            }
        });
    }

    async fn disconnect_all(&self) {
        let devices: BTreeSet<_> = self.leases.values().map(|(device, _)| *device).collect();
        let all = devices
            .iter()
            .filter_map(|device| self.taps.get(device))
            .map(|tap| tap.peripheral.disconnect());
        // Late is as good as never: the next run finds them connected.
        let _ = tokio::time::timeout(GOODBYE, futures_util::future::join_all(all)).await;
    }

    fn publish(&self) {
        let (is_scanning, connected) = (self.machine.is_scanning(), self.machine.connected());
        self.parts.status.send_if_modified(|status| {
            let Some(adapter) = status.adapters.get_mut(&self.parts.name) else {
                return false;
            };
            let is_new = adapter.is_scanning != is_scanning || adapter.connected != connected;
            adapter.is_scanning = is_scanning;
            adapter.connected = connected;
            is_new
        });
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
