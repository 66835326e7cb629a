//! Sends each conversation where its policy says, and tells where that was.

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::{
    super::{
        InferenceHandle,
        chat::{ChatEvent, ChatRequest},
        error::InferenceError,
    },
    ask::{Said, Speech, ask},
    bundled::Bundled,
    engine::{Engine, UpstreamStatus},
    error::UpstreamError,
    origin::{Origin, Place},
};
use crate::config::upstream::{UpstreamPolicy, UpstreamSettings};

/// What a dispatcher needs to know.
#[derive(Debug, Clone)]
pub struct DispatcherConfig {
    /// The bundle that converses.
    pub chat: String,
    /// The engine that the configuration names for it.
    pub upstream: Option<UpstreamSettings>,
    /// Directories in which to look for the bundle's own word, if that counts.
    pub bundled_in: Option<Vec<PathBuf>>,
}

/// Sends conversations where they are answered. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    inference: InferenceHandle,
    chat: Arc<str>,
    engine: Option<Arc<Engine>>,
    bundled: Option<Arc<Bundled>>,
}

/// An answer on its way. Dropping it cancels, here within a token and elsewhere by closing the connection.
#[derive(Debug)]
pub struct Answer {
    origin: Origin,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Here {
        /// Read while it was found out whether it would be answered here.
        first: Option<ChatEvent>,
        stream: mpsc::Receiver<ChatEvent>,
    },
    Elsewhere(Box<Speech>),
}

impl Dispatcher {
    /// What the configuration says of the bundle wins over what the bundle says of itself.
    #[must_use]
    pub fn new(inference: InferenceHandle, config: DispatcherConfig) -> Self {
        let chat: Arc<str> = config.chat.into();
        let engine = config
            .upstream
            .map(|settings| Arc::new(Engine::new(settings)));
        let bundled = config
            .bundled_in
            .filter(|_| engine.is_none())
            .map(|dirs| Arc::new(Bundled::new(Arc::clone(&chat), dirs)));
        Self {
            inference,
            chat,
            engine,
            bundled,
        }
    }

    /// How the engine elsewhere stands, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<UpstreamStatus> {
        let bundled = || self.bundled.as_ref().and_then(|bundled| bundled.last());
        let engine = self.engine.clone().or_else(bundled)?;
        Some(engine.status(&self.chat, Instant::now()))
    }

    /// Has a conversation answered. Returns when the answer has begun, so that it is known where. Cancel safe: dropped, nothing goes on.
    ///
    /// # Errors
    /// Those of [`ChatHandle::generate`](super::super::chat::ChatHandle::generate); [`InferenceError::Nowhere`] where the engine elsewhere was
    /// asked as well and did not begin, either.
    pub async fn ask(&self, request: ChatRequest) -> Result<Answer, InferenceError> {
        request.check()?;
        let engine = self.engine().await;
        let engine = engine.filter(|it| it.settings.policy != UpstreamPolicy::Never);
        let Some(engine) = engine else {
            return self.here(request, None).await;
        };
        match engine.settings.policy {
            UpstreamPolicy::Always => match ask(&engine, &request).await {
                Ok(speech) => Ok(elsewhere(
                    &engine,
                    speech,
                    "its policy is always".to_owned(),
                )),
                Err(there) => {
                    let reason = there.to_string();
                    tracing::info!(%reason, "answered here instead of elsewhere");
                    self.here(request, Some(reason))
                        .await
                        .map_err(|here| nowhere(here, there))
                }
            },
            UpstreamPolicy::Never | UpstreamPolicy::WhenOverloaded => {
                if let Some(strain) = self.strain() {
                    return match ask(&engine, &request).await {
                        Ok(speech) => Ok(elsewhere(&engine, speech, strain)),
                        Err(there) => {
                            let reason = there.to_string();
                            tracing::info!(%reason, %strain, "answered here instead of elsewhere");
                            self.here(request, Some(reason))
                                .await
                                .map_err(|here| nowhere(here, there))
                        }
                    };
                }
                match self.here(request.clone(), None).await {
                    Err(here @ InferenceError::Overloaded { .. }) => {
                        match ask(&engine, &request).await {
                            Ok(speech) => Ok(elsewhere(&engine, speech, here.to_string())),
                            Err(there) => Err(nowhere(here, there)),
                        }
                    }
                    begun => begun,
                }
            }
        }
    }

    /// Why an answer should be made elsewhere, where that is allowed.
    fn strain(&self) -> Option<String> {
        self.inference.adaptation().borrow().strain()
    }

    async fn engine(&self) -> Option<Arc<Engine>> {
        match (&self.engine, &self.bundled) {
            (Some(engine), _) => Some(Arc::clone(engine)),
            (None, None) => None,
            (None, Some(bundled)) => {
                let bundled = Arc::clone(bundled);
                let looked = tokio::task::spawn_blocking(move || bundled.look());
                looked.await.ok().flatten()
            }
        }
    }

    /// Begins an answer here. What the model refuses after it has taken the request in is an error, too, as long as nothing was said.
    async fn here(
        &self,
        request: ChatRequest,
        reason: Option<String>,
    ) -> Result<Answer, InferenceError> {
        let mut stream = self.inference.chat().generate(request)?;
        let first = match stream.recv().await {
            Some(ChatEvent::Failed(error)) => return Err(error),
            first => first,
        };
        let model = match &first {
            Some(ChatEvent::Started { bundle, .. }) => Arc::clone(bundle),
            _ => Arc::clone(&self.chat),
        };
        // By a smaller bundle: why, is as much of interest as why not elsewhere.
        let reason = match (reason, model == self.chat) {
            (reason, true) => reason,
            (reason, false) => {
                let strain = self
                    .strain()
                    .unwrap_or_else(|| "the box was strained".to_owned());
                Some(reason.map_or(strain.clone(), |reason| format!("{strain}; {reason}")))
            }
        };
        Ok(Answer {
            origin: Origin {
                place: Place::Here,
                model,
                reason,
            },
            source: Source::Here { first, stream },
        })
    }
}

fn elsewhere(engine: &Engine, speech: Speech, reason: String) -> Answer {
    Answer {
        origin: Origin {
            place: Place::Upstream {
                url: Arc::clone(&engine.url),
            },
            model: Arc::clone(&engine.model),
            reason: Some(reason),
        },
        source: Source::Elsewhere(Box::new(speech)),
    }
}

fn nowhere(here: InferenceError, there: UpstreamError) -> InferenceError {
    InferenceError::Nowhere {
        here: Box::new(here),
        there: Box::new(there),
    }
}

impl Answer {
    /// Where it is made, and why there.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What happens next, as a stream of [`ChatHandle::generate`](super::super::chat::ChatHandle::generate) has it; from elsewhere without `Started`.
    pub async fn next(&mut self) -> Option<ChatEvent> {
        match &mut self.source {
            Source::Here { first, stream } => match first.take() {
                Some(event) => Some(event),
                None => stream.recv().await,
            },
            Source::Elsewhere(speech) => Some(match speech.next().await? {
                Ok(Said::Text(text)) => ChatEvent::Delta(text),
                Ok(Said::Done {
                    finish,
                    usage,
                    timings,
                }) => ChatEvent::Done {
                    tokens: usage.answer_tokens,
                    usage,
                    finish,
                    timings,
                },
                Err(error) => ChatEvent::Failed(InferenceError::Upstream {
                    source: Box::new(error),
                }),
            }),
        }
    }
}
