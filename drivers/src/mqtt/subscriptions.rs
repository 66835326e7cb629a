//! The topic filters that are wanted beside those of the configuration, and how far the present connection has them.
//!
//! The owner task follows the wanted set whenever it changed, and anew on each connection. A filter that the broker refuses is left out: unlike
//! those of the configuration, none of these is what the connection is for.

use std::collections::{BTreeSet, VecDeque};

use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, SubscribeReasonCode};

/// Topic filters in one SUBSCRIBE packet. Chosen to stay far below the packet sizes that brokers take.
const FILTERS_AT_ONCE: usize = 32;

/// What one connection has subscribed to at its owner's wish.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    made: BTreeSet<String>,
    /// One entry for each SUBSCRIBE that is not answered. Brokers answer in order; one that does not costs a wrong name in a log line.
    unanswered: VecDeque<Vec<String>>,
}

impl Subscriptions {
    /// Brings the broker's idea of what we want up to date; what does not fit into rumqttc's queue follows at the next call.
    pub(super) fn follow(&mut self, wanted: &BTreeSet<String>, client: &AsyncClient) {
        let new: Vec<String> = wanted.difference(&self.made).cloned().collect();
        for some in new.chunks(FILTERS_AT_ONCE) {
            let filters = some
                .iter()
                .map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce));
            if client.try_subscribe_many(filters).is_err() {
                return;
            }
            self.made.extend(some.iter().cloned());
            self.unanswered.push_back(some.to_vec());
        }
        let old: Vec<String> = self.made.difference(wanted).cloned().collect();
        for filter in old {
            if client.try_unsubscribe(filter.as_str()).is_err() {
                return;
            }
            self.made.remove(&filter);
        }
    }

    /// Takes the answer to the oldest SUBSCRIBE, and names the filters that the broker refuses.
    pub(super) fn on_answer(&mut self, codes: &[SubscribeReasonCode]) -> Vec<String> {
        let asked = self.unanswered.pop_front().unwrap_or_default();
        let refused = asked
            .into_iter()
            .zip(codes)
            .filter(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)));
        refused.map(|(filter, _)| filter).collect()
    }
}
