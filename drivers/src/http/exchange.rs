//! One request over a connection of its own, up to the head of the response; the rest is read as it is asked for.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::access::{Access, Loaded};
use super::error::HttpError;
use super::events::Events;

/// Most bytes of a response's head, and of what is read ahead of its reader.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Most headers of a response.
const HEADERS_MAX: usize = 64;
/// Longest `Retry-After` that is believed: a day.
const RETRY_AFTER_S_MAX: u64 = 86_400;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path below the server's base, with a slash at its beginning.
    pub path: String,
    /// JSON to post; `None` gets.
    pub json: Option<String>,
    /// What kind of answer is wanted, as a media type.
    pub accept: &'static str,
}

/// The head of a response, and its body yet to be read. Dropping it closes the connection.
#[derive(Debug)]
pub struct Response {
    /// HTTP status, 100 to 599.
    pub status: u16,
    /// The body's media type, without parameters, in lower case; empty when it was not said.
    pub media_type: String,
    /// How long the server wants to be left alone, at most a day; only the form in seconds is read.
    pub retry_after: Option<Duration>,
    body: Incoming,
    /// Moves the bytes; ends with this.
    connection: AbortOnDropHandle<()>,
}

/// Sends a request and waits for the head of its response: for the connection with its TLS up to `connect_within`, and until `answered_by`
/// for the rest.
///
/// # Errors
/// [`HttpError`]
pub async fn send(
    access: &Access,
    request: Request,
    connect_within: Duration,
    answered_by: Instant,
) -> Result<Response, HttpError> {
    let begun = Instant::now();
    let server = || access.base.to_string();
    let slow = |what, within| HttpError::Slow {
        server: server(),
        what,
        within,
    };
    let loading = access.clone();
    let loaded = tokio::task::spawn_blocking(move || loading.load());
    let Loaded { tls, key } = loaded.await.map_err(|error| HttpError::Broken {
        server: server(),
        message: error.to_string(),
    })??;
    let connecting = async {
        let unreachable = |source| HttpError::Unreachable {
            server: server(),
            source,
        };
        let tcp = TcpStream::connect((access.base.host(), access.base.port()))
            .await
            .map_err(unreachable)?;
        // The request is one write; what waits for it is a person.
        let _ = tcp.set_nodelay(true);
        let Some(tls) = tls else {
            return handshake(access, tcp).await;
        };
        let name = ServerName::try_from(access.base.host().to_owned()).map_err(|error| {
            HttpError::Tls {
                server: server(),
                message: error.to_string(),
            }
        })?;
        let stream = TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .map_err(|source| HttpError::of_tls(server(), source))?;
        handshake(access, stream).await
    };
    let (mut sender, connection) = timeout_at(begun + connect_within, connecting)
        .await
        .map_err(|_| slow("accept a connection", connect_within))??;

    let path = format!("{}{}", access.base.prefix(), request.path);
    let mut builder = hyper::Request::builder()
        .method(match request.json {
            Some(_) => "POST",
            None => "GET",
        })
        .uri(path)
        .header(HOST, access.base.authority())
        .header(USER_AGENT, "autoglm-edge")
        .header(ACCEPT, request.accept);
    if request.json.is_some() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    if let Some(key) = key {
        builder = builder.header(AUTHORIZATION, key);
    }
    let body = Full::new(Bytes::from(request.json.unwrap_or_default()));
    let message = builder.body(body).map_err(|error| HttpError::Broken {
        server: server(),
        message: error.to_string(),
    })?;
    let head = timeout_at(answered_by, sender.send_request(message))
        .await
        .map_err(|_| {
            slow(
                "begin to answer",
                answered_by.saturating_duration_since(begun),
            )
        })?
        .map_err(|error| HttpError::of_hyper(server(), &error))?;
    let (parts, body) = head.into_parts();
    Ok(Response {
        status: parts.status.as_u16(),
        media_type: media_type(&parts.headers),
        retry_after: retry_after(&parts.headers),
        body,
        connection,
    })
}

type Sender = http1::SendRequest<Full<Bytes>>;

async fn handshake<S>(
    access: &Access,
    stream: S,
) -> Result<(Sender, AbortOnDropHandle<()>), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| HttpError::of_hyper(access.base.to_string(), &error))?;
    let moving = tokio::spawn(async move {
        // What goes wrong here is told to whoever waits for the response or reads its body.
        let _ = connection.await;
    });
    Ok((sender, AbortOnDropHandle::new(moving)))
}

impl Response {
    /// Whether the request was carried out.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as a stream of events, each of `event_bytes_max` at most.
    #[must_use]
    pub fn events(self, event_bytes_max: usize) -> Events {
        Events::new(self.body, self.connection, event_bytes_max)
    }

    /// The whole body, of which at most `bytes_max` are taken; `Err` for a longer one, with its beginning.
    ///
    /// # Errors
    /// What was read until the limit or the connection's end: the flag says whether it was the limit.
    pub async fn whole(mut self, bytes_max: usize) -> Result<Vec<u8>, (bool, Vec<u8>)> {
        let mut whole = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let Ok(frame) = frame else {
                return Err((false, whole));
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if whole.len() + data.len() > bytes_max {
                whole.extend_from_slice(&data[..bytes_max - whole.len()]);
                return Err((true, whole));
            }
            whole.extend_from_slice(data);
        }
        Ok(whole)
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media_type = value.unwrap_or_default().split(';').next();
    media_type.unwrap_or_default().trim().to_ascii_lowercase()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = value.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_S_MAX)))
}
