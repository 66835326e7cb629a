//! `Transcribe`: sound comes in over one descriptor, what was said goes out over another, one JSON object a line.
//!
//! Descriptors are somebody else's: one that gives nothing, or never ends, costs a place and a thread for a limited time and nothing more. Whoever closes
//! the answer is noticed within [`LOOK`], and nothing more is read or computed for him.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, PipeWriter, Read, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, mpsc::error::TryRecvError};
use zbus::OwnedVariant;

use super::error::Error;
use crate::{
    audio::read::{Format, SoundError, Wanted, read},
    inference::{
        InferenceHandle,
        class::Class,
        error::{InferenceError, chain},
        stt::{RATE_HZ, SOUND_MAX, Segment, SttDone, SttEvent, SttHandle, SttRequest},
    },
};

/// Sounds that are read and written down at a time; more are refused as `Busy`. Each takes a thread, and up to 38 MB.
const PLACES: usize = 4;

/// A descriptor that gives nothing for so long is given up: a microphone gives something all the time.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// Longest that sound may take to come, however slowly it does: twice as long as the longest takes to be spoken.
const COMING_MAX: Duration = Duration::from_secs(2 * SOUND_MAX.as_secs());

/// How often it is looked whether somebody still listens, while there is nothing to tell.
const LOOK: Duration = Duration::from_millis(20);

/// What `Transcribe` was asked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) format: Format,
    pub(super) language: Option<String>,
    pub(super) class: Class,
    pub(super) end_within: Option<Duration>,
}

impl Order {
    /// As the options have it, but for those that other methods have, too.
    pub(super) fn new(
        options: &HashMap<String, OwnedVariant>,
        class: Class,
        end_within: Option<Duration>,
    ) -> Result<Self, Error> {
        let text = |name: &str| {
            let text = options.get(name).cloned().map(String::try_from);
            let wrong = |_| Error::InvalidArgument(format!("option {name} must be a string"));
            text.transpose().map_err(wrong)
        };
        let format = match text("format")? {
            None => Format::default(),
            Some(name) => {
                let known = Format::ALL.into_iter().find(|format| format.name() == name);
                known.ok_or_else(|| {
                    let names = Format::ALL.map(Format::name).join(", ");
                    Error::InvalidArgument(format!("option format must be one of {names}"))
                })?
            }
        };
        Ok(Self {
            format,
            language: text("language")?,
            class,
            end_within,
        })
    }
}

/// The model for speech, and the places before it.
#[derive(Debug)]
pub struct Transcriber {
    inference: InferenceHandle,
    places: Arc<Semaphore>,
}

impl Transcriber {
    /// With all places free.
    pub(super) fn new(inference: InferenceHandle) -> Self {
        Self {
            inference,
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    /// Begins, and gives the end on which the answer comes.
    pub(super) fn begin(&self, sound: OwnedFd, order: Order) -> Result<OwnedFd, Error> {
        let stt = self.inference.stt().cloned().ok_or_else(|| {
            Error::ModelUnavailable("no model for speech is configured (inference.stt)".to_owned())
        })?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place
            .map_err(|_| Error::Busy(format!("{PLACES} sounds are being listened to already")))?;
        let (reader, mut writer) =
            io::pipe().map_err(|error| Error::Failed(format!("no pipe: {error}")))?;
        // Both descriptors block: a thread of its own, not the runtime's.
        tokio::task::spawn_blocking(move || {
            carry_out(&stt, sound, order, &mut writer);
            // Whoever has read to the end may begin the next one at once.
            drop(place);
            drop(writer);
        });
        Ok(OwnedFd::from(reader))
    }
}

/// Nobody listens any more.
struct Gone;

fn carry_out(stt: &SttHandle, sound: OwnedFd, order: Order, answer: &mut PipeWriter) {
    let samples = {
        let source = Patient::new(File::from(sound), answer.as_fd());
        let wanted = Wanted {
            rate_hz: RATE_HZ,
            length_max: SOUND_MAX,
        };
        read(source, order.format, wanted)
    };
    let request = samples.map(|samples| SttRequest {
        samples,
        sample_rate_hz: RATE_HZ,
        language: order.language,
        class: order.class,
        end_within: order.end_within,
    });
    let last = match request {
        Err(error) => Ok(unreadable(&error)),
        Ok(request) => pass_on(stt, request, answer),
    };
    if let Ok(last) = last {
        let _ = tell(answer, &last);
    }
}

/// Passes events on up to the last, which is given back.
fn pass_on(stt: &SttHandle, request: SttRequest, answer: &mut PipeWriter) -> Result<Json, Gone> {
    let mut events = match stt.begin(request) {
        Ok(events) => events,
        Err(error) => return Ok(failed(error)),
    };
    loop {
        match events.try_recv() {
            Ok(SttEvent::Segments(segments)) => {
                for segment in &segments {
                    tell(answer, &told(segment))?;
                }
            }
            Ok(SttEvent::Done(done)) => {
                for segment in &done.rest {
                    tell(answer, &told(segment))?;
                }
                return Ok(ended(&done));
            }
            Ok(SttEvent::Failed(error)) => return Ok(failed(error)),
            Err(TryRecvError::Empty) => wait(None, answer.as_fd(), LOOK).map(drop)?,
            Err(TryRecvError::Disconnected) => {
                let message = "the model's thread broke down; it is loaded anew";
                return Ok(
                    json!({"event": "failed", "error": "ModelUnavailable", "message": message}),
                );
            }
        }
    }
}

fn tell(answer: &mut PipeWriter, line: &Json) -> Result<(), Gone> {
    answer
        .write_all(format!("{line}\n").as_bytes())
        .map_err(|_| Gone)
}

/// Waits until `source` gives something, at most for `patience`; whether it does.
fn wait(
    source: Option<BorrowedFd<'_>>,
    answer: BorrowedFd<'_>,
    patience: Duration,
) -> Result<bool, Gone> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // What a pipe's writing end is told without asking is that nobody reads.
        let mut watched = vec![PollFd::new(answer, PollFlags::empty())];
        watched.extend(source.map(|source| PollFd::new(source, PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Err(nix::errno::Errno::EINTR) => continue,
            // A descriptor that cannot be watched is read, and says by itself what is wrong with it.
            Err(_) => return Ok(true),
            Ok(_) => {}
        }
        let happened = |at: usize| watched.get(at).is_some_and(|one| one.any().unwrap_or(true));
        if happened(0) {
            return Err(Gone);
        }
        if happened(1) {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Reads from a descriptor as long as it gives something, and somebody waits for it.
struct Patient<'a> {
    source: File,
    answer: BorrowedFd<'a>,
    until: Instant,
}

impl<'a> Patient<'a> {
    fn new(source: File, answer: BorrowedFd<'a>) -> Self {
        Self {
            source,
            answer,
            until: Instant::now() + COMING_MAX,
        }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            match wait(Some(self.source.as_fd()), self.answer, left.min(SILENT_MAX)) {
                Err(Gone) => return Err(io::Error::from(io::ErrorKind::BrokenPipe)),
                Ok(false) => {
                    let what = match left.is_zero() {
                        true => format!("it has been coming for {} s", COMING_MAX.as_secs()),
                        false => format!("nothing came for {} s", SILENT_MAX.as_secs()),
                    };
                    return Err(io::Error::new(io::ErrorKind::TimedOut, what));
                }
                Ok(true) => match self.source.read(bytes) {
                    // Whoever passed it may have made it so.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                },
            }
        }
    }
}

fn told(segment: &Segment) -> Json {
    json!({
        "event": "segment",
        "start_ms": millis(segment.start),
        "end_ms": millis(segment.end),
        "text": segment.text,
        "probability": segment.probability,
        "doubtful": segment.is_doubtful,
    })
}

fn ended(done: &SttDone) -> Json {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let timings = &done.timings;
    json!({
        "event": "done",
        "sound_ms": millis(done.sound),
        "windows": done.windows,
        "tokens": done.tokens,
        "timings_us": {
            "queue": micros(timings.queue),
            "hear": micros(timings.hear),
            "read": micros(timings.read),
            "gave_way": micros(timings.gave_way),
        },
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unreadable(error: &SoundError) -> Json {
    json!({"event": "failed", "error": "InvalidSound", "message": chain(error)})
}

fn failed(error: InferenceError) -> Json {
    let message = chain(&error);
    let name = match error {
        InferenceError::OutOfRange { .. } => "InvalidSound".to_owned(),
        error => Error::from(error).short_name(),
    };
    json!({"event": "failed", "error": name, "message": message})
}
