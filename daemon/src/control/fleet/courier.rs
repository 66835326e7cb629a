//! Carries what waits in the outbox to the broker: the most urgent first, a window at a time, and forgets only what the broker has
//! acknowledged.
//!
//! Nothing is handed to the connection while it is down: there it could neither expire nor be replaced by something newer. When the
//! broker refuses a message, its lane rests, and the other lanes go on.

use std::time::{Duration, Instant, SystemTime};

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::mqtt::{
    BrokerState, Client, Publication, PublishError, PublishOptions, Receipt,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::store::outbox::{Lane, Outbox, Parcel, Place};

/// Messages handed to the connection at a time: four times its own window, so that it does not run dry while the commit is under way that
/// forgets what was acknowledged, and so that one commit forgets many. More would let a result wait behind more events.
const IN_FLIGHT: usize = 32;
/// Pace of looking for expired messages and for lanes that have rested.
const PACE: Duration = Duration::from_secs(1);
/// How long a lane rests after the broker has refused one of its messages.
const REFUSED: Backoff = Backoff {
    min: Duration::from_secs(2),
    max: Duration::from_secs(120),
    healthy_after: Duration::from_secs(120),
};
/// MQTT 5 user property with the message's id, the same each time that it is sent.
pub const MESSAGE_ID: &str = "message-id";

/// The courier, not yet running.
#[derive(Debug)]
pub struct Courier {
    outbox: Outbox,
    client: Client,
    rests: [Rest; 3],
}

/// When a lane that was refused is tried again.
#[derive(Debug, Default, Clone, Copy)]
struct Rest {
    attempt: u32,
    until: Option<Instant>,
}

/// A message under way: resolves to its place and what became of it.
async fn under_way(place: Place, receipt: Receipt) -> (Place, Result<(), PublishError>) {
    (place, receipt.await)
}

impl Courier {
    /// A courier between these two.
    #[must_use]
    pub fn new(outbox: Outbox, client: Client) -> Self {
        Self {
            outbox,
            client,
            rests: Default::default(),
        }
    }

    /// Carries until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut state = self.client.state();
        let mut tick = tokio::time::interval(PACE);
        let mut in_flight = FuturesUnordered::new();
        let mut is_store_well = true;
        loop {
            let room = IN_FLIGHT - in_flight.len();
            if room > 0 && *state.borrow_and_update() == BrokerState::Connected {
                let now = Instant::now();
                let rests = self.rests;
                let is_open =
                    |lane: Lane| rests[lane as usize].until.is_none_or(|until| until <= now);
                match self.outbox.take(room, is_open).await {
                    Ok(parcels) => {
                        is_store_well = true;
                        for parcel in parcels {
                            if let Some((place, receipt)) = self.hand_over(parcel).await {
                                in_flight.push(under_way(place, receipt));
                            }
                        }
                    }
                    Err(error) => say_once(&mut is_store_well, &error),
                }
            }
            let mut acknowledged = Vec::new();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some((place, result)) = in_flight.next() => {
                    let mut next = Some((place, result));
                    // All that has come back since: one commit forgets it all.
                    while let Some((place, result)) = next {
                        if self.on_receipt(place, result).await {
                            acknowledged.push(place);
                        }
                        next = futures_util::FutureExt::now_or_never(in_flight.next()).flatten();
                    }
                }
                _ = tick.tick() => self.expire(&mut is_store_well).await,
                () = self.outbox.arrived() => {}
                changed = state.changed() => if changed.is_err() { return },
            }
            if !acknowledged.is_empty()
                && let Err(error) = self.outbox.clear(&acknowledged).await
            {
                say_once(&mut is_store_well, &error);
            }
        }
    }

    async fn expire(&self, is_store_well: &mut bool) {
        let expired = match self.outbox.load().await {
            Ok(()) => self.outbox.expire(SystemTime::now()).await,
            Err(error) => Err(error),
        };
        match expired {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "messages expired before the broker had them"),
            Err(error) => say_once(is_store_well, &error),
        }
    }

    async fn hand_over(&mut self, parcel: Parcel) -> Option<(Place, Receipt)> {
        let Parcel { place, message } = parcel;
        // A retained state stays until the next one replaces it: with an expiry the broker would forget it.
        let lifetime = message.lifetime.filter(|_| !message.retain);
        let options = PublishOptions {
            expires: lifetime.map(|left| Instant::now() + left),
            properties: vec![(MESSAGE_ID.to_owned(), message.id)],
        };
        let publication = Publication {
            topic: message.topic,
            payload: message.payload.to_string().into_bytes(),
            retain: message.retain,
            correlation: message.correlation,
        };
        match self.client.submit(publication, options) {
            Ok(receipt) => Some((place, receipt)),
            Err(error) => {
                self.on_receipt(place, Err(error)).await;
                None
            }
        }
    }

    /// Whether the message is to be forgotten as delivered.
    async fn on_receipt(&mut self, place: Place, result: Result<(), PublishError>) -> bool {
        let rest = &mut self.rests[place.lane as usize];
        match result {
            Ok(()) => {
                *rest = Rest::default();
                return true;
            }
            // It goes back, and the next look drops and counts it.
            Err(PublishError::Expired | PublishError::Stopped) => self.give_back(place).await,
            Err(error @ (PublishError::Busy | PublishError::Refused(_))) => {
                let now = Instant::now();
                // Several of one lane may be refused at once: that counts as one time.
                if rest.until.is_none_or(|until| until <= now) {
                    let wait = REFUSED.delay(rest.attempt, rand::random());
                    rest.attempt = rest.attempt.saturating_add(1);
                    rest.until = Some(now + wait);
                    tracing::warn!(lane = %place.lane, %error, wait_ms = wait.as_millis() as u64, "message not taken; its kind rests");
                }
                self.give_back(place).await;
            }
            Err(error @ (PublishError::TooLarge { .. } | PublishError::InvalidTopic)) => {
                tracing::error!(lane = %place.lane, %error, "message given up: this broker can never take it");
                if let Err(error) = self.outbox.give_up(place).await {
                    tracing::warn!(%error, "the outbox needs attention");
                }
            }
        }
        false
    }

    async fn give_back(&self, place: Place) {
        if let Err(error) = self.outbox.give_back(place).await {
            tracing::warn!(%error, "the outbox needs attention");
        }
    }
}

fn say_once(is_well: &mut bool, error: &dyn std::error::Error) {
    if std::mem::replace(is_well, false) {
        tracing::error!(%error, "nothing goes to the fleet until the store is back");
    }
}
