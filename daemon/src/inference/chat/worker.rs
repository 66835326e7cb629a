//! The chat model on its thread: takes a request, makes the prompt, feeds what the cache does not hold, draws tokens, streams.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        bundle::Bundle,
        error::{InferenceError, LoadError, millis},
        manifest::{Graph, Task},
        probe::{self, ChatProbe},
        runtime::Runtime,
        session,
        slot::{Model, QUEUE, Setup},
        status::LoadStage,
    },
    ChatCounters, ChatEvent, ChatJob, ChatRequest, ChatTimings, Finish,
    decoder::{Decoder, pieces, reusable},
    prompt::PromptMaker,
    sampler::Sampler,
    text::TextStream,
};

/// The model, owned by its thread.
pub(in super::super) struct Chat {
    decoder: Decoder,
    prompts: PromptMaker,
    end_of_turn: Vec<u32>,
}

impl Model for Chat {
    type Job = ChatJob;
    const TASK: Task = Task::Chat;

    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let (Graph::Chat(graph), Some(tokenizer), Some(template)) =
            (&manifest.graph, &manifest.tokenizer, &manifest.template)
        else {
            unreachable!(
                "Bundle::open checked that a chat bundle has its graph, a tokenizer and a template"
            );
        };
        let prompts =
            PromptMaker::load(&bundle.path(&tokenizer.file), &bundle.path(&template.file))?;
        on_stage(LoadStage::Graph);
        let session = session::open(bundle, runtime, setup.threads)?;
        let mut decoder = Decoder::new(session, graph, setup.context_tokens)?;
        on_stage(LoadStage::Probe);
        let probe: ChatProbe = probe::read(bundle)?;
        decoder
            .extend(&probe.input_ids)
            .map_err(|source| LoadError::ProbeRun {
                name: manifest.name.clone(),
                source: Box::new(source),
            })?;
        probe.check(decoder.logits())?;
        decoder.truncate(0);
        Ok(Self {
            decoder,
            prompts,
            end_of_turn: tokenizer.end_of_turn.clone(),
        })
    }

    fn serve(mut self, jobs: &mut mpsc::Receiver<ChatJob>, stop: &CancellationToken) {
        while let Some(ChatJob {
            request,
            events,
            since,
            load,
            counters,
            _ticket,
        }) = jobs.blocking_recv()
        {
            let begun = Instant::now();
            let queue = begun - since;
            let mut counts = ChatCounters::default();
            let Some(mut outlet) = Outlet::new(events) else {
                counters.send_modify(|total| total.cancelled += 1);
                continue;
            };
            let outcome = if request
                .begin_within
                .is_some_and(|patience| queue > patience)
            {
                Err(Ended::Failed(InferenceError::Overloaded {
                    task: Task::Chat,
                    queued: load.in_flight(),
                    capacity: QUEUE,
                    wait_ms: millis(queue),
                }))
            } else {
                self.answer(&request, queue, &mut outlet, &mut counts, stop)
            };
            let last = match outcome {
                Ok(done) => {
                    counts.answered += 1;
                    load.report(begun.elapsed());
                    Some(done)
                }
                Err(Ended::Failed(error)) => {
                    counts.failed += 1;
                    Some(ChatEvent::Failed(error))
                }
                Err(Ended::Cancelled) => {
                    counts.cancelled += 1;
                    None
                }
            };
            // Counted before it is told, so that who has read the last event finds it counted.
            counters.send_modify(|total| *total += counts);
            if let Some(event) = last {
                outlet.finish(event);
            }
        }
    }
}

/// Why there is no complete answer.
enum Ended {
    /// Nobody listens any more.
    Cancelled,
    Failed(InferenceError),
}

impl From<InferenceError> for Ended {
    fn from(error: InferenceError) -> Self {
        Self::Failed(error)
    }
}

impl Chat {
    fn answer(
        &mut self,
        request: &ChatRequest,
        queue: Duration,
        outlet: &mut Outlet,
        counts: &mut ChatCounters,
        stop: &CancellationToken,
    ) -> Result<ChatEvent, Ended> {
        check_wanted(outlet, stop)?;
        let begun = Instant::now();
        let capacity = self.decoder.capacity();
        let reserved = request.max_tokens.min(capacity / 4);
        let prompt = self.prompts.make(&request.messages, capacity - reserved)?;
        let encode = begun.elapsed();

        let begun = Instant::now();
        let reused = reusable(self.decoder.tokens(), &prompt.ids);
        outlet.push(ChatEvent::Started {
            prompt_tokens: prompt.ids.len(),
            reused_tokens: reused,
            dropped_messages: prompt.dropped,
        });
        self.decoder.truncate(reused);
        for piece in pieces(reused, prompt.ids.len()) {
            check_wanted(outlet, stop)?;
            counts.prompt_tokens += piece.len() as u64;
            self.decoder.extend(&prompt.ids[piece])?;
        }
        let mut sampler = Sampler::new(request.sampling, &prompt.ids);
        let mut token = draw(&mut sampler, self.decoder.logits())?;
        let prefill = begun.elapsed();

        let begun = Instant::now();
        let mut text = TextStream::new(self.prompts.tokenizer());
        let mut tokens = 0;
        let finish = loop {
            check_wanted(outlet, stop)?;
            if self.end_of_turn.contains(&token) {
                break Finish::EndOfTurn;
            }
            tokens += 1;
            counts.drawn_tokens += 1;
            outlet.push_text(&text.push(token)?);
            if tokens >= request.max_tokens {
                break Finish::MaxTokens;
            }
            if self.decoder.tokens().len() >= capacity {
                break Finish::ContextFull;
            }
            self.decoder.extend(&[token])?;
            token = draw(&mut sampler, self.decoder.logits())?;
        };
        outlet.push_text(&text.finish()?);
        let timings = ChatTimings {
            queue,
            encode,
            prefill,
            decode: begun.elapsed(),
        };
        Ok(ChatEvent::Done {
            tokens,
            finish,
            timings,
        })
    }
}

fn draw(sampler: &mut Sampler, logits: &[f32]) -> Result<u32, InferenceError> {
    let token = sampler.next(logits, None).ok_or(InferenceError::NoToken)?;
    sampler.accept(&[token]);
    Ok(token)
}

fn check_wanted(outlet: &Outlet, stop: &CancellationToken) -> Result<(), Ended> {
    if outlet.events.is_closed() {
        Err(Ended::Cancelled)
    } else if stop.is_cancelled() {
        Err(Ended::Failed(InferenceError::Stopping))
    } else {
        Ok(())
    }
}

/// The sending end of one answer's events. Never waits: two places are reserved for the last text and the last event, and text
/// that finds no room is kept and joined to the next.
struct Outlet {
    events: mpsc::Sender<ChatEvent>,
    pending: String,
    last_text: OwnedPermit<ChatEvent>,
    last_event: OwnedPermit<ChatEvent>,
}

impl Outlet {
    /// `None` when nobody listens any more.
    fn new(events: mpsc::Sender<ChatEvent>) -> Option<Self> {
        let last_text = events.clone().try_reserve_owned().ok()?;
        let last_event = events.clone().try_reserve_owned().ok()?;
        Some(Self {
            events,
            pending: String::new(),
            last_text,
            last_event,
        })
    }

    /// For events that are few: the channel has room for all of them.
    fn push(&mut self, event: ChatEvent) {
        // A receiver that is gone is noticed before the next token.
        let _ = self.events.try_send(event);
    }

    fn push_text(&mut self, piece: &str) {
        self.pending.push_str(piece);
        if self.pending.is_empty() {
            return;
        }
        let text = ChatEvent::Delta(std::mem::take(&mut self.pending));
        // Any other outcome is success, or nobody listens, which is noticed before the next token.
        if let Err(TrySendError::Full(ChatEvent::Delta(text))) = self.events.try_send(text) {
            self.pending = text;
        }
    }

    fn finish(self, event: ChatEvent) {
        if !self.pending.is_empty() {
            self.last_text.send(ChatEvent::Delta(self.pending));
        }
        self.last_event.send(event);
    }
}
