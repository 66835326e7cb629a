//! Other people's devices behind a broker, as their projects document them: an MQTT client that publishes what they publish and answers
//! what they answer. Written with the same client library as the daemon but none of its code.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::task::JoinHandle;

/// What an appliance publishes: topic, payload, whether the broker keeps it.
pub type Published = (String, String, bool);

/// Appliances on one connection. Gone when dropped.
#[derive(Debug)]
pub struct Appliances {
    client: AsyncClient,
    serving: JoinHandle<()>,
}

impl Drop for Appliances {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Appliances {
    /// Connects, in the background; each message on `filter` is answered with what `answer` makes of topic and payload.
    #[must_use]
    pub fn connect(
        port: u16,
        filter: &str,
        mut answer: impl FnMut(&str, &str) -> Vec<Published> + Send + 'static,
    ) -> Self {
        let name = format!("appliances-{:08x}", rand::random::<u32>());
        let mut options = MqttOptions::new(&name, "127.0.0.1", port);
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::new(options, 256);
        let (answers, filter) = (client.clone(), filter.to_owned());
        let serving = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                        for (topic, payload, retain) in answer(&topic, &payload) {
                            // Most appliances publish at QoS 0.
                            let _ = answers.try_publish(topic, QoS::AtMostOnce, retain, payload);
                        }
                    }
                    // After each connection: the client library does not subscribe again by itself.
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let _ = answers.try_subscribe(filter.as_str(), QoS::AtLeastOnce);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Self { client, serving }
    }

    /// Publishes by itself.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn publish(&self, topic: &str, payload: &str, retain: bool) -> anyhow::Result<()> {
        let payload = payload.to_owned();
        Ok(self
            .client
            .publish(topic, QoS::AtLeastOnce, retain, payload)
            .await?)
    }
}
