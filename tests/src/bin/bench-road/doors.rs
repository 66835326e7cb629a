//! The box's doors as their users see them: round trips at the client, over connections that stay open.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use autoglm_edge::control::dbus::client::ManagerProxy;
use autoglm_edge::control::dbus::value;
use autoglm_edge::understanding::{Call, Operation};
use autoglm_tests::edge_box::door::Said;
use autoglm_tests::edge_box::{EdgeBox, PATIENCE};
use autoglm_tests::fleet::Operator;
use serde_json::{Value, json};
use zbus::Variant;
use zbus::fdo::PeerProxy;

/// Clients at each door.
pub(crate) struct Doors {
    manager: ManagerProxy<'static>,
    peer: PeerProxy<'static>,
    operator: Operator,
    commands: u64,
}

impl Doors {
    pub(crate) async fn open(edge_box: &EdgeBox) -> Result<Self> {
        let manager = edge_box.manager().await?;
        let connection = manager.inner().connection();
        let peer = PeerProxy::builder(connection)
            .destination(manager.inner().destination().to_owned())
            .path("/")
            .build()
            .await?;
        let mut operator = Operator::connect(edge_box.broker_port(), "test-box").await?;
        operator.presence().await?;
        Ok(Self {
            manager,
            peer,
            operator,
            commands: 0,
        })
    }

    /// Says something; the time is that until the last event is read.
    pub(crate) async fn say(&self, session: &str, text: &str) -> Result<(Said, Duration)> {
        let begun = Instant::now();
        let pipe = self.manager.say(session, text, HashMap::new()).await?;
        let pipe: OwnedFd = pipe.into();
        let said = tokio::task::spawn_blocking(move || {
            let lines = BufReader::new(File::from(pipe)).lines();
            let events = lines.map(|line| Ok(serde_json::from_str(&line?)?));
            anyhow::Ok(Said {
                events: events.collect::<Result<Vec<Value>>>()?,
            })
        });
        let said = said.await??;
        let took = begun.elapsed();
        ensure!(said.end()["event"] == "done", "{text:?}: {}", said.end());
        Ok((said, took))
    }

    /// The same call over D-Bus.
    pub(crate) async fn invoke(&self, call: &Call) -> Result<Duration> {
        let (thing, begun) = (call.thing.as_str(), Instant::now());
        match &call.operation {
            Operation::Invoke { action, input } => {
                let input = input
                    .as_ref()
                    .map(|input| ("input", value::from_json(input)));
                let options: HashMap<&str, Variant<'_>> = input.into_iter().collect();
                self.manager.invoke(thing, action, options).await?;
            }
            Operation::Read { property } => {
                self.manager.read(thing, property, HashMap::new()).await?;
            }
            Operation::Write { property, value } => {
                let value = value::from_json(value);
                let options = HashMap::new();
                self.manager.write(thing, property, &value, options).await?;
            }
        }
        Ok(begun.elapsed())
    }

    /// These calls at once over MQTT, at quality 1 both ways; the time is that until the last reply.
    pub(crate) async fn publish(&mut self, calls: &[&Call]) -> Result<Duration> {
        let payloads = calls.iter().map(|call| payload(call).to_string());
        let payloads: Vec<String> = payloads.collect();
        let first = self.commands;
        self.commands += calls.len() as u64;
        let ids: Vec<String> = (first..self.commands)
            .map(|number| format!("bench-{number}"))
            .collect();
        let begun = Instant::now();
        for (id, payload) in ids.iter().zip(&payloads) {
            self.operator.publish(id, payload.as_bytes()).await?;
        }
        for id in &ids {
            let reply = self.operator.reply_to(id, PATIENCE).await?;
            ensure!(reply["status"] == "SUCCEEDED", "over MQTT: {reply}");
        }
        Ok(begun.elapsed())
    }

    /// The floor of D-Bus: the daemon's bus connection answers by itself.
    pub(crate) async fn ping(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.peer.ping().await.context("the daemon's connection")?;
        Ok(begun.elapsed())
    }
}

/// A call as a fleet command.
fn payload(call: &Call) -> Value {
    let mut payload = match &call.operation {
        Operation::Invoke { action, input } => json!({"action": action, "input": input}),
        Operation::Read { property } => json!({"read": property}),
        Operation::Write { property, value } => {
            json!({"write": {"property": property, "value": value}})
        }
    };
    payload["thing"] = json!(call.thing);
    payload
}
