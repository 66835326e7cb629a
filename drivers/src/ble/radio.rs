//! The owner of what is there: the connection to the bus, bluetoothd, the adapters; it passes each request to the right adapter's
//! task and wakes those whose device appeared.
//!
//! It never waits for BlueZ itself: connecting to the bus, taking a btleplug session and finding an adapter in it run beside it.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use btleplug::api::{Central as _, Manager as _};
use btleplug::platform::{Adapter, Manager};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::adapter::{self, Appearance, Command, Parts, Wanted};
use super::address::{AdapterSelector, DeviceAddress, Target};
use super::bluez::{Bluez, Presence};
use super::fits;
use super::machine::Power;
use super::types::{AdapterStatus, Advertisement, BleError, RadioStatus};
use crate::backoff::Backoff;

/// Appearances that wait for the task; more are dropped, and their links try by themselves.
const APPEARANCES: usize = 64;
/// What BlueZ told, on its way to the task; more wait.
const PRESENCES: usize = 16;
/// Devices whose adapter is remembered; above, all are learnt anew.
const HEARD_AT_MAX: usize = 512;
/// Requests that wait for adapters to be opened; more are refused.
const PENDING_MAX: usize = 32;
/// How often it is looked whether listeners and interests are still there, and adapters that could not be opened are tried.
const TICK: Duration = Duration::from_secs(5);
/// The most that taking a session or finding an adapter in it may take.
const SESSION: Duration = Duration::from_secs(5);
/// How the bus is tried again: it is there on every box that works, so the pauses are short.
const BUS: Backoff = Backoff {
    min: Duration::from_millis(500),
    max: Duration::from_secs(30),
    healthy_after: Duration::from_secs(60),
};

/// What is asked of the radio.
#[derive(Debug)]
pub(super) enum Request {
    Want {
        adapter: AdapterSelector,
        wanted: Wanted,
    },
    Interest {
        adapter: AdapterSelector,
        target: Target,
        notify: Weak<Notify>,
    },
    Listeners,
}

#[derive(Debug)]
struct Interest {
    adapter: AdapterSelector,
    target: Target,
    notify: Weak<Notify>,
}

#[derive(Debug)]
struct Known {
    address: DeviceAddress,
    power: Power,
    /// `None` until somebody wanted it and its handle was taken.
    commands: Option<mpsc::Sender<Command>>,
    /// Somebody asked for just this one.
    is_wanted: bool,
}

/// What the connection to the bus tells.
#[derive(Debug)]
enum News {
    Bus(Bluez),
    /// In order; the first tells of bluetoothd and all its adapters.
    Presences(Vec<Presence>),
    BusLost,
}

/// An adapter's handle, or why there is none.
type Opened = (String, Result<(Manager, Adapter), String>);

/// The task's state.
#[derive(Debug)]
pub(super) struct RadioTask {
    tracker: TaskTracker,
    status: watch::Sender<RadioStatus>,
    advertisements: broadcast::Sender<Advertisement>,
    bluez: Option<Bluez>,
    session: Option<Manager>,
    adapters: BTreeMap<String, Known>,
    interests: Vec<Interest>,
    heard_at: BTreeMap<DeviceAddress, String>,
    has_listeners: bool,
    was_missed: bool,
    /// Nothing is known of the bus yet.
    is_looking: bool,
    /// The adapter whose handle is being taken, one at a time: each costs BlueZ a listing of all that it has.
    opening: Option<String>,
    /// Those whose handle could not be taken wait for the next tick.
    is_open_failing: bool,
    /// What is asked of adapters whose handle is being taken.
    pending: Vec<(AdapterSelector, Wanted)>,
}

impl RadioTask {
    pub(super) fn new(
        tracker: TaskTracker,
        status: watch::Sender<RadioStatus>,
        advertisements: broadcast::Sender<Advertisement>,
    ) -> Self {
        Self {
            tracker,
            status,
            advertisements,
            bluez: None,
            session: None,
            adapters: BTreeMap::new(),
            interests: Vec::new(),
            heard_at: BTreeMap::new(),
            has_listeners: false,
            was_missed: false,
            is_looking: true,
            opening: None,
            is_open_failing: false,
            pending: Vec::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        cancel: CancellationToken,
    ) {
        let (appearances, mut appeared) = mpsc::channel(APPEARANCES);
        let (news, mut all_news) = mpsc::channel(PRESENCES);
        let (opened, mut all_opened) = mpsc::channel(PRESENCES);
        let bus = tokio::spawn(keep_watching(news));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Every branch is cancel-safe.
            tokio::select! {
                () = cancel.cancelled() => break,
                request = requests.recv() => match request {
                    Some(request) => self.on_request(request).await,
                    None => break,
                },
                Some(news) = all_news.recv() => {
                    self.on_news(news).await;
                    self.ask_again();
                }
                Some((name, result)) = all_opened.recv() => {
                    self.on_opened(name, result, &appearances, &cancel).await;
                    self.ask_again();
                }
                Some(appearance) = appeared.recv() => self.on_appearance(&appearance),
                _ = tick.tick() => self.look_after_listeners().await,
            }
            self.open_adapters(&opened);
        }
        bus.abort();
    }

    async fn on_request(&mut self, request: Request) {
        match request {
            Request::Want { adapter, wanted } => self.on_wanted(&adapter, wanted),
            Request::Interest {
                adapter,
                target,
                notify,
            } => {
                for (name, known) in &self.adapters {
                    if let Some(commands) = &known.commands
                        && selects(&adapter, name, known)
                    {
                        let _ = commands.send(Command::Interest(target.clone())).await;
                    }
                }
                self.interests
                    .retain(|interest| interest.notify.strong_count() > 0);
                self.interests.push(Interest {
                    adapter,
                    target,
                    notify,
                });
            }
            Request::Listeners => self.look_after_listeners().await,
        }
    }

    fn ask_again(&mut self) {
        for (adapter, wanted) in std::mem::take(&mut self.pending) {
            self.on_wanted(&adapter, wanted);
        }
    }

    fn on_wanted(&mut self, selector: &AdapterSelector, wanted: Wanted) {
        if self.is_looking && self.pending.len() < PENDING_MAX {
            return self.pending.push((selector.clone(), wanted));
        }
        if !self.status.borrow().has_service {
            return wanted.refuse(BleError::NoService);
        }
        let fitting: Vec<_> = self
            .adapters
            .iter()
            .filter(|(name, known)| known.power != Power::Absent && selects(selector, name, known))
            .collect();
        let heard = match wanted.target() {
            Target::Address(device) => self.heard_at.get(&device),
            Target::Name(_) | Target::Service(_) => None,
        };
        let chosen = fitting
            .iter()
            .find(|(name, _)| heard == Some(name))
            .or_else(|| fitting.iter().find(|(_, known)| known.power == Power::On))
            .or_else(|| fitting.first());
        let Some((name, known)) = chosen else {
            return wanted.refuse(BleError::NoAdapter(selector.clone()));
        };
        let Some(commands) = &known.commands else {
            let adapter = (*name).clone();
            if self.pending.len() >= PENDING_MAX || self.is_open_failing {
                return wanted.refuse(BleError::NotOpened { adapter });
            }
            if let Some(known) = self.adapters.get_mut(&adapter) {
                known.is_wanted = true;
            }
            self.pending.push((selector.clone(), wanted));
            return;
        };
        match commands.try_send(Command::Want(wanted)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(Command::Want(wanted))) => {
                wanted.refuse(BleError::QueueFull {
                    adapter: (*name).clone(),
                });
            }
            // The one who asked sees that nobody answers.
            Err(_) => {}
        }
    }

    async fn on_news(&mut self, news: News) {
        match news {
            News::Bus(bluez) => self.bluez = Some(bluez),
            News::BusLost => {
                self.is_looking = false;
                self.on_service(false).await;
                // Sessions and handles of the old bus are dead; the tasks end with their senders.
                self.bluez = None;
                self.session = None;
                self.adapters.clear();
            }
            News::Presences(presences) => {
                self.is_looking = false;
                for presence in presences {
                    self.on_presence(presence).await;
                }
            }
        }
    }

    async fn on_presence(&mut self, presence: Presence) {
        match presence {
            Presence::Service(is_there) => self.on_service(is_there).await,
            Presence::Adapter {
                name,
                address,
                is_on,
            } => {
                tracing::info!(adapter = %name, %address, is_on, "Bluetooth adapter found");
                let known = self.adapters.entry(name.clone()).or_insert(Known {
                    address,
                    power: Power::Absent,
                    commands: None,
                    is_wanted: false,
                });
                known.address = address;
                self.set_power(&name, power(is_on)).await;
            }
            Presence::Power { name, is_on: true } => {
                tracing::info!(adapter = %name, "Bluetooth adapter switched on");
                self.set_power(&name, Power::On).await;
            }
            Presence::Power { name, is_on: false } => {
                tracing::warn!(adapter = %name, "Bluetooth adapter switched off: its links are down until it is on again");
                self.set_power(&name, Power::Off).await;
            }
            Presence::Gone { name } => {
                tracing::warn!(adapter = %name, "Bluetooth adapter unplugged: its links are down until it returns");
                self.set_power(&name, Power::Absent).await;
            }
        }
    }

    async fn on_service(&mut self, is_there: bool) {
        let had_service = self.status.borrow().has_service;
        if had_service && !is_there {
            tracing::warn!("bluetoothd is gone: BLE links are down until it returns");
        } else if is_there && !had_service {
            tracing::info!("bluetoothd is there");
        } else if !is_there && !self.was_missed {
            self.was_missed = true;
            tracing::info!("no bluetoothd on the system bus: BLE links wait for it");
        }
        self.status
            .send_modify(|status| status.has_service = is_there);
        if !is_there {
            let names: Vec<_> = self.adapters.keys().cloned().collect();
            for name in names {
                self.set_power(&name, Power::Absent).await;
            }
        }
    }

    async fn set_power(&mut self, name: &str, power: Power) {
        let Some(known) = self.adapters.get_mut(name) else {
            return;
        };
        known.power = power;
        if let Some(commands) = &known.commands {
            let _ = commands.send(Command::Power(power)).await;
        }
        let address = known.address;
        self.status.send_modify(|status| {
            if power == Power::Absent {
                status.adapters.remove(name);
                return;
            }
            let adapter = status
                .adapters
                .entry(name.to_owned())
                .or_insert(AdapterStatus {
                    name: name.to_owned(),
                    address,
                    is_on: false,
                    is_scanning: false,
                    connected: 0,
                });
            adapter.address = address;
            adapter.is_on = power == Power::On;
        });
    }

    /// Takes a handle for an adapter that is wanted and has none.
    fn open_adapters(&mut self, opened: &mpsc::Sender<Opened>) {
        if self.opening.is_some() || self.is_open_failing {
            return;
        }
        let is_wanted = |name: &str, known: &Known| {
            let of_interest = |interest: &Interest| {
                interest.notify.strong_count() > 0 && selects(&interest.adapter, name, known)
            };
            known.is_wanted || self.has_listeners || self.interests.iter().any(of_interest)
        };
        let next = self.adapters.iter().find(|(name, known)| {
            known.commands.is_none() && known.power != Power::Absent && is_wanted(name, known)
        });
        let Some((name, _)) = next else {
            return;
        };
        self.opening = Some(name.clone());
        let (name, session, opened) = (name.clone(), self.session.clone(), opened.clone());
        tokio::spawn(async move {
            let result = open(&name, session).await;
            let _ = opened.send((name, result)).await;
        });
    }

    async fn on_opened(
        &mut self,
        name: String,
        result: Result<(Manager, Adapter), String>,
        appearances: &mpsc::Sender<Appearance>,
        cancel: &CancellationToken,
    ) {
        self.opening = None;
        let (Some(known), Some(bluez)) = (self.adapters.get_mut(&name), &self.bluez) else {
            return;
        };
        let (session, adapter) = match result {
            Ok(opened) => opened,
            Err(error) => {
                self.is_open_failing = true;
                tracing::warn!(adapter = %name, %error, "Bluetooth adapter could not be opened; it is tried again");
                return;
            }
        };
        self.session.get_or_insert(session);
        let parts = Parts {
            name: name.clone(),
            adapter,
            bluez: bluez.clone(),
            status: self.status.clone(),
            advertisements: self.advertisements.clone(),
            appearances: appearances.clone(),
        };
        let commands = adapter::spawn(parts, &self.tracker, cancel.clone());
        known.commands = Some(commands.clone());
        let power = known.power;
        let interests = self
            .interests
            .iter()
            .filter(|interest| selects(&interest.adapter, &name, known))
            .map(|interest| Command::Interest(interest.target.clone()));
        let greeting: Vec<_> = interests
            .chain([
                Command::Listeners(self.has_listeners),
                Command::Power(power),
            ])
            .collect();
        for command in greeting {
            let _ = commands.send(command).await;
        }
    }

    fn on_appearance(&mut self, appearance: &Appearance) {
        if self.heard_at.len() >= HEARD_AT_MAX {
            self.heard_at.clear();
        }
        self.heard_at
            .insert(appearance.device, appearance.adapter.clone());
        let Some(known) = self.adapters.get(&appearance.adapter) else {
            return;
        };
        for interest in &self.interests {
            let is_meant = selects(&interest.adapter, &appearance.adapter, known)
                && fits(
                    &interest.target,
                    appearance.device,
                    appearance.name.as_deref(),
                    &appearance.services,
                );
            if is_meant && let Some(notify) = interest.notify.upgrade() {
                notify.notify_one();
            }
        }
    }

    async fn look_after_listeners(&mut self) {
        self.is_open_failing = false;
        let has_listeners = self.advertisements.receiver_count() > 0;
        if std::mem::replace(&mut self.has_listeners, has_listeners) == has_listeners {
            return;
        }
        for known in self.adapters.values() {
            if let Some(commands) = &known.commands {
                let _ = commands.send(Command::Listeners(has_listeners)).await;
            }
        }
    }
}

fn power(is_on: bool) -> Power {
    match is_on {
        true => Power::On,
        false => Power::Off,
    }
}

fn selects(selector: &AdapterSelector, name: &str, known: &Known) -> bool {
    match selector {
        AdapterSelector::Any => true,
        AdapterSelector::Name(wanted) => wanted == name,
        AdapterSelector::Address(address) => *address == known.address,
    }
}

/// Watches the bus for ever, across its restarts.
async fn keep_watching(news: mpsc::Sender<News>) {
    let mut attempt = 0;
    loop {
        let began = tokio::time::Instant::now();
        let error = watch_once(&news).await.err();
        if news.send(News::BusLost).await.is_err() {
            return;
        }
        // The first time is worth a word; the system bus is there on every box that works.
        if attempt == 0 {
            tracing::warn!(
                error = error.map(|error| error.to_string()),
                "no system bus: BLE links wait for it"
            );
        }
        attempt = BUS.attempt_after(attempt, began.elapsed());
        tokio::time::sleep(BUS.delay(attempt, rand::random())).await;
    }
}

async fn watch_once(news: &mpsc::Sender<News>) -> zbus::Result<()> {
    let bluez = Bluez::connect().await?;
    let (presences, mut told) = mpsc::channel(PRESENCES);
    if news.send(News::Bus(bluez.clone())).await.is_err() {
        return Ok(());
    }
    let pass_on = async {
        while let Some(presences) = told.recv().await {
            if news.send(News::Presences(presences)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        result = bluez.watch(&presences) => result,
        () = pass_on => Ok(()),
    }
}

/// Takes an adapter's handle, in a session that is made if there is none.
async fn open(name: &str, session: Option<Manager>) -> Result<(Manager, Adapter), String> {
    let opening = async {
        let session = match session {
            Some(session) => session,
            None => {
                // libdbus connects with blocking calls.
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(Manager::new()))
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?
            }
        };
        for adapter in session
            .adapters()
            .await
            .map_err(|error| error.to_string())?
        {
            let info = adapter.adapter_info().await.unwrap_or_default();
            if info.split(' ').next() == Some(name) {
                return Ok((session, adapter));
            }
        }
        Err("BlueZ does not list it".to_owned())
    };
    tokio::time::timeout(SESSION, opening)
        .await
        .unwrap_or_else(|_| Err("BlueZ does not answer".to_owned()))
}
