//! One answer under way: which tokens are known, which comes next, and what of it is told. No model and no cache.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    super::{
        admission::{Load, Spent, Ticket},
        class::Class,
        error::InferenceError,
    },
    ChatCounters, ChatEvent, ChatTimings, Finish, Speculation, TokenChoice, Usage,
    constrain::Guide,
    drafts::{self, Drafts, Propose},
    logprobs::logprobs,
    outlet::Outlet,
    sampler::Sampler,
    stop::{Passed, StopStrings},
    text::TextStream,
};

/// One answer under way.
pub(super) struct Sequence {
    /// The prompt and what was chosen since.
    known: Vec<u32>,
    prompt_tokens: usize,
    limits: Limits,
    chooser: Chooser,
    drafts: Drafts,
    text: TextStream,
    outlet: Outlet,
    account: Account,
    reused: usize,
    drafted: usize,
    taken: usize,
    forced: usize,
    /// Whether the last token known was forced.
    is_forced: bool,
    /// Tokens of the answer.
    drawn: usize,
    /// Prompt tokens that went through the model.
    computed: usize,
    timings: ChatTimings,
    since: Instant,
    has_begun: bool,
}

/// How the tokens of an answer are chosen.
pub(super) struct Chooser {
    pub(super) sampler: Sampler,
    /// The form that the answer must have.
    pub(super) guide: Option<Guide>,
    pub(super) stops: StopStrings,
    /// How many alternatives are told of each token; `None` tells of none at all.
    pub(super) top_logprobs: Option<usize>,
    pub(super) speculation: Speculation,
    pub(super) propose: Propose,
}

/// What ends an answer.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Tokens of the answer.
    pub(super) max_tokens: usize,
    /// Tokens that a cache holds.
    pub(super) capacity: usize,
    /// Tokens that end the model's turn.
    pub(super) end_of_turn: Arc<[u32]>,
}

/// Where a request is counted. It counts as in flight until this is dropped.
pub(super) struct Account {
    pub(super) counters: Arc<watch::Sender<ChatCounters>>,
    pub(super) load: Arc<Load>,
    /// Bytes of the request, by which the next ones are estimated.
    pub(super) bytes: usize,
    #[expect(dead_code, reason = "counts as in flight by being there")]
    pub(super) ticket: Ticket,
}

/// Why there is no complete answer.
pub(super) enum Ended {
    /// Nobody listens any more.
    Cancelled,
    /// It went wrong.
    Failed(InferenceError),
}

impl Sequence {
    /// `queue` and `encode` are over; it waits for a row until [`start`](Self::start).
    pub(super) fn new(
        prompt: Vec<u32>,
        limits: Limits,
        chooser: Chooser,
        text: TextStream,
        outlet: Outlet,
        account: Account,
        (queue, encode): (Duration, Duration),
    ) -> Self {
        Self {
            prompt_tokens: prompt.len(),
            known: prompt,
            limits,
            chooser,
            drafts: Drafts::default(),
            text,
            outlet,
            account,
            reused: 0,
            drafted: 0,
            taken: 0,
            forced: 0,
            is_forced: false,
            drawn: 0,
            computed: 0,
            timings: ChatTimings {
                queue,
                encode,
                ..ChatTimings::default()
            },
            since: Instant::now(),
            has_begun: false,
        }
    }

    /// All tokens that are known, in the cache or not.
    pub(super) fn known(&self) -> &[u32] {
        &self.known
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Requests of a class at this model.
    pub(super) fn in_flight(&self, class: Class) -> usize {
        self.account.load.in_flight(class)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.outlet.is_wanted()
    }

    /// The prompt's first `reused` tokens are in the cache, and the rest will be read.
    pub(super) fn start(&mut self, reused: usize, dropped_messages: usize, bundle: &Arc<str>) {
        self.reused = reused;
        let waited = self.lap();
        self.timings.queue += waited;
        self.outlet.push(ChatEvent::Started {
            prompt_tokens: self.prompt_tokens,
            reused_tokens: reused,
            dropped_messages,
            bundle: Arc::clone(bundle),
        });
    }

    /// It made room for another.
    pub(super) fn note_parked(&self) {
        self.account.counters.send_modify(|total| total.parked += 1);
    }

    /// Tokens `from..to` of what is known went through the model.
    pub(super) fn note_computed(&mut self, from: usize, to: usize) {
        self.computed += to.min(self.prompt_tokens).saturating_sub(from);
    }

    /// What is fed behind the tokens that are known.
    pub(super) fn drafts(&self) -> &[u32] {
        &self.drafts.tokens
    }

    /// Guesses what follows, now that the first `held` tokens are in the cache; how many tokens are to be fed next.
    pub(super) fn plan(&mut self, held: usize) -> usize {
        let pending = self.known.len() - held;
        let room = self.limits.capacity.saturating_sub(self.known.len());
        let Chooser {
            speculation,
            propose,
            ref mut guide,
            ..
        } = self.chooser;
        self.drafts = drafts::plan(propose, speculation, &self.known, pending, room);
        if self.drafts.tokens.is_empty() && self.is_forced && pending == 1 && room > 0 {
            // What was forced is fed by the kernel for several tokens also where only its last token is left to feed.
            self.drafts.tokens.extend(self.known.last());
        }
        if let Some(guide) = guide
            && self.drafts.usable > 0
        {
            let fitting = guide.fitting(&self.drafts.tokens);
            self.drafts.usable = self.drafts.usable.min(fitting);
            self.drafts.tokens.truncate(self.drafts.usable.max(1));
        }
        pending + self.drafts.tokens.len()
    }

    /// Chooses tokens by the logits after the last one known and after each draft, as long as the drafts are right. Gives how many of
    /// them were, and the end if this is it.
    pub(super) fn choose<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [f32]>,
    ) -> Result<(usize, Option<Finish>), InferenceError> {
        let Drafts { tokens, usable } = std::mem::take(&mut self.drafts);
        let base = self.known.len();
        let mut taken = 0;
        self.drafted += tokens.len();
        let mut finish = None;
        for logits in rows.take(usable + 1) {
            // What is known already was forced, and needs no choice.
            if self.known.len() == base + taken {
                finish = self.choose_one(logits)?;
            }
            if finish.is_some()
                || taken == usable
                || self.known.get(base + taken) != tokens.get(taken)
            {
                break;
            }
            taken += 1;
        }
        self.taken += taken;
        Ok((taken, finish))
    }

    fn choose_one(&mut self, logits: &[f32]) -> Result<Option<Finish>, InferenceError> {
        if !self.has_begun {
            self.has_begun = true;
            self.timings.prefill = self.lap();
        }
        self.is_forced = false;
        let allowed = match &mut self.chooser.guide {
            Some(guide) => Some(guide.allowed()?),
            None => None,
        };
        let token = self
            .chooser
            .sampler
            .next(logits, allowed.as_ref())
            .ok_or(InferenceError::NoToken)?;
        if self.limits.end_of_turn.contains(&token) {
            return Ok(Some(Finish::EndOfTurn));
        }
        if let Some(top) = self.chooser.top_logprobs {
            let (chosen, top) = logprobs(logits, token, top);
            let chosen = self.text.name(chosen)?;
            let top = top.into_iter().map(|other| self.text.name(other));
            let top = top.collect::<Result<_, _>>()?;
            self.outlet.push_choice(TokenChoice { chosen, top });
        }
        if let Some(finish) = self.take(token)? {
            return Ok(Some(finish));
        }
        // Of a forced token there are no probabilities, so who wants them gets every token chosen.
        if self.chooser.top_logprobs.is_some() {
            return Ok(None);
        }
        let forced = match &mut self.chooser.guide {
            Some(guide) => guide.forced(),
            None => Vec::new(),
        };
        for token in forced {
            self.is_forced = true;
            self.forced += 1;
            if let Some(finish) = self.take(token)? {
                return Ok(Some(finish));
            }
        }
        Ok(None)
    }

    fn take(&mut self, token: u32) -> Result<Option<Finish>, InferenceError> {
        self.chooser.sampler.accept(&[token]);
        self.drawn += 1;
        self.known.push(token);
        let piece = self.text.push(token)?;
        match self.chooser.stops.push(&piece) {
            Passed::On(text) => self.outlet.push_text(&text),
            Passed::Stopped(text) => {
                self.outlet.push_text(&text);
                return Ok(Some(Finish::StopString));
            }
        }
        if let Some(guide) = &mut self.chooser.guide {
            guide.take(&[token])?;
            if guide.is_complete() {
                return Ok(Some(Finish::EndOfTurn));
            }
        }
        Ok(if self.drawn >= self.limits.max_tokens {
            Some(Finish::MaxTokens)
        } else if self.known.len() > self.limits.capacity {
            Some(Finish::ContextFull)
        } else {
            None
        })
    }

    /// Tells the end, and counts it.
    pub(super) fn end(mut self, outcome: Result<Finish, Ended>) {
        let mut counts = ChatCounters {
            prompt_tokens: self.computed as u64,
            drawn_tokens: self.drawn as u64,
            drafted_tokens: self.drafted as u64,
            taken_tokens: self.taken as u64,
            ..ChatCounters::default()
        };
        let outcome = outcome.and_then(|finish| {
            if finish == Finish::StopString {
                return Ok(finish);
            }
            let rest = self.text.finish().map_err(Ended::Failed)?;
            Ok(match self.chooser.stops.push(&rest) {
                Passed::On(text) => {
                    self.outlet.push_text(&text);
                    let held = std::mem::take(&mut self.chooser.stops).finish();
                    self.outlet.push_text(&held);
                    finish
                }
                Passed::Stopped(text) => {
                    self.outlet.push_text(&text);
                    Finish::StopString
                }
            })
        });
        let last = match outcome {
            Ok(finish) => {
                counts.answered += 1;
                self.timings.decode = self.lap();
                self.account.load.report(&Spent {
                    bytes: self.account.bytes,
                    begin: self.timings.encode + self.timings.prefill,
                    decode: self.timings.decode,
                    tokens: self.drawn,
                });
                Some(ChatEvent::Done {
                    tokens: self.drawn,
                    usage: Usage {
                        prompt_tokens: self.prompt_tokens,
                        reused_tokens: self.reused,
                        answer_tokens: self.drawn,
                        guessed_tokens: self.taken,
                        forced_tokens: self.forced,
                    },
                    finish,
                    timings: self.timings,
                })
            }
            Err(Ended::Failed(error)) => {
                counts.failed += 1;
                counts.refused += u64::from(matches!(error, InferenceError::Overloaded { .. }));
                Some(ChatEvent::Failed(error))
            }
            Err(Ended::Cancelled) => {
                counts.cancelled += 1;
                None
            }
        };
        // Counted before it is told, so that who has read the last event finds it counted and no longer in flight.
        self.account.counters.send_modify(|total| *total += counts);
        drop(self.account);
        if let Some(event) = last {
            self.outlet.finish(event);
        }
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.since, now))
    }
}

/// Tells that a request will not be answered, before there was a sequence for it.
pub(super) fn refuse(outlet: Outlet, account: &Account, error: InferenceError) {
    let is_late = matches!(error, InferenceError::Overloaded { .. });
    account.counters.send_modify(|total| {
        total.failed += 1;
        total.refused += u64::from(is_late);
    });
    outlet.finish(ChatEvent::Failed(error));
}
