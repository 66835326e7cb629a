//! One request to one engine: sent, read up to its first word, then streamed as its reader takes it.
//!
//! Whatever is dropped here closes the connection. Up to the first word a failure is an `Err` of [`ask`], and somebody else may still
//! answer; from then on it ends the answer.

use std::sync::Arc;
use std::time::Duration;

use autoglm_drivers::http::{Events, EventsError, Request, Response, send};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    super::chat::{ChatRequest, ChatTimings, Finish, Usage},
    engine::{Engine, Turn},
    error::UpstreamError,
    kserve, openai, prompt,
    reader::{Heard, ReadError, Reader, excerpt},
};
use crate::config::upstream::{KServeEndpoint, Protocol};

/// Most bytes of one event: a chunk has some 300, with log-probabilities or a whole tool call some thousands.
const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of a whole answer, read as text or as a tensor.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes that are read of an error's explanation.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// What an engine said.
#[derive(Debug)]
pub(super) enum Said {
    /// The next piece of the answer.
    Text(String),
    /// The answer is complete.
    Done {
        finish: Finish,
        usage: Usage,
        timings: ChatTimings,
    },
}

/// An answer whose first word is there.
#[derive(Debug)]
pub(super) struct Speech {
    /// `None` once its end was told.
    turn: Option<Turn>,
    source: Source,
    /// Read and not yet passed on.
    next: Option<String>,
    bytes: usize,
    ends_by: Instant,
    asked: Instant,
    headed: Instant,
    worded: Instant,
}

#[derive(Debug)]
enum Source {
    Events {
        events: Box<Events>,
        reader: Reader,
        /// Whether the last event came.
        is_over: bool,
    },
    /// The answer came in one piece.
    Whole,
}

/// Asks, and waits for the first word. Cancel safe: dropped, it closes the connection.
pub(super) async fn ask(
    engine: &Arc<Engine>,
    request: &ChatRequest,
) -> Result<Speech, UpstreamError> {
    let message = message(engine, request).await?;
    let turn = engine.admit(std::time::Instant::now())?;
    match begin(engine, message).await {
        Ok(mut speech) => {
            let turn = speech.turn.insert(turn);
            turn.began();
            Ok(speech)
        }
        Err(error) => {
            turn.failed(&error);
            Err(error)
        }
    }
}

/// What is sent, made before anybody is counted as asked.
async fn message(engine: &Arc<Engine>, request: &ChatRequest) -> Result<Request, UpstreamError> {
    let unsupported = |what| UpstreamError::Unsupported { what };
    let settings = &engine.settings;
    let (path, json, accept) = match &settings.protocol {
        Protocol::OpenAi => (
            openai::PATH.to_owned(),
            openai::body(request, &settings.model).map_err(unsupported)?,
            "text/event-stream",
        ),
        Protocol::KServe { endpoint, template } => {
            let (messages, template) = (request.messages.clone(), template.clone());
            let making =
                tokio::task::spawn_blocking(move || prompt::make(&messages, template.as_deref()));
            let prompt = making
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(|message| UpstreamError::Template { message })?;
            (
                kserve::path(&settings.model, endpoint),
                kserve::body(request, &prompt, endpoint).map_err(unsupported)?,
                match endpoint.is_stream() {
                    true => "text/event-stream",
                    false => "application/json",
                },
            )
        }
    };
    Ok(Request {
        path,
        json: Some(json),
        accept,
    })
}

async fn begin(engine: &Arc<Engine>, message: Request) -> Result<Speech, UpstreamError> {
    let settings = &engine.settings;
    let asked = Instant::now();
    let first_by = asked + settings.first_token_within;
    let url = || engine.url.to_string();
    let accept = message.accept;
    let response = send(&settings.access, message, settings.connect_within, first_by)
        .await
        .map_err(|error| UpstreamError::of_http(url(), error))?;
    let headed = Instant::now();
    let ends_by = asked + settings.total_within;
    if !response.is_success() {
        return Err(refusal(engine, response, first_by).await);
    }
    if response.media_type != accept {
        return Err(UpstreamError::Nonsense {
            url: url(),
            what: format!(
                "an answer of the kind {:?} instead of {accept}",
                excerpt(&response.media_type)
            ),
        });
    }
    let mut speech = Speech {
        turn: None,
        source: Source::Whole,
        next: None,
        bytes: 0,
        ends_by,
        asked,
        headed,
        worded: headed,
    };
    match &settings.protocol {
        Protocol::KServe {
            endpoint: KServeEndpoint::Infer(tensors),
            ..
        } => {
            let body = timeout_at(ends_by, response.whole(ANSWER_BYTES_MAX))
                .await
                .map_err(|_| too_slow(engine, "answer", settings.total_within))?
                .map_err(|(is_limit, _)| match is_limit {
                    true => too_long(engine),
                    false => UpstreamError::BrokeOff {
                        url: url(),
                        message: "the connection broke".to_owned(),
                    },
                })?;
            let text = kserve::answer(&body, &tensors.output)
                .map_err(|what| UpstreamError::Nonsense { url: url(), what })?;
            speech.next = Some(text);
        }
        protocol => {
            let reader = match protocol {
                Protocol::OpenAi => Reader::OpenAi(openai::Reader::default()),
                Protocol::KServe { endpoint, .. } => Reader::KServe(kserve::Reader::new(endpoint)),
            };
            speech.source = Source::Events {
                events: Box::new(response.events(EVENT_BYTES_MAX)),
                reader,
                is_over: false,
            };
            speech.next = timeout_at(first_by, speech.hear(engine))
                .await
                .map_err(|_| {
                    too_slow(engine, "say its first word", settings.first_token_within)
                })??;
        }
    }
    speech.worded = Instant::now();
    Ok(speech)
}

impl Speech {
    /// The next piece, or the end; `None` after the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Said, UpstreamError>> {
        let engine = Arc::clone(self.turn.as_ref()?.engine());
        if let Some(text) = self.next.take() {
            return Some(Ok(Said::Text(text)));
        }
        let heard = match timeout_at(self.ends_by, self.hear(&engine)).await {
            Ok(heard) => heard,
            Err(_) => Err(too_slow(
                &engine,
                "end its answer",
                engine.settings.total_within,
            )),
        };
        let heard = heard.and_then(|text| match text {
            Some(text) => Ok(Said::Text(text)),
            None => self.done(),
        });
        match (
            &heard,
            self.turn.take_if(|_| !matches!(heard, Ok(Said::Text(_)))),
        ) {
            (Ok(Said::Done { .. }), Some(turn)) => turn.ended(),
            (Err(error), Some(turn)) => turn.failed(error),
            _ => {}
        }
        Some(heard)
    }

    /// The next text; `None` at the end of the stream.
    async fn hear(&mut self, engine: &Arc<Engine>) -> Result<Option<String>, UpstreamError> {
        let url = || engine.url.to_string();
        let Source::Events {
            events,
            reader,
            is_over,
        } = &mut self.source
        else {
            return Ok(None);
        };
        while !*is_over {
            let data = events.next().await.map_err(|error| match error {
                EventsError::Broken(message) => UpstreamError::BrokeOff {
                    url: url(),
                    message,
                },
                error @ (EventsError::TooLong { .. } | EventsError::NotText) => {
                    UpstreamError::Nonsense {
                        url: url(),
                        what: error.to_string(),
                    }
                }
            })?;
            let Some(data) = data else {
                *is_over = true;
                break;
            };
            match reader.read(&data) {
                Ok(Heard::Nothing) => {}
                Ok(Heard::End) => *is_over = true,
                Ok(Heard::Text(text)) => {
                    self.bytes += text.len();
                    if self.bytes > ANSWER_BYTES_MAX {
                        return Err(too_long(engine));
                    }
                    return Ok(Some(text));
                }
                Err(ReadError::Engine(message)) => {
                    return Err(UpstreamError::Failing {
                        url: url(),
                        message,
                    });
                }
                Err(ReadError::Nonsense(what)) => {
                    return Err(UpstreamError::Nonsense { url: url(), what });
                }
            }
        }
        // The body ended. Whether the answer did, the events have said, where the protocol has a word for it.
        let is_complete = match reader {
            Reader::OpenAi(_) => reader.told().finish.is_some(),
            Reader::KServe(_) => true,
        };
        match is_complete {
            true => Ok(None),
            false => Err(UpstreamError::BrokeOff {
                url: url(),
                message: "the stream ended without a finish reason".to_owned(),
            }),
        }
    }

    fn done(&self) -> Result<Said, UpstreamError> {
        let told = match &self.source {
            Source::Events { reader, .. } => *reader.told(),
            Source::Whole => Default::default(),
        };
        Ok(Said::Done {
            finish: told.finish.unwrap_or(Finish::EndOfTurn),
            usage: told.usage,
            timings: ChatTimings {
                queue: self.headed - self.asked,
                encode: Duration::ZERO,
                prefill: self.worded - self.headed,
                decode: self.worded.elapsed(),
            },
        })
    }
}

/// What a status that is no success means.
async fn refusal(engine: &Arc<Engine>, response: Response, by: Instant) -> UpstreamError {
    let (status, retry_after) = (response.status, response.retry_after);
    let url = engine.url.to_string();
    match status {
        401 | 403 => return UpstreamError::Credentials { url, status },
        408 | 425 | 429 | 503 | 529 => {
            return UpstreamError::Overloaded {
                url,
                status,
                retry_after,
            };
        }
        300..=399 => {
            return UpstreamError::Nonsense {
                url,
                what: format!(
                    "a redirection (HTTP {status}); put the address where it leads into url"
                ),
            };
        }
        _ => {}
    }
    let body = match timeout_at(by, response.whole(ERROR_BYTES_MAX)).await {
        Ok(Ok(body)) | Ok(Err((_, body))) => body,
        Err(_) => Vec::new(),
    };
    let message = explanation(&body);
    match status {
        404 => UpstreamError::NoModel {
            url,
            model: engine.settings.model.clone(),
            message,
        },
        400..=499 => UpstreamError::Refused {
            url,
            status,
            message,
        },
        500..=599 => UpstreamError::Failing {
            url,
            message: format!("HTTP {status}: {message}"),
        },
        _ => UpstreamError::Nonsense {
            url,
            what: format!("HTTP {status}"),
        },
    }
}

/// What an engine says of an error: OpenAI's object, KServe's string, FastAPI's `detail`, or the beginning of whatever it is.
fn explanation(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let Ok(json) = serde_json::from_str::<Value>(&text) else {
        return excerpt(&text);
    };
    let member = ["error", "detail", "message"]
        .into_iter()
        .find_map(|name| json.get(name));
    match member {
        Some(error) => openai::message_of(error),
        None => excerpt(&text),
    }
}

fn too_slow(engine: &Engine, what: &'static str, within: Duration) -> UpstreamError {
    UpstreamError::TooSlow {
        url: engine.url.to_string(),
        what,
        within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
    }
}

fn too_long(engine: &Engine) -> UpstreamError {
    UpstreamError::Nonsense {
        url: engine.url.to_string(),
        what: format!("an answer of more than {ANSWER_BYTES_MAX} bytes"),
    }
}
