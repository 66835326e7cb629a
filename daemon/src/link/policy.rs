//! Which of a device's links is opened, which carries its connection, and how long each rests: a pure machine.
//!
//! ```text
//!            standby -> connecting -> connected        (one link at a time carries the connection)
//!               ^           |  ^          |
//!               |           v  |          v
//!               +------- reconnecting <---+      refused: the peer is not authentic; rests long
//! ```
//!
//! While a link carries, another is opened beside it only if it promises to be clearly better for some time ([`BETTER`], [`HOLD`],
//! [`DWELL`]), and if nobody answers there the connection goes back: nothing is lost, for it is kept meanwhile. When the link breaks
//! the best of the others is tried at once.
//!
//! `now` and randomness are arguments; the [supervisor](super::supervisor) opens, sleeps and asks [`Policy::step`] anew after everything
//! that happened.

use std::time::{Duration, Instant};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::link::LinkClass;
use autoglm_drivers::port::LinkIndex;

use super::quality::{Measured, cost};
use super::state::LinkState;

/// A device on a slow line answers within this.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// So long where another link could be tried instead: three Hellos (after 0, 250 and 750 ms) and their answers.
const PATIENCE_BESIDES: Duration = Duration::from_secs(3);
/// A link must cost less than this share of the present one's to be worth a move.
const BETTER: f64 = 0.7;
/// It must promise that for so long.
const HOLD: Duration = Duration::from_secs(2);
/// The present link is not left within this time for a better one.
const DWELL: Duration = Duration::from_secs(5);
/// A link on which nobody answered while another carried. Each try interrupts the connection for [`PATIENCE_BESIDES`].
const DETOUR: Backoff = Backoff {
    min: Duration::from_secs(15),
    max: Duration::from_secs(600),
    healthy_after: Duration::from_secs(60),
};
/// Refusals in a row after which the breaker opens: a single one may be a device that was just being given its key.
const REFUSALS: u32 = 3;
/// Rest after each refusal before. The protocol itself listens to nobody for 4 s after one.
const REFUSED: Duration = Duration::from_secs(5);
/// The open breaker: keys do not mend themselves.
const BREAKER: Backoff = Backoff {
    min: Duration::from_secs(60),
    max: Duration::from_secs(3600),
    healthy_after: Duration::from_secs(60),
};

/// How many links of a kind one adapter (or broker) may be opening at a time, so that a broker which restarts is not overrun
/// and radios are not asked for what they cannot do; `None` for any number.
#[must_use]
pub fn opening_at_once(class: LinkClass) -> Option<usize> {
    match class {
        // Lines have nothing in common.
        LinkClass::Serial => None,
        // The driver itself connects one device at a time and lets the others wait until they are heard.
        LinkClass::Ble => None,
        LinkClass::Mqtt => Some(16),
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Open this link, and say what came of it by [`Policy::on_opened`] or [`Policy::on_open_failed`].
    Open(LinkIndex),
    /// Nobody answers on this link: close it and say so by [`Policy::on_broken`].
    GiveUp(LinkIndex),
    /// Nothing before this time, unless something happens.
    Wait(Option<Instant>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Active {
    None,
    Trying {
        link: usize,
        since: Instant,
        is_detour: bool,
    },
    Carrying {
        link: usize,
        since: Instant,
    },
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    /// No announcement shortens it to less.
    not_before: Instant,
    cause: String,
    is_refusal: bool,
}

#[derive(Debug)]
struct Candidate {
    class: LinkClass,
    attempt: u32,
    detours: u32,
    refusals: u32,
    rest: Option<Rest>,
    measured: Option<Measured>,
    was_tried: bool,
}

/// The policy of one device's links.
#[derive(Debug)]
pub struct Policy {
    backoff: Backoff,
    links: Vec<Candidate>,
    active: Active,
    opening: Option<usize>,
    /// A link that promises to be better than the present one, and since when.
    promising: Option<(usize, Instant)>,
}

impl Policy {
    /// A device whose links were never tried, the preferred one first.
    #[must_use]
    pub fn new(classes: impl IntoIterator<Item = LinkClass>, backoff: Backoff) -> Self {
        let links = classes.into_iter().map(|class| Candidate {
            class,
            attempt: 0,
            detours: 0,
            refusals: 0,
            rest: None,
            measured: None,
            was_tried: false,
        });
        Self {
            backoff,
            links: links.collect(),
            active: Active::None,
            opening: None,
            promising: None,
        }
    }

    /// What is to be done now.
    pub fn step(&mut self, now: Instant) -> Step {
        if let Active::Trying { link, since, .. } = self.active {
            let has_others = (0..self.links.len())
                .any(|other| other != link && self.links[other].is_available(now));
            let patience = match has_others {
                true => PATIENCE_BESIDES,
                false => PATIENCE,
            };
            return match now >= since + patience {
                true => Step::GiveUp(LinkIndex(link)),
                false => Step::Wait(Some(since + patience)),
            };
        }
        if self.opening.is_some() {
            return Step::Wait(None);
        }
        let chosen = match self.active {
            Active::Carrying { link, since } => match self.better(link, now) {
                None => {
                    self.promising = None;
                    return Step::Wait(self.next_rest(now));
                }
                Some(better) => {
                    let promising_since = match self.promising {
                        Some((known, at)) if known == better => at,
                        _ => now,
                    };
                    self.promising = Some((better, promising_since));
                    let at = (promising_since + HOLD).max(since + DWELL);
                    if now < at {
                        return Step::Wait(Some(at));
                    }
                    better
                }
            },
            _ => match self.best(now) {
                None => return Step::Wait(self.next_rest(now)),
                Some(best) => best,
            },
        };
        self.promising = None;
        self.opening = Some(chosen);
        Step::Open(LinkIndex(chosen))
    }

    /// A link is open and is now the one below the connection; whether anybody answers there is not known yet.
    pub fn on_opened(&mut self, LinkIndex(link): LinkIndex, now: Instant) {
        self.opening = None;
        self.promising = None;
        self.links[link].was_tried = true;
        self.active = Active::Trying {
            link,
            since: now,
            is_detour: matches!(self.active, Active::Carrying { .. }),
        };
    }

    /// A link could not be opened; whatever carries the connection goes on.
    pub fn on_open_failed(
        &mut self,
        LinkIndex(link): LinkIndex,
        now: Instant,
        cause: String,
        random: f64,
    ) {
        self.opening = None;
        self.rest(link, now, Duration::ZERO, cause, random);
    }

    /// The device has answered on the link below, and is authentic.
    pub fn on_carrying(&mut self, LinkIndex(link): LinkIndex, now: Instant) {
        match self.active {
            Active::Trying { link: active, .. } if active == link => {}
            _ => return,
        }
        self.active = Active::Carrying { link, since: now };
        let candidate = &mut self.links[link];
        candidate.rest = None;
        candidate.refusals = 0;
        candidate.detours = 0;
    }

    /// The device began anew on the link below: it has to answer again.
    pub fn on_restarted(&mut self, LinkIndex(link): LinkIndex, now: Instant) {
        match self.active {
            Active::Carrying { link: active, .. } if active == link => {
                self.active = Active::Trying {
                    link,
                    since: now,
                    is_detour: false,
                };
            }
            _ => {}
        }
    }

    /// The link below broke, or nobody answered on it. Does nothing for any other link.
    pub fn on_broken(
        &mut self,
        LinkIndex(link): LinkIndex,
        now: Instant,
        cause: String,
        random: f64,
    ) {
        match self.active {
            Active::Carrying {
                link: active,
                since,
            } if active == link => {
                let lived = now.saturating_duration_since(since);
                self.rest(link, now, lived, cause, random);
            }
            Active::Trying {
                link: active,
                is_detour,
                ..
            } if active == link => match is_detour {
                false => self.rest(link, now, Duration::ZERO, cause, random),
                true => {
                    let candidate = &mut self.links[link];
                    let until = now + DETOUR.delay(candidate.detours, random);
                    candidate.detours = candidate.detours.saturating_add(1);
                    candidate.rest = Some(Rest {
                        until,
                        // A loose plug must not interrupt the connection every few seconds.
                        not_before: now + DETOUR.min,
                        cause,
                        is_refusal: false,
                    });
                }
            },
            _ => return,
        }
        self.active = Active::None;
    }

    /// Whoever answers on the link below is not authentic. Returns true when that opens the breaker.
    pub fn on_refused(
        &mut self,
        LinkIndex(link): LinkIndex,
        now: Instant,
        cause: String,
        random: f64,
    ) -> bool {
        match self.active {
            Active::Carrying { link: active, .. } | Active::Trying { link: active, .. }
                if active == link => {}
            _ => return false,
        }
        self.active = Active::None;
        let candidate = &mut self.links[link];
        candidate.refusals = candidate.refusals.saturating_add(1);
        let rest = match candidate.refusals.checked_sub(REFUSALS) {
            None => REFUSED,
            Some(beyond) => BREAKER.delay(beyond, random),
        };
        candidate.rest = Some(Rest {
            until: now + rest,
            not_before: now,
            cause,
            is_refusal: true,
        });
        candidate.refusals == REFUSALS
    }

    /// Something says that the link may work now: it need not rest any longer. A peer that was refused is not believed its own
    /// word; a line that was plugged in again may have another device at its end.
    pub fn on_announced(&mut self, LinkIndex(link): LinkIndex, now: Instant) {
        let candidate = &mut self.links[link];
        let is_believed = |rest: &Rest| !rest.is_refusal || candidate.class == LinkClass::Serial;
        if let Some(rest) = candidate.rest.as_mut().filter(|rest| is_believed(rest)) {
            rest.until = rest.until.min(now.max(rest.not_before));
        }
    }

    /// The link below was measured.
    pub fn on_measured(&mut self, LinkIndex(link): LinkIndex, measured: Measured) {
        self.links[link].measured = Some(measured);
    }

    /// The link that carries the connection, if one does.
    #[must_use]
    pub fn carrying(&self) -> Option<LinkIndex> {
        match self.active {
            Active::Carrying { link, .. } => Some(LinkIndex(link)),
            _ => None,
        }
    }

    /// The link that is below the connection, whether or not anybody answers there.
    #[must_use]
    pub fn below(&self) -> Option<LinkIndex> {
        match self.active {
            Active::None => None,
            Active::Trying { link, .. } | Active::Carrying { link, .. } => Some(LinkIndex(link)),
        }
    }

    /// The state of a link, for observers.
    #[must_use]
    pub fn state(&self, LinkIndex(link): LinkIndex) -> LinkState {
        let candidate = &self.links[link];
        let attempt = candidate.attempt;
        match self.active {
            Active::Carrying {
                link: active,
                since,
            } if active == link => return LinkState::Connected { since },
            Active::Trying { link: active, .. } if active == link => {
                return LinkState::Connecting { attempt };
            }
            _ => {}
        }
        match &candidate.rest {
            Some(rest) if rest.is_refusal => LinkState::Refused {
                refusals: candidate.refusals,
                retry_at: rest.until,
                cause: rest.cause.clone(),
            },
            Some(rest) => LinkState::Reconnecting {
                attempt,
                retry_at: rest.until,
                cause: rest.cause.clone(),
            },
            None if self.opening == Some(link) => LinkState::Connecting { attempt },
            None if candidate.was_tried || self.active != Active::None => LinkState::Standby,
            None => LinkState::Disconnected,
        }
    }

    fn rest(&mut self, link: usize, now: Instant, lived: Duration, cause: String, random: f64) {
        let candidate = &mut self.links[link];
        candidate.was_tried = true;
        let attempt = match lived >= self.backoff.healthy_after {
            true => 0,
            false => candidate.attempt,
        };
        candidate.attempt = self.backoff.attempt_after(candidate.attempt, lived);
        candidate.rest = Some(Rest {
            until: now + self.backoff.delay(attempt, random),
            not_before: now,
            cause,
            is_refusal: false,
        });
    }

    fn cost(&self, link: usize, now: Instant) -> Duration {
        let candidate = &self.links[link];
        cost(candidate.class, candidate.measured, now)
    }

    /// The cheapest link that does not rest; of equal ones the preferred one.
    fn best(&self, now: Instant) -> Option<usize> {
        (0..self.links.len())
            .filter(|link| self.links[*link].is_available(now))
            .min_by_key(|link| self.cost(*link, now))
    }

    /// A link that is clearly better than `present`.
    fn better(&self, present: usize, now: Instant) -> Option<usize> {
        let limit = self.cost(present, now).mul_f64(BETTER);
        self.best(now)
            .filter(|link| *link != present && self.cost(*link, now) < limit)
    }

    /// When the next link has rested enough.
    fn next_rest(&self, now: Instant) -> Option<Instant> {
        let rests = self.links.iter().filter_map(|link| link.rest.as_ref());
        rests
            .map(|rest| rest.until)
            .filter(|until| *until > now)
            .min()
    }
}

impl Candidate {
    fn is_available(&self, now: Instant) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.until <= now)
    }
}

#[cfg(test)]
mod tests;
