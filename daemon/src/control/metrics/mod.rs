//! The door for Prometheus: `GET /metrics` on a port of loopback, in the OpenMetrics text format 1.0.
//!
//! Open only where `[metrics]` names an address. It reads snapshots, as every observer does, so that a scrape never waits for
//! an owner, and it takes nothing in. Nobody is asked who he is: what is told are names of devices and models and numbers, never what was
//! said, and it is told to this machine alone. [`families`] has what is told; see there for the names.

mod families;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use self::families::Snapshots;
use crate::status::StatusSource;

/// Scrapes at a time; more wait in the kernel's queue.
const SCRAPES: usize = 4;
/// Who asks has so long for everything.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so long it is tried again to get the port that somebody else has.
const RETRY: Duration = Duration::from_secs(5);
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until it is cancelled. A port that somebody else has is said once, and tried again.
pub async fn serve(address: SocketAddr, status: StatusSource, cancel: CancellationToken) {
    let mut registry = Registry::with_prefix("autoglm");
    registry.register_collector(Box::new(Snapshots(status)));
    let registry = Arc::new(registry);
    let places = Arc::new(Semaphore::new(SCRAPES));
    let Some(listener) = cancel.run_until_cancelled(bind(address)).await else {
        return;
    };
    tracing::info!(%address, "numbers for Prometheus are served");
    let accept = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: whoever holds them gives them back.
                    tracing::debug!(%error, "a scrape was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (registry, cancel) = (Arc::clone(&registry), cancel.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| answer(request, &registry));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                match cancel
                    .run_until_cancelled(timeout(PATIENCE, connection))
                    .await
                {
                    Some(Ok(Ok(()))) | None => {}
                    Some(Ok(Err(error))) => tracing::debug!(%error, "a scrape broke off"),
                    Some(Err(_)) => tracing::debug!("a scrape took too long"),
                }
                drop(place);
            });
        }
    };
    cancel.run_until_cancelled(accept).await;
}

async fn bind(address: SocketAddr) -> TcpListener {
    let mut is_said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if !is_said => {
                is_said = true;
                tracing::error!(%address, %error, "metrics.listen cannot be had; it is tried again every 5 s");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    registry: &Registry,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let said = |status, text: &str| {
        let mut response = Response::new(Full::from(text.to_owned()));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return Ok(said(StatusCode::NOT_FOUND, "there is only /metrics here\n"));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = said(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return Ok(response);
    }
    let mut text = String::new();
    if let Err(error) = encode(&mut text, registry) {
        tracing::warn!(%error, "numbers cannot be written");
        return Ok(said(StatusCode::INTERNAL_SERVER_ERROR, "see the log\n"));
    }
    let mut response = said(StatusCode::OK, &text);
    let kind = HeaderValue::from_static(TEXT);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}
