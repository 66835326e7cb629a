//! What links have in common when they are opened: a broker, later a radio.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use autoglm_drivers::link::{Link, LinkAddress, LinkError, Opener};
use autoglm_drivers::mqtt::Broker;
use tokio::sync::Semaphore;

use super::policy::opening_at_once;

/// How many links may be opened at a time, by what they have in common. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Adapters(Arc<Mutex<BTreeMap<Broker, Arc<Semaphore>>>>);

impl Adapters {
    /// Opens a link when its adapter has room for it.
    pub(super) async fn open(
        self,
        opener: Opener,
        address: LinkAddress,
    ) -> Result<Link, LinkError> {
        let limit = self.limit(&address);
        let _permit = match &limit {
            Some(limit) => limit.acquire().await.ok(),
            None => None,
        };
        opener.open(&address).await
    }

    fn limit(&self, address: &LinkAddress) -> Option<Arc<Semaphore>> {
        let at_once = opening_at_once(address.class())?;
        match address {
            LinkAddress::Serial { .. } | LinkAddress::Ble(_) => None,
            LinkAddress::Mqtt { broker, .. } => {
                let mut limits = self.0.lock().unwrap_or_else(|broken| broken.into_inner());
                let limit = limits.entry(broker.clone());
                Some(Arc::clone(
                    limit.or_insert_with(|| Arc::new(Semaphore::new(at_once))),
                ))
            }
        }
    }
}
