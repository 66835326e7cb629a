//! The sending end of one answer's events. It never waits: three places are reserved for the last choices, the last text and the
//! last event, and what finds no room is kept and joined to the next.

use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};

use super::{ChatEvent, TokenChoice};

/// One answer's way to whoever asked.
pub(super) struct Outlet {
    events: mpsc::Sender<ChatEvent>,
    pending: String,
    choices: Vec<TokenChoice>,
    last_choices: OwnedPermit<ChatEvent>,
    last_text: OwnedPermit<ChatEvent>,
    last_event: OwnedPermit<ChatEvent>,
}

impl Outlet {
    /// `None` when nobody listens any more.
    pub(super) fn new(events: mpsc::Sender<ChatEvent>) -> Option<Self> {
        let last_choices = events.clone().try_reserve_owned().ok()?;
        let last_text = events.clone().try_reserve_owned().ok()?;
        let last_event = events.clone().try_reserve_owned().ok()?;
        Some(Self {
            events,
            pending: String::new(),
            choices: Vec::new(),
            last_choices,
            last_text,
            last_event,
        })
    }

    /// Whether somebody listens.
    pub(super) fn is_wanted(&self) -> bool {
        !self.events.is_closed()
    }

    /// For events that are few: the channel has room for all of them.
    pub(super) fn push(&mut self, event: ChatEvent) {
        // A receiver that is gone is noticed before the next run.
        let _ = self.events.try_send(event);
    }

    /// What was chosen, told before its text.
    pub(super) fn push_choice(&mut self, choice: TokenChoice) {
        self.choices.push(choice);
        let choices = ChatEvent::Choices(std::mem::take(&mut self.choices));
        if let Err(TrySendError::Full(ChatEvent::Choices(choices))) = self.events.try_send(choices)
        {
            self.choices = choices;
        }
    }

    pub(super) fn push_text(&mut self, piece: &str) {
        self.pending.push_str(piece);
        if self.pending.is_empty() {
            return;
        }
        let text = ChatEvent::Delta(std::mem::take(&mut self.pending));
        // Any other outcome is success, or nobody listens, which is noticed before the next run.
        if let Err(TrySendError::Full(ChatEvent::Delta(text))) = self.events.try_send(text) {
            self.pending = text;
        }
    }

    pub(super) fn finish(self, event: ChatEvent) {
        if !self.choices.is_empty() {
            self.last_choices.send(ChatEvent::Choices(self.choices));
        }
        if !self.pending.is_empty() {
            self.last_text.send(ChatEvent::Delta(self.pending));
        }
        self.last_event.send(event);
    }
}
