//! Why an engine elsewhere did not answer, by blame, each with what to do about it.

use std::time::Duration;

use autoglm_drivers::http::HttpError;
use thiserror::Error;

use super::breaker::Severity;

/// Why there is no (more) answer from elsewhere. The texts never hold the key.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// Our own certificates or key.
    #[error("our files for the engine at {url} cannot be used: {source}")]
    OurFiles {
        /// Where the engine is.
        url: String,
        /// Which file, and why.
        source: Box<HttpError>,
    },
    /// The request needs something that cannot be asked for elsewhere.
    #[error("{what} cannot be asked of an engine elsewhere")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// The template that makes one text of the conversation is no good.
    #[error("the template for the engine cannot be used: {message}; mend kserve.template")]
    Template {
        /// What is wrong with it.
        message: String,
    },
    /// Nobody there, or the way there is broken.
    #[error("{source}; is the engine running, and the address right?")]
    Unreachable {
        /// What was seen.
        source: Box<HttpError>,
    },
    /// It does not accept us.
    #[error("the engine at {url} refused our key (HTTP {status}); put a valid one into key_file")]
    Credentials {
        /// Where the engine is.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// It does not have the model, or not this interface.
    #[error(
        "the engine at {url} has no model {model:?}, or not this interface (HTTP 404): {message}"
    )]
    NoModel {
        /// Where the engine is.
        url: String,
        /// The name that was asked for.
        model: String,
        /// What it said.
        message: String,
    },
    /// It has too much to do.
    #[error("the engine at {url} is overloaded (HTTP {status})")]
    Overloaded {
        /// Where the engine is.
        url: String,
        /// HTTP status.
        status: u16,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It does not take this request.
    #[error("the engine at {url} refused the request (HTTP {status}): {message}")]
    Refused {
        /// Where the engine is.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It failed on its own account.
    #[error("the engine at {url} failed: {message}; its own log says more")]
    Failing {
        /// Where the engine is.
        url: String,
        /// What it said, with its HTTP status where there was one.
        message: String,
    },
    /// It took too long.
    #[error("the engine at {url} did not {what} within {within_ms} ms")]
    TooSlow {
        /// Where the engine is.
        url: String,
        /// What it should have done.
        what: &'static str,
        /// The time it had.
        within_ms: u64,
    },
    /// The connection ended before the answer did.
    #[error("the answer of the engine at {url} broke off: {message}")]
    BrokeOff {
        /// Where the engine is.
        url: String,
        /// What was seen.
        message: String,
    },
    /// What it says makes no sense.
    #[error(
        "the engine at {url} said what cannot be understood: {what}; is it the protocol in the configuration?"
    )]
    Nonsense {
        /// Where the engine is.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// It is left alone after failures.
    #[error("the engine at {url} is left alone for {} ms more, because: {cause}", rest.as_millis())]
    Resting {
        /// Where the engine is.
        url: String,
        /// Until when; zero while one request tries.
        rest: Duration,
        /// The last failure.
        cause: String,
    },
    /// Enough answers come from there already.
    #[error("{limit} answers come from the engine at {url} already (answers_max)")]
    Busy {
        /// Where the engine is.
        url: String,
        /// The limit.
        limit: usize,
    },
}

impl UpstreamError {
    pub(super) fn of_http(url: String, source: HttpError) -> Self {
        match source {
            HttpError::Access(_) => Self::OurFiles {
                url,
                source: Box::new(source),
            },
            HttpError::Slow {
                what: what @ "begin to answer",
                within,
                ..
            } => Self::TooSlow {
                url,
                what,
                within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            },
            HttpError::NoHttp { message, .. } => Self::Nonsense { url, what: message },
            source => Self::Unreachable {
                source: Box::new(source),
            },
        }
    }

    /// What it says about the next request; `None` when it says nothing about the engine.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        let certain = Severity::Certain {
            at_least: Duration::ZERO,
        };
        match self {
            Self::Unsupported { .. }
            | Self::Template { .. }
            | Self::Refused { .. }
            | Self::Resting { .. }
            | Self::Busy { .. } => None,
            Self::OurFiles { .. } | Self::Credentials { .. } | Self::NoModel { .. } => {
                Some(certain)
            }
            Self::Overloaded { retry_after, .. } => Some(match retry_after {
                Some(wish) => Severity::Certain { at_least: *wish },
                None => Severity::Perhaps,
            }),
            Self::Unreachable { .. }
            | Self::Failing { .. }
            | Self::TooSlow { .. }
            | Self::BrokeOff { .. }
            | Self::Nonsense { .. } => Some(Severity::Perhaps),
        }
    }
}
