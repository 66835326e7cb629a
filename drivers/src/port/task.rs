//! The port's loop: it owns the protocol machine.
//!
//! One `select!` over the link below, orders of the supervisor, requests, the up queue, the machine's deadline and cancellation;
//! the machine is drained fully after each. While no link is below, the machine's timers run on: that is how a
//! connection which is not resumed in time ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use autoglm_protocol::{
    Config, Host, HostEvent, Instant, LinkKind, RequestError, RequestFailure, RequestId, Security,
    Standing, Stats, TIME_SYNC_INTERVAL,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::carry::{Carrier, Parcel};
use super::pipe::{Pipe, Reading, Turn};
use super::silence::{Silence, Verdict};
use super::{
    Answer, Command, LinkEnd, LinkIndex, LinkOrder, LinkQuality, Port, PortError, PortEvent,
};

/// Events that the port holds while the up queue is full, before it stops reading the link.
const HELD_MAX: usize = 32;
/// How long a clean close may take to leave.
const GOODBYE: Duration = Duration::from_millis(200);
/// How often the quality of the link is told, at most.
const QUALITY_EVERY: Duration = Duration::from_secs(1);

/// A port that is not yet running; [`PortTask::run`] is its life.
#[derive(Debug)]
pub struct PortTask {
    pub(super) requests: mpsc::Sender<Command>,
    pub(super) down: mpsc::Receiver<Command>,
    pub(super) parcels: (mpsc::Sender<Parcel>, mpsc::Receiver<Parcel>),
    pub(super) links: mpsc::Receiver<LinkOrder>,
    pub(super) up: mpsc::Sender<PortEvent>,
    pub(super) quality: Arc<watch::Sender<LinkQuality>>,
}

impl PortTask {
    /// Serves the device until cancelled, or until nobody hears its events any more.
    ///
    /// `boot_id` must be drawn at random for each run: with the machine's own count of connections it must never come twice.
    pub async fn run(
        self,
        config: Config,
        security: Security,
        boot_id: u32,
        cancel: CancellationToken,
    ) {
        let Self {
            requests,
            mut down,
            parcels: (parcels, mut carrying),
            mut links,
            up,
            quality,
        } = self;
        let mut machine = Machine {
            host: Host::with_security(config, LinkKind::Stream, boot_id, 1, security),
            origin: tokio::time::Instant::now(),
            pipe: Pipe::Absent,
            link: None,
            requests,
            parcels,
            carrier: Carrier::default(),
            tell_time_at: None,
            connection: None,
            in_flight: BTreeMap::new(),
            held: VecDeque::new(),
            standing: Standing::Absent,
            meter: Meter::new(quality),
            silence: Silence::begin(Instant::ZERO),
        };
        loop {
            let now = machine.now();
            machine.drain(now);
            machine.carrier.advance(now, &mut machine.host);
            machine.tell_time(now);
            machine.pipe.fill(now, &mut machine.host);
            machine.drain(now);
            machine.watch_silence(now);
            let reading = match machine.held.len() < HELD_MAX {
                true => Reading::Open,
                false => Reading::Paused,
            };
            let deadline = machine.deadline();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return machine.end().await,
                Some(order) = links.recv() => machine.on_order(order),
                turn = machine.pipe.turn(reading) => machine.on_turn(turn),
                permit = up.reserve(), if !machine.held.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = machine.held.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => return machine.end().await,
                },
                Some(command) = down.recv() => machine.on_command(command),
                Some(parcel) = carrying.recv() => {
                    let now = machine.now();
                    machine.carrier.offer(now, &mut machine.host, parcel);
                }
                () = sleep_until(deadline) => {
                    let now = machine.now();
                    machine.host.handle_timeout(now);
                }
            }
        }
    }
}

struct InFlight {
    asked: Instant,
    written: Option<Instant>,
    reply: oneshot::Sender<Result<Answer, PortError>>,
}

struct Machine {
    host: Host,
    origin: tokio::time::Instant,
    pipe: Pipe,
    link: Option<LinkIndex>,
    requests: mpsc::Sender<Command>,
    parcels: mpsc::Sender<Parcel>,
    carrier: Carrier,
    /// When the device is told the time next; `None` without a connection.
    tell_time_at: Option<Instant>,
    /// Cancelled when the connection that was announced is over.
    connection: Option<CancellationToken>,
    in_flight: BTreeMap<RequestId, InFlight>,
    held: VecDeque<PortEvent>,
    /// As it was told last.
    standing: Standing,
    meter: Meter,
    silence: Silence,
}

impl Machine {
    fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn deadline(&self) -> Option<tokio::time::Instant> {
        let timeouts = self.host.poll_timeout().into_iter();
        let silence = self.silence.deadline();
        let at = timeouts.chain(self.tell_time_at).chain(silence).min()?;
        Some(self.origin + Duration::from_micros(at.as_micros()))
    }

    /// Since when somebody waits for an answer over the link below, if somebody does. While the connection is interrupted the machine
    /// itself tries.
    fn waiting(&self) -> Option<Instant> {
        let is_carried = self.link.is_some() && self.standing == Standing::Connected;
        let asked = self.in_flight.values().map(|request| request.asked);
        asked.min().filter(|_| is_carried)
    }

    /// A link on which nobody answers is given back, although it takes bytes: another may reach the device, or the same when it is
    /// opened again. The connection is kept meanwhile.
    fn watch_silence(&mut self, now: Instant) {
        match self.silence.judge(now, self.waiting()) {
            Verdict::Wait => {}
            Verdict::Probe => {
                self.host.probe();
                self.pipe.fill(now, &mut self.host);
            }
            Verdict::Broken => self.lose_link(now, LinkEnd::Silent),
        }
    }

    fn lose_link(&mut self, now: Instant, end: LinkEnd) {
        self.pipe = Pipe::Absent;
        self.silence = Silence::begin(now);
        if let Some(link) = self.link.take() {
            self.held.push_back(PortEvent::LinkLost { link, end });
        }
        self.host.change_link(now, LinkKind::Stream);
        self.meter.begin(None, self.host.stats());
    }

    fn on_order(&mut self, order: LinkOrder) {
        let now = self.now();
        self.silence.on_heard(now);
        match order {
            LinkOrder::Use(index, link) => {
                self.pipe = Pipe::new(link);
                self.link = Some(index);
            }
            LinkOrder::Leave => {
                self.pipe = Pipe::Absent;
                self.link = None;
            }
        }
        self.host.change_link(now, self.pipe.kind());
        self.meter.begin(self.link, self.host.stats());
    }

    fn on_turn(&mut self, turn: Result<Turn, LinkEnd>) {
        let now = self.now();
        match turn {
            Ok(Turn::Read(count)) => {
                self.silence.on_heard(now);
                self.meter.quality.bytes_received += count as u64;
                self.host.handle_input(now, self.pipe.input(count));
            }
            Ok(Turn::Packet(packet)) => {
                self.silence.on_heard(now);
                self.meter.quality.bytes_received += packet.len() as u64;
                self.host.handle_input(now, &packet);
            }
            Ok(Turn::Wrote(count)) => {
                self.meter.quality.bytes_sent += count as u64;
                if self.pipe.is_empty() {
                    for request in self.in_flight.values_mut() {
                        request.written.get_or_insert(now);
                    }
                }
            }
            Err(end) => self.lose_link(now, end),
        }
    }

    fn on_command(&mut self, command: Command) {
        if command.connection.is_cancelled() {
            let _ = command.reply.send(Err(PortError::NotConnected));
            return;
        }
        let now = self.now();
        let asked = self
            .host
            .request(now, command.id, command.request, command.deadline);
        match asked {
            Ok(()) => {
                let reply = command.reply;
                let request = InFlight {
                    asked: now,
                    written: None,
                    reply,
                };
                self.in_flight.insert(command.id, request);
            }
            Err(error) => {
                let _ = command.reply.send(Err(match error {
                    RequestError::Busy => PortError::Busy,
                    RequestError::NotConnected => PortError::NotConnected,
                    error => PortError::Refused(error),
                }));
            }
        }
    }

    /// Takes all that the machine has to tell.
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.host.poll_event() {
            match event {
                HostEvent::Reply { id, result } => {
                    let Some(asked) = self.in_flight.remove(&id) else {
                        continue;
                    };
                    if let Err(RequestFailure::ConnectionLost { .. }) = result {
                        // Before its caller hears of it: asking again by the same port must not be tried.
                        self.end_connection();
                    }
                    let written = asked.written.unwrap_or(now);
                    let answer = result.map_err(PortError::Failed).map(|reply| Answer {
                        reply,
                        written_after: written.saturating_duration_since(asked.asked),
                        answered_after: now.saturating_duration_since(asked.asked),
                    });
                    // The caller may have given up waiting; the device acted all the same.
                    let _ = asked.reply.send(answer);
                }
                HostEvent::Connected { peer } => {
                    self.end_connection();
                    let connection = CancellationToken::new();
                    let port = Port {
                        down: self.requests.clone(),
                        parcels: Some(self.parcels.clone()),
                        connection: connection.clone(),
                    };
                    self.connection = Some(connection);
                    self.tell_time_at = Some(now);
                    self.standing = Standing::Connected;
                    self.held.push_back(PortEvent::Connected { peer, port });
                }
                HostEvent::Lost { reason } => {
                    self.end_connection();
                    self.standing = Standing::Absent;
                    let link = self.link;
                    self.held.push_back(PortEvent::Lost { link, reason });
                }
                HostEvent::PropertyChanged { property, value } => {
                    self.held
                        .push_back(PortEvent::PropertyChanged { property, value });
                }
                HostEvent::Event { name, data } => {
                    self.held.push_back(PortEvent::Event { name, data });
                }
                HostEvent::Log { level, text } => {
                    self.held.push_back(PortEvent::Log { level, text });
                }
                HostEvent::IncompatibleVersion { theirs } => {
                    let link = self.link;
                    self.held
                        .push_back(PortEvent::Incompatible { link, theirs });
                }
                // Progress has no listener yet; the transport's acknowledgement is not an answer.
                HostEvent::Accepted { .. } | HostEvent::Progress { .. } => {}
            }
        }
        self.follow_standing();
        self.meter.tell(now, self.standing, || self.host.stats());
    }

    /// Tells of interruptions and resumptions of the connection that was announced.
    fn follow_standing(&mut self) {
        if self.connection.is_none() {
            return;
        }
        match (self.standing, self.host.standing(), self.link) {
            (Standing::Connected, Standing::Interrupted, link) => {
                self.standing = Standing::Interrupted;
                self.held.push_back(PortEvent::Interrupted { link });
            }
            (Standing::Interrupted, Standing::Connected, Some(link)) => {
                self.standing = Standing::Connected;
                self.held.push_back(PortEvent::Resumed { link });
            }
            _ => {}
        }
    }

    /// Tells the device the time when that is due.
    fn tell_time(&mut self, now: Instant) {
        if self.tell_time_at.is_none_or(|at| now < at) {
            return;
        }
        self.tell_time_at = Some(now + TIME_SYNC_INTERVAL);
        // A clock before 1970 tells nobody the time; without room the device is told at the next turn of the interval.
        if let Ok(unix) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            let micros = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
            let _ = self.host.time_sync(now, micros);
        }
    }

    fn end_connection(&mut self) {
        self.tell_time_at = None;
        if let Some(connection) = self.connection.take() {
            connection.cancel();
        }
    }

    /// Takes leave of the device, and answers whoever still waits.
    async fn end(mut self) {
        let now = self.now();
        self.host.close(now);
        self.drain(now);
        let _ = tokio::time::timeout(GOODBYE, self.pipe.finish(self.now(), &mut self.host)).await;
    }
}

/// What the machine counts, as the quality of the link that is below.
struct Meter {
    quality: LinkQuality,
    /// What was counted on earlier links.
    before: Stats,
    told_at: Option<Instant>,
    publish: Arc<watch::Sender<LinkQuality>>,
}

impl Meter {
    fn new(publish: Arc<watch::Sender<LinkQuality>>) -> Self {
        Self {
            quality: LinkQuality::default(),
            before: Stats::default(),
            told_at: None,
            publish,
        }
    }

    fn begin(&mut self, link: Option<LinkIndex>, stats: Stats) {
        self.quality = LinkQuality {
            link,
            ..LinkQuality::default()
        };
        self.before = stats;
        self.told_at = None;
    }

    fn tell(&mut self, now: Instant, standing: Standing, stats: impl FnOnce() -> Stats) {
        let is_due = self
            .told_at
            .is_none_or(|told| now.saturating_duration_since(told) >= QUALITY_EVERY);
        if !is_due && self.quality.standing == standing {
            return;
        }
        self.told_at = Some(now);
        let stats = stats();
        let repeated = stats.retransmissions - self.before.retransmissions;
        self.quality = LinkQuality {
            standing,
            rtt: stats.smoothed_rtt,
            packets: stats.segments_sent - self.before.segments_sent + repeated,
            repeated,
            ..self.quality
        };
        let quality = self.quality;
        self.publish.send_if_modified(|told| {
            let is_news = *told != quality;
            *told = quality;
            is_news
        });
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
