//! A message to the broker and back to its sender, at quality 1 both ways.

use std::time::Duration;

use anyhow::Context as _;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::mpsc;

const TOPIC: &str = "floor/echo";
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that listens to itself.
#[derive(Debug)]
pub struct BrokerEcho {
    client: AsyncClient,
    back: mpsc::Receiver<()>,
}

impl BrokerEcho {
    /// Connects to the broker on loopback and subscribes.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn connect(port: u16) -> anyhow::Result<Self> {
        let mut options = MqttOptions::new("floor", "127.0.0.1", port);
        // A message follows the acknowledgement of the last: Nagle's algorithm would hold it back.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, 16);
        client.subscribe(TOPIC, QoS::AtLeastOnce).await?;
        let (up, back) = mpsc::channel(16);
        let (subscribed, is_subscribed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut subscribed = Some(subscribed);
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => {
                        let _ = subscribed.take().map(|subscribed| subscribed.send(()));
                    }
                    Event::Incoming(Packet::Publish(_)) if up.send(()).await.is_err() => return,
                    _ => {}
                }
            }
        });
        let subscribed = tokio::time::timeout(PATIENCE, is_subscribed).await;
        subscribed.context("the broker does not answer")??;
        Ok(Self { client, back })
    }

    /// Publishes so many bytes and waits until they are back.
    ///
    /// # Errors
    /// When they do not come back.
    pub async fn round_trip(&mut self, bytes: usize) -> anyhow::Result<()> {
        let payload = vec![b'x'; bytes];
        self.client
            .publish(TOPIC, QoS::AtLeastOnce, false, payload)
            .await?;
        let back = tokio::time::timeout(PATIENCE, self.back.recv()).await;
        back.context("nothing came back")?
            .context("the client ended")
    }
}
