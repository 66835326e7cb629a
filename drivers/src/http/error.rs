//! What can go wrong between us and a server, up to the head of its response.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use crate::mqtt::AccessError;

/// Why there is no response. Each names the server and what to look at.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Our own files cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Nobody knows the name, or nobody listens there.
    #[error("{server} cannot be reached: {source}")]
    Unreachable {
        /// The server's address.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{server} did not {what} within {} ms", within.as_millis())]
    Slow {
        /// The server's address.
        server: String,
        /// What it should have done.
        what: &'static str,
        /// The time it had.
        within: Duration,
    },
    /// No trust, or no TLS at its end.
    #[error(
        "{server} cannot be trusted: {message}; is it the right address, and is its authority known here (ca)?"
    )]
    Tls {
        /// The server's address.
        server: String,
        /// What is wrong.
        message: String,
    },
    /// The connection broke.
    #[error("the connection to {server} broke: {message}")]
    Broken {
        /// The server's address.
        server: String,
        /// What was seen.
        message: String,
    },
    /// What came is no HTTP.
    #[error("{server} does not speak HTTP/1.1: {message}")]
    NoHttp {
        /// The server's address.
        server: String,
        /// What was seen.
        message: String,
    },
}

impl HttpError {
    /// What TLS said while it was set up: a check that failed is another thing than a broken connection.
    pub(super) fn of_tls(server: String, source: io::Error) -> Self {
        let inner = source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(error) => Self::Tls {
                server,
                message: error.to_string(),
            },
            None => Self::Broken {
                server,
                message: source.to_string(),
            },
        }
    }

    pub(super) fn of_hyper(server: String, source: &hyper::Error) -> Self {
        let message = describe(source);
        match source.is_parse() {
            true => Self::NoHttp { server, message },
            false => Self::Broken { server, message },
        }
    }
}

/// The library's error with its cause, on one line.
pub(super) fn describe(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
