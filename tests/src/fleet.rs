//! A fleet operator on MQTT 5, written with the same client library as the daemon but none of its code: the other side of the fleet door.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::edge_box::PATIENCE;

/// The operator of one box.
#[derive(Debug)]
pub struct Operator {
    client: AsyncClient,
    messages: mpsc::UnboundedReceiver<(String, Option<String>, Value)>,
    replies: HashMap<String, Value>,
    presence: Option<Value>,
    base: String,
    reply_topic: String,
}

impl Operator {
    /// Connects and subscribes to the box's presence and to an answer topic of its own.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn connect(port: u16, box_id: &str) -> anyhow::Result<Self> {
        let name = format!("operator-{:08x}", rand::random::<u32>());
        let mut options = MqttOptions::new(&name, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(10));
        options.set_max_packet_size(Some(1 << 20));
        // A command follows the acknowledgement of the last reply: Nagle's algorithm would hold it back.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, 64);
        let base = format!("autoglm/{box_id}");
        let reply_topic = format!("operators/{name}");
        client
            .subscribe(format!("{base}/presence"), QoS::AtLeastOnce)
            .await?;
        client.subscribe(&reply_topic, QoS::AtLeastOnce).await?;
        let (up, messages) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        let correlation = publish
                            .properties
                            .and_then(|properties| properties.correlation_data);
                        let correlation =
                            correlation.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                        let payload =
                            serde_json::from_slice(&publish.payload).unwrap_or(Value::Null);
                        if up.send((topic, correlation, payload)).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) if up.is_closed() => return,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(Self {
            client,
            messages,
            replies: HashMap::new(),
            presence: None,
            base,
            reply_topic,
        })
    }

    async fn next(&mut self, patience: Duration) -> anyhow::Result<()> {
        let (topic, correlation, payload) = tokio::time::timeout(patience, self.messages.recv())
            .await
            .context("no message from the box")?
            .context("the operator's task ended")?;
        if topic.ends_with("/presence") {
            self.presence = Some(payload);
        } else {
            self.replies
                .insert(correlation.unwrap_or_default(), payload);
        }
        Ok(())
    }

    /// The box's presence, as it was last told.
    ///
    /// # Errors
    /// When none comes.
    pub async fn presence(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(presence) = &self.presence {
                return Ok(presence.clone());
            }
            self.next(PATIENCE).await?;
        }
    }

    /// Takes the box's retained presence from the broker, so that the next one is a new one.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn forget_presence(&mut self) -> anyhow::Result<()> {
        self.client
            .publish(
                format!("{}/presence", self.base),
                QoS::AtLeastOnce,
                true,
                Vec::new(),
            )
            .await?;
        // The empty message comes back to us, too, and reads as null; what comes after it is news.
        while self.presence != Some(Value::Null) {
            self.next(PATIENCE).await?;
        }
        self.presence = None;
        Ok(())
    }

    /// Publishes a command.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn publish(&self, id: &str, payload: &[u8]) -> anyhow::Result<()> {
        let properties = PublishProperties {
            response_topic: Some(self.reply_topic.clone()),
            correlation_data: Some(id.as_bytes().to_vec().into()),
            ..PublishProperties::default()
        };
        let topic = format!("{}/command", self.base);
        Ok(self
            .client
            .publish_with_properties(topic, QoS::AtLeastOnce, false, payload.to_vec(), properties)
            .await?)
    }

    /// Publishes a command that names itself in its payload and asks for its answer nowhere: it goes to the box's result topic.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn publish_without_reply(&self, payload: &[u8]) -> anyhow::Result<()> {
        let topic = format!("{}/command", self.base);
        Ok(self
            .client
            .publish(topic, QoS::AtLeastOnce, false, payload.to_vec())
            .await?)
    }

    /// Waits for the reply to a command.
    ///
    /// # Errors
    /// When none comes.
    pub async fn reply_to(&mut self, id: &str, patience: Duration) -> anyhow::Result<Value> {
        loop {
            if let Some(reply) = self.replies.remove(id) {
                return Ok(reply);
            }
            self.next(patience).await?;
        }
    }

    /// Publishes a command and waits for its reply.
    ///
    /// # Errors
    /// As the two parts.
    pub async fn command(&mut self, id: &str, payload: &[u8]) -> anyhow::Result<Value> {
        self.publish(id, payload).await?;
        self.reply_to(id, PATIENCE).await
    }
}
