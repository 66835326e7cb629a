//! What `Speak` writes to its pipe: lines of JSON as `Say` does, with the sound between them.
//!
//! ```text
//! {"event":"format","sample_rate_hz":22050,"channels":1,"encoding":"s16le"}
//! {"event":"audio","bytes":88200,"text":"The first sentence.","timings_us":{"queue":…,"phonemes":…,"infer":…}}   then so many bytes of sound
//! {"event":"done"}   or   {"event":"failed","error":"…","message":"…"}
//! ```
//! A listener knows by the last line whether it has heard everything; one who closes the pipe ends the speech after the sentence that is being made.

use std::io;
use std::os::fd::OwnedFd;

use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;

use super::error::Error;
use crate::audio::write::bytes;
use crate::inference::error::{InferenceError, chain};
use crate::inference::tts::{Speech, Spoken};

/// Speaks into a pipe, until the end or until nobody listens.
///
/// # Errors
/// When the pipe cannot be written from this runtime.
pub(super) fn begin(speech: Speech, pipe: io::PipeWriter) -> io::Result<()> {
    let pipe = Sender::from_owned_fd(OwnedFd::from(pipe))?;
    tokio::spawn(async move {
        // Only a listener who has left makes it fail.
        if let Err(error) = stream(speech, pipe).await {
            tracing::debug!(%error, "nobody listens any more");
        }
    });
    Ok(())
}

async fn stream(mut speech: Speech, mut pipe: Sender) -> io::Result<()> {
    let mut is_begun = false;
    while let Some(spoken) = speech.next().await {
        let spoken = match spoken {
            Ok(spoken) => spoken,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "not spoken to the end");
                return line(&mut pipe, failed(error)).await;
            }
        };
        if !is_begun {
            let format = json!({"event": "format", "sample_rate_hz": spoken.sample_rate_hz, "channels": 1, "encoding": "s16le"});
            line(&mut pipe, format).await?;
            is_begun = true;
        }
        let sound = bytes(&spoken.samples);
        line(&mut pipe, audio(&spoken, sound.len())).await?;
        pipe.write_all(&sound).await?;
    }
    line(&mut pipe, json!({"event": "done"})).await
}

async fn line(pipe: &mut Sender, event: Json) -> io::Result<()> {
    pipe.write_all(format!("{event}\n").as_bytes()).await
}

fn audio(spoken: &Spoken, bytes: usize) -> Json {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let timings = spoken.timings;
    json!({"event": "audio", "bytes": bytes, "text": spoken.text, "timings_us": {
        "queue": micros(timings.queue), "phonemes": micros(timings.phonemes), "infer": micros(timings.infer)}})
}

fn failed(error: InferenceError) -> Json {
    let message = chain(&error);
    json!({"event": "failed", "error": refused(error).short_name(), "message": message})
}

/// A text that cannot be spoken is named as a sentence that cannot be answered is.
pub(super) fn refused(error: InferenceError) -> Error {
    match error {
        InferenceError::OutOfRange { .. } | InferenceError::Silent => {
            Error::InvalidSentence(chain(&error))
        }
        error => error.into(),
    }
}
