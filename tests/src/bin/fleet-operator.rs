//! A fleet operator as its own process, for the lab: `fleet-operator --port 1883 --box edge --thing urn:...` sends one command after the
//! other until its stdin ends, and says on stdout, in lines of JSON, what it asked and what was answered.
//!
//! It never gives a command up: without an answer it asks again with the same id, which a box must answer without doing it again. Each
//! command sets the lamp to the next of 97 levels, so that the device's own notes can be held against these lines.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use clap::Parser;
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Levels of the lamp that are gone through. A prime, so that a pattern in time is none in levels.
const LEVELS: u64 = 97;
/// The broker keeps our answers for so long while we are away, in seconds.
const SESSION_EXPIRY_S: u32 = 3600;
/// Pause before a broker that is away is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Sends commands over the fleet door, one after the other.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Host of the broker.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the broker.
    #[arg(long)]
    port: u16,
    /// Name of the box.
    #[arg(long = "box")]
    box_id: String,
    /// Id of the lamp.
    #[arg(long)]
    thing: String,
    /// First part of the commands' ids; the rest is their number.
    #[arg(long)]
    run: String,
    /// Number of the first command.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Milliseconds between an answer and the next command.
    #[arg(long, default_value_t = 50)]
    pause_ms: u64,
    /// Milliseconds without an answer after which a command is asked again.
    #[arg(long, default_value_t = 3000)]
    again_ms: u64,
    /// Ids of commands to ask once more instead, with their levels: `ID=LEVEL,ID=LEVEL`. Ends after the last.
    #[arg(long, value_delimiter = ',')]
    repeat: Vec<String>,
}

#[derive(Debug)]
struct Operator {
    client: AsyncClient,
    answers: mpsc::UnboundedReceiver<(String, Value)>,
    command_topic: String,
    answer_topic: String,
    again: Duration,
    thing: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut operator = Operator::start(&arguments);
    let pause = Duration::from_millis(arguments.pause_ms);
    if !arguments.repeat.is_empty() {
        for pair in &arguments.repeat {
            let (id, level) = pair
                .split_once('=')
                .ok_or_else(|| anyhow::anyhow!("{pair} is not ID=LEVEL"))?;
            operator.command(id, level.parse()?).await?;
            tokio::time::sleep(pause).await;
        }
        return Ok(());
    }
    let (ended, mut end) = mpsc::channel::<()>(1);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    for number in arguments.first.. {
        let id = format!("{}-{number}", arguments.run);
        operator.command(&id, 1 + number % LEVELS).await?;
        // The wait ends early only when stdin ends, since nothing is ever sent.
        if timeout(pause, end.recv()).await.is_ok() {
            break;
        }
    }
    Ok(())
}

impl Operator {
    fn start(arguments: &Arguments) -> Self {
        let name = format!("operator-{}", arguments.run);
        let mut options = MqttOptions::new(&name, &arguments.host, arguments.port);
        options.set_keep_alive(Duration::from_secs(5));
        options.set_clean_start(false);
        options.set_connect_properties(ConnectProperties {
            session_expiry_interval: Some(SESSION_EXPIRY_S),
            max_packet_size: Some(1 << 20),
            ..ConnectProperties::default()
        });
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, 64);
        let answer_topic = format!("operators/{name}");
        let (up, answers) = mpsc::unbounded_channel();
        let (subscriber, topic) = (client.clone(), answer_topic.clone());
        tokio::spawn(async move {
            loop {
                match events.poll().await {
                    // A broker that was restarted may have forgotten us.
                    Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                        if !ack.session_present
                            && let Err(error) = subscriber.try_subscribe(&topic, QoS::AtLeastOnce)
                        {
                            eprintln!("cannot subscribe: {error}");
                        }
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let id = publish
                            .properties
                            .and_then(|properties| properties.correlation_data)
                            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                        let answer = serde_json::from_slice(&publish.payload);
                        if let (Some(id), Ok(answer)) = (id, answer)
                            && up.send((id, answer)).is_err()
                        {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        eprintln!("broker: {error}");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        });
        Self {
            client,
            answers,
            command_topic: format!("autoglm/{}/command", arguments.box_id),
            answer_topic,
            again: Duration::from_millis(arguments.again_ms),
            thing: arguments.thing.clone(),
        }
    }

    /// Asks until it is answered.
    async fn command(&mut self, id: &str, level: u64) -> anyhow::Result<()> {
        say(&json!({"sent": id, "level": level}))?;
        let payload =
            json!({"thing": self.thing, "action": "set_brightness", "input": {"level": level}});
        let mut asked = 0;
        loop {
            asked += 1;
            let properties = PublishProperties {
                response_topic: Some(self.answer_topic.clone()),
                correlation_data: Some(id.as_bytes().to_vec().into()),
                ..PublishProperties::default()
            };
            // A full queue means that the broker is away: the next turn asks again.
            let _ = self.client.try_publish_with_properties(
                &self.command_topic,
                QoS::AtLeastOnce,
                false,
                payload.to_string(),
                properties,
            );
            let answer = timeout(self.again, async {
                while let Some((answered, answer)) = self.answers.recv().await {
                    if answered == id {
                        return Some(answer);
                    }
                }
                None
            });
            if let Ok(Some(answer)) = answer.await {
                let error = &answer["error"];
                // Somebody else runs it at this moment, or the store is away: that is no end.
                if error != "Running" && error != "StoreUnavailable" {
                    return say(&json!({
                        "answered": id, "level": level, "asked": asked,
                        "status": answer["status"], "error": error, "message": answer["message"],
                    }));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// One line at once, so that who reads it can take the time of its coming.
fn say(line: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
