//! One engine elsewhere: its breaker, how many answers come from it, and what it did so far.
//!
//! The lock is held for no await. A [`Turn`] is one request that was let through; however it ends, dropped too, the breaker learns of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    breaker::{Breaker, Pass, Position},
    error::UpstreamError,
};
use crate::config::upstream::UpstreamSettings;

/// One engine. Shared by all requests to it.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) settings: UpstreamSettings,
    pub(super) url: Arc<str>,
    pub(super) model: Arc<str>,
    state: Mutex<State>,
    places: Arc<Semaphore>,
    counters: Counters,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// The last failure.
    cause: String,
}

#[derive(Debug, Default)]
struct Counters {
    asked: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    withdrawn: AtomicU64,
}

/// How an engine stands, for observers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// The bundle in whose place it answers.
    pub bundle: Arc<str>,
    /// When it is asked: `never`, `when-overloaded` or `always`.
    pub policy: &'static str,
    /// `openai` or `kserve`.
    pub protocol: &'static str,
    /// Its address.
    pub url: Arc<str>,
    /// The model's name there.
    pub model: Arc<str>,
    /// `closed`, `open` or `half-open`: whether it is asked now.
    pub breaker: &'static str,
    /// How long it is left alone yet.
    pub rest: Option<Duration>,
    /// The last failure, while it counts.
    pub cause: Option<String>,
    /// Requests since the start.
    pub asked: u64,
    /// Answers that came to their end.
    pub answered: u64,
    /// Requests that failed on the engine's side or on the way.
    pub failed: u64,
    /// Requests that nobody wanted any more.
    pub withdrawn: u64,
}

impl Engine {
    pub(super) fn new(settings: UpstreamSettings) -> Self {
        Self {
            url: settings.access.base.to_string().into(),
            model: settings.model.as_str().into(),
            state: Mutex::new(State {
                breaker: Breaker::new(settings.failures_max, settings.rest),
                cause: String::new(),
            }),
            places: Arc::new(Semaphore::new(settings.answers_max)),
            counters: Counters::default(),
            settings,
        }
    }

    /// Lets a request through, or says why not.
    pub(super) fn admit(self: &Arc<Self>, now: Instant) -> Result<Turn, UpstreamError> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(UpstreamError::Busy {
                url: self.url.to_string(),
                limit: self.settings.answers_max,
            });
        };
        let mut state = self.lock();
        let was = state.breaker.position();
        let pass = state
            .breaker
            .admit(now)
            .map_err(|rest| UpstreamError::Resting {
                url: self.url.to_string(),
                rest,
                cause: state.cause.clone(),
            })?;
        self.tell_change(was, &state);
        drop(state);
        self.counters.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Turn {
            engine: Arc::clone(self),
            pass: Some(pass),
            _place: place,
        })
    }

    pub(super) fn status(&self, bundle: &Arc<str>, now: Instant) -> UpstreamStatus {
        let state = self.lock();
        let (breaker, rest) = match state.breaker.position() {
            Position::Closed => ("closed", None),
            Position::HalfOpen => ("half-open", None),
            Position::Open { until } => ("open", Some(until.saturating_duration_since(now))),
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UpstreamStatus {
            bundle: Arc::clone(bundle),
            policy: self.settings.policy.name(),
            protocol: self.settings.protocol.name(),
            url: Arc::clone(&self.url),
            model: Arc::clone(&self.model),
            breaker,
            rest,
            cause: (!state.cause.is_empty()).then(|| state.cause.clone()),
            asked: count(&self.counters.asked),
            answered: count(&self.counters.answered),
            failed: count(&self.counters.failed),
            withdrawn: count(&self.counters.withdrawn),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says a change of the breaker in the log, once.
    fn tell_change(&self, was: Position, state: &State) {
        let (url, cause) = (&self.url, &state.cause);
        match (was, state.breaker.position()) {
            (Position::Open { .. }, Position::Open { .. })
            | (Position::Closed, Position::Closed)
            | (Position::HalfOpen, Position::HalfOpen) => {}
            (_, Position::Open { until }) => {
                let rest_ms = until.saturating_duration_since(Instant::now()).as_millis();
                tracing::warn!(%url, %cause, rest_ms = rest_ms as u64, "the engine elsewhere is left alone");
            }
            (_, Position::HalfOpen) => tracing::debug!(%url, "the engine elsewhere is tried again"),
            (_, Position::Closed) => tracing::info!(%url, "the engine elsewhere answers again"),
        }
    }
}

/// One request that was let through.
#[derive(Debug)]
pub(super) struct Turn {
    engine: Arc<Engine>,
    /// `None` once its end was told.
    pass: Option<Pass>,
    _place: OwnedSemaphorePermit,
}

impl Turn {
    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The first word came.
    pub(super) fn began(&mut self) {
        let mut state = self.engine.lock();
        let was = state.breaker.position();
        if let Some(pass) = &mut self.pass {
            state.breaker.began(pass);
        }
        self.engine.tell_change(was, &state);
    }

    /// The answer came to its end.
    pub(super) fn ended(mut self) {
        let Some(pass) = self.pass.take() else {
            return;
        };
        let mut state = self.engine.lock();
        let was = state.breaker.position();
        state.breaker.ended(pass);
        if state.breaker.position() == Position::Closed {
            state.cause.clear();
        }
        self.engine.tell_change(was, &state);
        self.engine
            .counters
            .answered
            .fetch_add(1, Ordering::Relaxed);
    }

    /// There is no (more) answer.
    pub(super) fn failed(mut self, error: &UpstreamError) {
        let Some(pass) = self.pass.take() else {
            return;
        };
        let now = Instant::now();
        let mut state = self.engine.lock();
        let was = state.breaker.position();
        match error.severity() {
            Some(severity) => {
                state.cause = error.to_string();
                state.breaker.failed(pass, severity, now, rand::random());
            }
            None => state.breaker.withdrew(pass, now),
        }
        self.engine.tell_change(was, &state);
        self.engine.counters.failed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            let mut state = self.engine.lock();
            state.breaker.withdrew(pass, Instant::now());
            self.engine
                .counters
                .withdrawn
                .fetch_add(1, Ordering::Relaxed);
        }
    }
}
