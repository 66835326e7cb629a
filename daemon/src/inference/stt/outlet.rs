//! The sending end of one answer's events. It never waits: a place is reserved for the last one, and segments that find no room are kept and told
//! with the next.

use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};

use super::{super::error::InferenceError, Segment, SttDone, SttEvent};

/// One answer's way to whoever asked.
pub(super) struct Outlet {
    events: mpsc::Sender<SttEvent>,
    kept: Vec<Segment>,
    last: OwnedPermit<SttEvent>,
}

impl Outlet {
    /// `None` when nobody listens any more.
    pub(super) fn new(events: mpsc::Sender<SttEvent>) -> Option<Self> {
        let last = events.clone().try_reserve_owned().ok()?;
        Some(Self {
            events,
            kept: Vec::new(),
            last,
        })
    }

    /// Whether somebody listens.
    pub(super) fn is_wanted(&self) -> bool {
        !self.events.is_closed()
    }

    pub(super) fn push(&mut self, segments: Vec<Segment>) {
        self.kept.extend(segments);
        if self.kept.is_empty() {
            return;
        }
        let event = SttEvent::Segments(std::mem::take(&mut self.kept));
        // A receiver that is gone is noticed before the next run.
        if let Err(TrySendError::Full(SttEvent::Segments(segments))) = self.events.try_send(event) {
            self.kept = segments;
        }
    }

    pub(super) fn done(self, done: SttDone) {
        self.last.send(SttEvent::Done(SttDone {
            rest: self.kept,
            ..done
        }));
    }

    pub(super) fn failed(self, error: InferenceError) {
        self.last.send(SttEvent::Failed(error));
    }
}
