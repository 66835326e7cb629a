//! What links have in common when they are opened: a broker, later a radio.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use autoglm_drivers::link::{Link, LinkAddress, LinkError, Opener};
use autoglm_drivers::mqtt::Broker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
        let _permit = self.admit(&address).await;
        opener.open(&address).await
    }

    /// Waits for a place among those that are opening by the same adapter; it is given back when dropped.
    async fn admit(&self, address: &LinkAddress) -> Option<OwnedSemaphorePermit> {
        // Nobody closes the semaphore.
        self.limit(address)?.acquire_owned().await.ok()
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

#[cfg(test)]
mod tests {
    use autoglm_drivers::link::LinkClass;
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_broker_has_only_so_many_links_opening_and_others_do_not_wait_for_it() {
        let adapters = Adapters::default();
        let device = |broker: &str, number: usize| -> LinkAddress {
            format!("mqtt://{broker}/{number}").parse().unwrap()
        };
        let at_once = opening_at_once(LinkClass::Mqtt).unwrap();
        let mut opening = Vec::new();
        for number in 0..at_once {
            opening.push(adapters.admit(&device("one", number)).await.unwrap());
        }
        let one_more = device("one", at_once);
        let waits = adapters.admit(&one_more).now_or_never();
        assert!(waits.is_none(), "more than {at_once} were admitted");
        let other = adapters.admit(&device("two", 0)).now_or_never();
        assert!(other.flatten().is_some());
        let line = "serial:///dev/x".parse().unwrap();
        assert!(adapters.admit(&line).await.is_none(), "lines have no limit");
        opening.pop();
        assert!(adapters.admit(&one_more).now_or_never().flatten().is_some());
    }
}
