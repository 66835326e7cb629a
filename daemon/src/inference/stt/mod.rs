//! Speech to text: 16 kHz sound in, what was said with its times out, window by window.
//!
//! [`SttHandle`] is what the rest of the daemon holds, [`SttRequest`] and [`SttEvent`] what goes through it; `worker` is the model on its
//! thread. `hearing` and `decoder` run the two graphs of layout `whisper` ([`WhisperGraph`]). Around them stand the pure parts: `rules` (which
//! token may come next, and which does), `guard` (whether what was read is to be believed), `seek` (what is a segment, and where the next
//! window begins). Nothing here knows of files or rates: [`audio`](crate::audio) reads and resamples.
//!
//! | channel | from, to | capacity | when full |
//! | --- | --- | --- | --- |
//! | jobs | handles -> model thread | 8 of voice, 32 of each other class | refused at once with `Overloaded` |
//! | events | model thread -> one caller | [`EVENTS`] | segments are kept and told with the next; the model never waits |
//!
//! A request is one sequence of runs of the model: before each of them it is looked whether somebody still listens, and whether a more urgent
//! request waits, which is then served first. So a voice waits for one run (a token, some milliseconds; hearing a window, some tenths of a second),
//! and dropping the receiver of the events cancels as soon.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    admission::{Load, Ticket},
    class::Class,
    error::{InferenceError, Wait},
    manifest::{Task, WhisperGraph},
    slot::Door,
};

mod decoder;
mod guard;
mod hearing;
mod outlet;
mod rules;
mod seek;
mod worker;

pub(super) use self::worker::Stt;

/// Samples a second of all models of this layout.
pub const RATE_HZ: u32 = 16_000;

/// Events that may wait for a slow reader.
pub const EVENTS: usize = 64;

/// Longest sound in one request. Chosen because it takes some half a minute of one core, and 38 MB of memory.
pub const SOUND_MAX: Duration = Duration::from_secs(600);

/// Shortest sound in one request: no syllable is shorter.
pub const SOUND_MIN: Duration = Duration::from_millis(100);

/// What is to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct SttRequest {
    /// f32, mono, -1..1 (what is louder is made quieter as a whole); [`SOUND_MIN`] to [`SOUND_MAX`].
    pub samples: Vec<f32>,
    /// Samples a second; the model's, which is 16,000.
    pub sample_rate_hz: u32,
    /// The language spoken, as ISO 639-1 has it; `None` leaves it to the model.
    pub language: Option<String>,
    /// Who waits for the answer, and so whose turn comes first.
    pub class: Class,
    /// Refuse at once if the whole answer will probably take longer than this from now, by what answers took lately and what is before it, and
    /// later if it has not begun by then. An answer that has begun is not cut off.
    pub end_within: Option<Duration>,
}

impl SttRequest {
    /// A request of somebody at this box.
    pub fn new(samples: Vec<f32>, sample_rate_hz: u32) -> Self {
        Self {
            samples,
            sample_rate_hz,
            language: None,
            class: Class::default(),
            end_within: None,
        }
    }

    /// Its length in milliseconds, which is what its work is estimated by.
    fn millis(&self) -> usize {
        self.samples.len().saturating_mul(1000) / (self.sample_rate_hz.max(1) as usize)
    }

    /// What can be judged without the model.
    fn check(&self) -> Result<(), InferenceError> {
        let wrong = |what, actual: String, allowed: String| {
            Err(InferenceError::OutOfRange {
                what,
                actual,
                allowed,
            })
        };
        let (seconds, least, most) = (
            self.samples.len() as f64 / f64::from(self.sample_rate_hz.max(1)),
            SOUND_MIN.as_secs_f64(),
            SOUND_MAX.as_secs_f64(),
        );
        if !(least..=most).contains(&seconds) {
            let allowed = format!("{least} to {most} s");
            return wrong(
                "the length of the sound",
                format!("{seconds:.3} s"),
                allowed,
            );
        }
        if let Some(at) = self.samples.iter().position(|sample| !sample.is_finite()) {
            let actual = format!("{} at {at}", self.samples[at]);
            return wrong("a sample of the sound", actual, "finite numbers".into());
        }
        Ok(())
    }
}

/// What comes of a request, in order. The last is `Done` or `Failed`.
#[derive(Debug)]
pub enum SttEvent {
    /// More was understood.
    Segments(Vec<Segment>),
    /// All of the sound was listened to.
    Done(SttDone),
    /// It cannot be written down.
    Failed(InferenceError),
}

/// A part of what was said. Segments do not overlap, and come in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// From the beginning of the sound.
    pub start: Duration,
    /// Not before `start`, and not after the sound's end.
    pub end: Duration,
    /// Never empty.
    pub text: String,
    /// How sure the model was of each token, 0 to 1: their geometric mean over the window that it is from.
    pub probability: f32,
    /// The model had to guess, or repeated itself, in every attempt; what is written may not have been said.
    pub is_doubtful: bool,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct SttDone {
    /// Segments that were not told yet, where the reader was slow.
    pub rest: Vec<Segment>,
    /// Length of the sound.
    pub sound: Duration,
    /// Windows that were listened to; those that held no sound at all are not among them.
    pub windows: usize,
    /// Tokens that were read, of all attempts.
    pub tokens: usize,
    /// Where the time went.
    pub timings: SttTimings,
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SttTimings {
    /// Waiting for the model's thread.
    pub queue: Duration,
    /// The first graph.
    pub hear: Duration,
    /// The second graph, and choosing tokens.
    pub read: Duration,
    /// More urgent requests that were served meanwhile.
    pub gave_way: Duration,
}

/// The whole of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// All segments.
    pub segments: Vec<Segment>,
    /// The end.
    pub done: SttDone,
}

impl Transcript {
    /// All that was said.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.segments.iter().map(|one| one.text.as_str()).collect();
        texts.join(" ")
    }
}

/// A cheap, clonable way to the speech-to-text model.
#[derive(Debug, Clone)]
pub struct SttHandle {
    door: Door<SttJob>,
    load: Arc<Load>,
}

impl SttHandle {
    pub(super) fn new(door: Door<SttJob>) -> Self {
        Self {
            door,
            load: Arc::new(Load::new(std::num::NonZeroUsize::MIN)),
        }
    }

    /// Queues a request and returns the stream of its events. Dropping the receiver cancels.
    ///
    /// # Errors
    /// At once: [`InferenceError::NotReady`]; [`InferenceError::Overloaded`] when the queue of its class is full, or
    /// [`end_within`](SttRequest::end_within) cannot be kept by the estimate; [`InferenceError::OutOfRange`] for sound that is too short, too
    /// long or not finite. What goes wrong later comes as [`SttEvent::Failed`].
    pub fn begin(&self, request: SttRequest) -> Result<mpsc::Receiver<SttEvent>, InferenceError> {
        request.check()?;
        let (class, length) = (request.class, request.millis());
        let estimate = self.load.estimate(class, length, 0);
        let until_end = estimate.wait.saturating_add(estimate.answer);
        if request.end_within.is_some_and(|limit| until_end > limit) {
            return Err(overloaded(
                class,
                estimate.before,
                Wait::Estimated(until_end),
            ));
        }
        let (events, stream) = mpsc::channel(EVENTS);
        let job = SttJob {
            events,
            since: Instant::now(),
            load: Arc::clone(&self.load),
            ticket: self.load.enter(class, length, 0),
            request,
        };
        self.door.try_submit(class, job)?;
        Ok(stream)
    }

    /// [`begin`](Self::begin), awaited to the end. Dropping the future cancels.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and [`InferenceError::OutOfRange`] for another rate or language than the model's, [`InferenceError::Run`],
    /// [`InferenceError::Stopping`].
    pub async fn transcribe(&self, request: SttRequest) -> Result<Transcript, InferenceError> {
        let mut events = self.begin(request)?;
        let mut segments = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                SttEvent::Segments(more) => segments.extend(more),
                SttEvent::Done(mut done) => {
                    segments.append(&mut done.rest);
                    return Ok(Transcript { segments, done });
                }
                SttEvent::Failed(error) => return Err(error),
            }
        }
        Err(self.door.not_ready())
    }
}

fn overloaded(class: Class, queued: usize, wait: Wait) -> InferenceError {
    InferenceError::Overloaded {
        task: Task::Stt,
        class,
        queued,
        capacity: class.places(),
        wait,
    }
}

/// One request on its way to the model's thread.
#[derive(Debug)]
pub(super) struct SttJob {
    request: SttRequest,
    events: mpsc::Sender<SttEvent>,
    since: Instant,
    load: Arc<Load>,
    ticket: Ticket,
}

/// Bytes that a window takes while it is worked on: the decoder's cache, what was heard, and the encoder's intermediate results. With the default model and
/// its weights 150 MB; measured were 177 MiB for a whole process that did nothing else.
pub(super) fn working_bytes(graph: &WhisperGraph) -> u64 {
    let width = 4 * graph.heads as u64 * graph.head_dim as u64;
    let positions = (graph.window_samples / graph.position_samples.max(1)) as u64;
    let per_layer = 2 * graph.layers as u64 * width;
    let cache = per_layer.saturating_mul(graph.context_tokens as u64);
    let heard = per_layer.saturating_mul(positions);
    cache
        .saturating_add(heard)
        .saturating_add(positions.saturating_mul(width).saturating_mul(16))
}

#[cfg(test)]
mod tests;
