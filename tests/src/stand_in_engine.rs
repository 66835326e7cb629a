//! A stand-in for an inference engine elsewhere: it listens on a real socket, reads real HTTP and answers word for word what the test tells
//! it to, also what no engine should ever say. It computes nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::pki::Signed;

/// What the engine does next with a connection. After the last it closes it.
#[derive(Debug, Clone)]
pub enum Act {
    /// These bytes, in one write.
    Send(Vec<u8>),
    /// Nothing for so long.
    Pause(Duration),
    /// Nothing until the other end closes the connection, which is then counted.
    Hang,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Request line and headers.
    pub head: String,
    /// The JSON that was posted.
    pub body: Value,
}

impl Seen {
    /// The path that was asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// What the engine did so far.
#[derive(Debug, Default)]
struct Account {
    seen: Vec<Seen>,
    hung_up: usize,
    sent: usize,
    script: Vec<Act>,
}

/// The engine. Dropped, it is gone with all its connections.
#[derive(Debug)]
pub struct StandInEngine {
    address: SocketAddr,
    account: Arc<Mutex<Account>>,
    _listening: AbortOnDropHandle<()>,
}

impl StandInEngine {
    /// On a free port, doing the same for every request.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(script: Vec<Act>) -> anyhow::Result<Self> {
        Self::listen(0, None, script).await
    }

    /// On a port of before.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start_at(port: u16, script: Vec<Act>) -> anyhow::Result<Self> {
        Self::listen(port, None, script).await
    }

    /// With TLS.
    ///
    /// # Errors
    /// When it cannot listen, or the files are no good.
    pub async fn start_tls(signed: &Signed, script: Vec<Act>) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(&signed.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&signed.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>()?, key)?;
        Self::listen(0, Some(TlsAcceptor::from(Arc::new(config))), script).await
    }

    async fn listen(port: u16, tls: Option<TlsAcceptor>, script: Vec<Act>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .context("the stand-in engine's port")?;
        let address = listener.local_addr()?;
        let account = Arc::new(Mutex::new(Account {
            script,
            ..Account::default()
        }));
        let shared = Arc::clone(&account);
        let listening = tokio::spawn(async move {
            // Connections end with the engine.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, account) = (tls.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    match tls {
                        None => serve(tcp, &account).await,
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => serve(stream, &account).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Ok(Self {
            address,
            account,
            _listening: AbortOnDropHandle::new(listening),
        })
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address for the configuration.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it does from the next request on.
    pub fn now_does(&self, script: Vec<Act>) {
        self.lock().script = script;
    }

    /// The requests that came, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// How many of its hung connections the other end has closed.
    #[must_use]
    pub fn hung_up(&self) -> usize {
        self.lock().hung_up
    }

    /// How many bytes of its answers the way to the other end has taken.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.lock().sent
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection; `None` when it broke.
async fn serve<S>(mut stream: S, account: &Mutex<Account>) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut seen = Seen {
        head: String::from_utf8_lossy(&bytes[..head_end]).into_owned(),
        body: Value::Null,
    };
    let length: usize = seen
        .header("content-length")
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    seen.body = serde_json::from_slice(&bytes[head_end..]).unwrap_or_default();
    let script = {
        let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
        account.seen.push(seen);
        account.script.clone()
    };
    for act in script {
        match act {
            Act::Send(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                stream.flush().await.ok()?;
                account.lock().unwrap_or_else(PoisonError::into_inner).sent += bytes.len();
            }
            Act::Pause(time) => tokio::time::sleep(time).await,
            Act::Hang => {
                let mut rest = [0; 64];
                while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
                let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
                account.hung_up += 1;
            }
        }
    }
    let _ = stream.shutdown().await;
    Some(())
}

/// The head of a response whose body comes in chunks.
#[must_use]
pub fn head(status: &str, headers: &[&str]) -> Act {
    let mut text = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Act::Send(text.into_bytes())
}

/// The head of a stream of events.
#[must_use]
pub fn stream_head() -> Act {
    head(
        "200 OK",
        &["Content-Type: text/event-stream; charset=utf-8"],
    )
}

/// One chunk of a body.
#[must_use]
pub fn chunk(bytes: &[u8]) -> Act {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    Act::Send(framed)
}

/// The last chunk.
#[must_use]
pub fn body_end() -> Act {
    Act::Send(b"0\r\n\r\n".to_vec())
}

/// One event.
#[must_use]
pub fn event(data: &str) -> Act {
    chunk(format!("data: {data}\n\n").as_bytes())
}

/// A piece of an answer as OpenAI's API streams it.
#[must_use]
pub fn piece(text: &str) -> Act {
    event(
        &json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
            .to_string(),
    )
}

/// The end of an answer as OpenAI's API streams it.
#[must_use]
pub fn finish(reason: &str) -> Vec<Act> {
    vec![
        event(
            &json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}).to_string(),
        ),
        event(
            &json!({"choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 2}})
                .to_string(),
        ),
        event("[DONE]"),
        body_end(),
    ]
}

/// A whole answer as OpenAI's API streams it.
#[must_use]
pub fn answer(pieces: &[&str]) -> Vec<Act> {
    let mut acts = vec![stream_head()];
    acts.extend(pieces.iter().map(|text| piece(text)));
    acts.extend(finish("stop"));
    acts
}

/// A refusal with a JSON body.
#[must_use]
pub fn refusal(status: &str, headers: &[&str], body: &Value) -> Vec<Act> {
    let mut all = vec!["Content-Type: application/json"];
    all.extend(headers);
    vec![
        head(status, &all),
        chunk(body.to_string().as_bytes()),
        body_end(),
    ]
}
