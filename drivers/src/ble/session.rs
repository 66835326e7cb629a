//! The two connections to the system bus: ours, watched across its restarts, and btleplug's session.

use std::time::Duration;

use btleplug::api::{Central as _, Manager as _};
use btleplug::platform::{Adapter, Manager};
use tokio::sync::mpsc;

use super::bluez::{Bluez, Presence};
use crate::backoff::Backoff;

/// What BlueZ told, on its way to the radio's task; more wait.
pub(super) const PRESENCES: usize = 16;
/// The most that taking a session or finding an adapter in it may take.
const SESSION: Duration = Duration::from_secs(5);
/// How the bus is tried again: it is there on every box that works, so the pauses are short.
const BUS: Backoff = Backoff {
    min: Duration::from_millis(500),
    max: Duration::from_secs(30),
    healthy_after: Duration::from_secs(60),
};

/// What the connection to the bus tells.
#[derive(Debug)]
pub(super) enum News {
    Bus(Bluez),
    /// In order; the first tells of bluetoothd and all its adapters.
    Presences(Vec<Presence>),
    BusLost,
}

/// An adapter's handle, or why there is none.
pub(super) type Opened = (String, Result<(Manager, Adapter), String>);

/// Watches the bus for ever, across its restarts.
pub(super) async fn keep_watching(news: mpsc::Sender<News>) {
    let mut attempt = 0;
    loop {
        let began = tokio::time::Instant::now();
        let error = watch_once(&news).await.err();
        if news.send(News::BusLost).await.is_err() {
            return;
        }
        // The first time is worth a word; the system bus is there on every box that works.
        if attempt == 0 {
            tracing::warn!(
                error = error.map(|error| error.to_string()),
                "no system bus: BLE links wait for it"
            );
        }
        attempt = BUS.attempt_after(attempt, began.elapsed());
        tokio::time::sleep(BUS.delay(attempt, rand::random())).await;
    }
}

async fn watch_once(news: &mpsc::Sender<News>) -> zbus::Result<()> {
    let bluez = Bluez::connect().await?;
    let (presences, mut told) = mpsc::channel(PRESENCES);
    if news.send(News::Bus(bluez.clone())).await.is_err() {
        return Ok(());
    }
    let pass_on = async {
        while let Some(presences) = told.recv().await {
            if news.send(News::Presences(presences)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        result = bluez.watch(&presences) => result,
        () = pass_on => Ok(()),
    }
}

/// Takes an adapter's handle, in a session that is made if there is none.
pub(super) async fn open(
    name: &str,
    session: Option<Manager>,
) -> Result<(Manager, Adapter), String> {
    let opening = async {
        let session = match session {
            Some(session) => session,
            None => {
                // libdbus connects with blocking calls.
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(Manager::new()))
                    .await
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?
            }
        };
        for adapter in session
            .adapters()
            .await
            .map_err(|error| error.to_string())?
        {
            let info = adapter.adapter_info().await.unwrap_or_default();
            if info.split(' ').next() == Some(name) {
                return Ok((session, adapter));
            }
        }
        Err("BlueZ does not list it".to_owned())
    };
    tokio::time::timeout(SESSION, opening)
        .await
        .unwrap_or_else(|_| Err("BlueZ does not answer".to_owned()))
}
