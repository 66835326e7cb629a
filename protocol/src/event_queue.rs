//! What waits for a machine's owner, in order, with what it costs: the sum is what asks the peer to pause.

use alloc::collections::VecDeque;

/// What an event costs besides the bytes of its message.
pub(crate) const EVENT_OVERHEAD_BYTES: usize = 64;

/// Invariant: `bytes` is the sum of all costs, held ones included.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    ready: VecDeque<(E, usize)>,
    /// Behind an event that has to come first and is not known yet.
    held: Option<VecDeque<(E, usize)>>,
    bytes: usize,
}

impl<E> EventQueue<E> {
    pub(crate) const fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            held: None,
            bytes: 0,
        }
    }

    /// Appends an event; `cost` is 0 for one that the owner itself brought about, or that ends something.
    pub(crate) fn push(&mut self, event: E, cost: usize) {
        self.bytes += cost;
        self.held
            .as_mut()
            .unwrap_or(&mut self.ready)
            .push_back((event, cost));
    }

    pub(crate) fn pop(&mut self) -> Option<E> {
        let (event, cost) = self.ready.pop_front()?;
        self.bytes -= cost;
        Some(event)
    }

    /// What waits, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is pushed from now on waits for [`EventQueue::release`].
    pub(crate) fn hold(&mut self) {
        self.discard_held();
        self.held = Some(VecDeque::new());
    }

    /// `first` and then all that was held.
    pub(crate) fn release(&mut self, first: E) {
        self.ready.push_back((first, 0));
        self.ready.extend(self.held.take().unwrap_or_default());
    }

    /// Drops what is held: the owner never heard of what it belongs to.
    pub(crate) fn discard_held(&mut self) {
        let held = self.held.take().unwrap_or_default();
        self.bytes -= held.iter().map(|(_, cost)| cost).sum::<usize>();
    }
}
