//! Text to speech: piece by piece, so that the first sentence is heard while the next is made. Bundle layout: `piper-vits`
//! ([`TtsGraph`](super::manifest::TtsGraph)).
//!
//! ```text
//! text -> sentences: pieces (pure) -> one job each, one ahead of the listener
//!            model's thread: espeak (child process) -> phonemes: ids (pure) -> graph -> sound: 16-bit samples (pure)
//! ```
//! Every piece is a request of its own in the queue of its [`Class`], so a voice waits for one piece of whoever else speaks, and who stops listening
//! (drops the [`Speech`]) has at most one more piece made. Nothing here plays or writes files.
//!
//! Read [`sentences`], [`phonemes`], [`espeak`], then [`model`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::{
    espeak::EspeakError,
    sentences::{PIECE_CHARS_MAX, TEXT_CHARS_MAX, Unfit, pieces},
};
use super::{class::Class, error::InferenceError, slot::Door};

pub(super) use self::{model::Tts, phonemes::RUN_PHONEMES_MAX, probe::TtsProbe};

pub mod espeak;
mod model;
mod phonemes;
mod probe;
pub mod sentences;
mod sound;

/// How much faster or slower than recorded: beyond it nobody understands a word.
pub const SPEED: std::ops::RangeInclusive<f32> = 0.25..=4.0;

/// What is to be said, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakRequest {
    /// Plain text, up to [`TEXT_CHARS_MAX`] characters.
    pub text: String,
    /// Who waits for it.
    pub class: Class,
    /// Refuse every piece that has waited longer than this for the model's thread.
    pub begin_within: Option<Duration>,
    /// Which of the voice's speakers, from 0.
    pub speaker: u32,
    /// How fast, 1 being as recorded; see [`SPEED`].
    pub speed: f32,
    /// How much of the voice's own variation, 0 to 1; with 0 the same text always makes the same sound.
    pub variation: f32,
}

impl SpeakRequest {
    /// A text as the voice was made to say it.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            class: Class::default(),
            begin_within: None,
            speaker: 0,
            speed: 1.0,
            variation: 1.0,
        }
    }
}

/// Where the time of a piece went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpeakTimings {
    /// Waiting for the model's thread.
    pub queue: Duration,
    /// Text to phonemes.
    pub phonemes: Duration,
    /// The graph.
    pub infer: Duration,
}

/// A piece of the sound: mono, 16 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spoken {
    /// What was said.
    pub text: String,
    /// The samples; from the second piece on with the silence before it.
    pub samples: Vec<i16>,
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// Where the time went.
    pub timings: SpeakTimings,
}

/// A cheap, clonable way to the voice.
#[derive(Debug, Clone)]
pub struct TtsHandle(Door<TtsJob>);

impl TtsHandle {
    pub(super) fn new(door: Door<TtsJob>) -> Self {
        Self(door)
    }

    /// Begins to speak. The first piece is being made when this returns.
    ///
    /// # Errors
    /// [`InferenceError::NotReady`], [`InferenceError::Overloaded`], [`InferenceError::Silent`], [`InferenceError::OutOfRange`] for a text or a word that is
    /// too long, or a speed or variation that there is not.
    pub fn speak(&self, request: SpeakRequest) -> Result<Speech, InferenceError> {
        check_range("speed", request.speed, SPEED)?;
        check_range("variation", request.variation, 0.0..=1.0)?;
        let pieces = pieces(&request.text).map_err(|unfit| match unfit {
            Unfit::Empty => InferenceError::Silent,
            Unfit::Text { chars } => too_long("characters of the text", chars, TEXT_CHARS_MAX),
            Unfit::Word { chars } => too_long("characters of one word", chars, PIECE_CHARS_MAX),
        })?;
        let mut speech = Speech {
            door: self.0.clone(),
            pieces: pieces.into(),
            pending: None,
            sample_rate_hz: None,
            request: SpeakRequest {
                text: String::new(),
                ..request
            },
        };
        let (job, pending) = speech.next_job().ok_or(InferenceError::Silent)?;
        self.0.try_submit(speech.request.class, job)?;
        speech.is_submitted(pending);
        Ok(speech)
    }
}

fn check_range(
    what: &'static str,
    actual: f32,
    range: std::ops::RangeInclusive<f32>,
) -> Result<(), InferenceError> {
    if range.contains(&actual) {
        return Ok(());
    }
    Err(InferenceError::OutOfRange {
        what,
        actual: actual.to_string(),
        allowed: format!("{} to {}", range.start(), range.end()),
    })
}

fn too_long(what: &'static str, actual: usize, max: usize) -> InferenceError {
    InferenceError::OutOfRange {
        what,
        actual: actual.to_string(),
        allowed: format!("up to {max}"),
    }
}

type Pending = oneshot::Receiver<Result<Spoken, InferenceError>>;

/// A text that is being spoken. Dropping it stops after the piece that is being made.
#[derive(Debug)]
pub struct Speech {
    door: Door<TtsJob>,
    pieces: VecDeque<String>,
    pending: Option<Pending>,
    /// Of the pieces so far; none while nothing was heard.
    sample_rate_hz: Option<u32>,
    request: SpeakRequest,
}

impl Speech {
    /// The next piece; `None` after the last. When this returns a piece, the one after it is being made. Cancel safe: what was awaited comes with
    /// the next call.
    ///
    /// # Errors
    /// [`InferenceError::Phonemes`], [`InferenceError::Run`], [`InferenceError::Overloaded`] (it waited longer than `begin_within`),
    /// [`InferenceError::Silent`] for a text of which nothing is spoken, [`InferenceError::VoiceChanged`], [`InferenceError::NotReady`],
    /// [`InferenceError::Stopping`]. Nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<Spoken, InferenceError>> {
        match self.advance().await {
            Ok(spoken) => spoken.map(Ok),
            Err(error) => {
                self.pieces.clear();
                self.pending = None;
                // Not silent: it was said what is wrong.
                self.sample_rate_hz = self.sample_rate_hz.or(Some(0));
                Some(Err(error))
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Spoken>, InferenceError> {
        loop {
            if self.pending.is_none() {
                let Some((job, pending)) = self.next_job() else {
                    return match self.sample_rate_hz {
                        Some(_) => Ok(None),
                        None => Err(InferenceError::Silent),
                    };
                };
                self.door.submit(self.request.class, job).await?;
                self.is_submitted(pending);
            }
            let Some(pending) = &mut self.pending else {
                return Ok(None);
            };
            let answer = pending.await;
            self.pending = None;
            let mut spoken = answer.map_err(|_| self.door.not_ready())??;
            // One ahead: it is made while this one is played. Where the queue is full it waits for the listener to come back.
            if let Some((job, pending)) = self.next_job() {
                match self.door.try_submit(self.request.class, job) {
                    Ok(()) => self.is_submitted(pending),
                    Err(InferenceError::Overloaded { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if spoken.samples.is_empty() {
                continue;
            }
            let rate = spoken.sample_rate_hz;
            match self.sample_rate_hz {
                None => self.sample_rate_hz = Some(rate),
                Some(before) if before != rate => {
                    return Err(InferenceError::VoiceChanged { before, now: rate });
                }
                Some(_) => {
                    let pause = std::iter::repeat_n(0, sound::pause(rate));
                    spoken.samples = pause.chain(spoken.samples).collect();
                }
            }
            return Ok(Some(spoken));
        }
    }

    /// The job of the next piece, which stays the next until [`is_submitted`](Self::is_submitted): a job that is not taken is dropped.
    fn next_job(&self) -> Option<(TtsJob, Pending)> {
        let text = self.pieces.front()?.clone();
        let (reply, pending) = oneshot::channel();
        let job = TtsJob {
            request: SpeakRequest {
                text,
                ..self.request.clone()
            },
            since: Instant::now(),
            reply,
        };
        Some((job, pending))
    }

    fn is_submitted(&mut self, pending: Pending) {
        self.pieces.pop_front();
        self.pending = Some(pending);
    }
}

/// One piece.
#[derive(Debug)]
pub(super) struct TtsJob {
    /// Its `text` is the piece's.
    request: SpeakRequest,
    since: Instant,
    reply: oneshot::Sender<Result<Spoken, InferenceError>>,
}

impl From<EspeakError> for InferenceError {
    fn from(error: EspeakError) -> Self {
        match error {
            EspeakError::Stopped => Self::Stopping,
            source => Self::Phonemes { source },
        }
    }
}
