//! What is asked of the box's daemon over D-Bus: its status, sentences and actions.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::time::Duration;

use autoglm_edge::control::dbus::client::{ManagerProxy, ModelsProxy};
use autoglm_edge::control::dbus::value;
use serde_json::Value;
use zbus::Variant;

use super::{EdgeBox, PATIENCE};

/// What came of something said.
#[derive(Debug, Clone)]
pub struct Said {
    /// All events, in order.
    pub events: Vec<Value>,
}

impl Said {
    /// The last event: `done` or `failed`.
    #[must_use]
    pub fn end(&self) -> &Value {
        self.events.last().unwrap_or(&Value::Null)
    }

    /// What was answered.
    #[must_use]
    pub fn text(&self) -> &str {
        self.end()["text"]
            .as_str()
            .or_else(|| self.end()["message"].as_str())
            .unwrap_or("")
    }

    /// `command`, `question`, `refusal`, `cancellation`, `conversation`, or the error's name.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.end()["kind"]
            .as_str()
            .or_else(|| self.end()["error"].as_str())
            .unwrap_or("")
    }

    /// The calls that were carried out.
    pub fn executed(&self) -> impl Iterator<Item = &Value> {
        self.events
            .iter()
            .filter(|event| event["event"] == "executed")
    }
}

impl EdgeBox {
    /// The daemon's interface on the bus. One connection per call, so that a restarted bus is no trouble.
    ///
    /// # Errors
    /// When the bus is not there.
    pub async fn manager(&self) -> anyhow::Result<ManagerProxy<'static>> {
        let address: &str = &self.bus_address();
        let connection = zbus::connection::Builder::address(address).build().await?;
        Ok(ManagerProxy::new(&connection).await?)
    }

    /// The same for models.
    ///
    /// # Errors
    /// When the bus is not there.
    pub async fn models(&self) -> anyhow::Result<ModelsProxy<'static>> {
        let address: &str = &self.bus_address();
        let connection = zbus::connection::Builder::address(address).build().await?;
        Ok(ModelsProxy::new(&connection).await?)
    }

    /// The daemon's status.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> anyhow::Result<Value> {
        let status = self.manager().await?.status().await?;
        let mut object = serde_json::Map::new();
        for (key, value) in status {
            object.insert(key, value::to_json(&value)?);
        }
        Ok(Value::Object(object))
    }

    /// Waits until the status is as wanted.
    ///
    /// # Errors
    /// Shows the last status and the log when it never is.
    pub async fn wait_for_status(
        &self,
        what: &str,
        mut is_so: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut last = Value::Null;
        while tokio::time::Instant::now() < until {
            if let Ok(status) = self.status().await {
                if is_so(&status) {
                    return Ok(status);
                }
                last = status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!(
            "waited in vain for {what}; status {last:#}\nlog:\n{}",
            self.log()
        )
    }

    /// Waits until this many things are online and every sentence about them would be understood.
    ///
    /// # Errors
    /// When that does not come to be.
    pub async fn is_understanding(&self, things: u64) -> anyhow::Result<()> {
        self.wait_for_status("things and models", |status| {
            let is_ready = |task: &str| {
                status["models"].as_array().is_some_and(|models| {
                    models
                        .iter()
                        .any(|model| model["task"] == task && model["state"] == "ready")
                })
            };
            let count = &status["things"];
            count["online"] == things
                && count["understood"] == things
                && is_ready("embedding")
                && is_ready("chat")
        })
        .await?;
        Ok(())
    }

    /// Says something and waits for the whole answer.
    ///
    /// # Errors
    /// When the daemon refuses the call or breaks the stream.
    pub async fn say(&self, session: &str, text: &str) -> anyhow::Result<Said> {
        let answer = self.begin_to_say(session, text).await?;
        tokio::task::spawn_blocking(move || {
            let lines = answer.lines();
            let events = lines
                .map(|line| Ok(serde_json::from_str(&line?)?))
                .collect::<anyhow::Result<Vec<Value>>>()?;
            anyhow::ensure!(!events.is_empty(), "the stream broke before its end");
            Ok(Said { events })
        })
        .await?
    }

    /// Says something and returns the answer as it comes: one JSON object a line.
    ///
    /// # Errors
    /// When the daemon refuses the call.
    pub async fn begin_to_say(&self, session: &str, text: &str) -> anyhow::Result<BufReader<File>> {
        let pipe = self
            .manager()
            .await?
            .say(session, text, HashMap::new())
            .await?;
        Ok(BufReader::new(File::from(OwnedFd::from(pipe))))
    }

    /// What was said in a conversation, oldest first, as it is kept.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn turns(&self, session: &str) -> anyhow::Result<Vec<Value>> {
        let turns = self.manager().await?.session_turns(session, 100).await?;
        turns
            .into_iter()
            .map(|turn| {
                let members = turn
                    .into_iter()
                    .map(|(key, value)| Ok((key, value::to_json(&value)?)));
                Ok(Value::Object(members.collect::<anyhow::Result<_>>()?))
            })
            .collect()
    }

    /// Invokes an action over D-Bus.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn invoke(
        &self,
        thing: &str,
        action: &str,
        input: Option<&Value>,
    ) -> Result<Value, zbus::Error> {
        let mut options: HashMap<&str, Variant<'_>> = HashMap::new();
        if let Some(input) = input {
            options.insert("input", value::from_json(input));
        }
        let manager = self
            .manager()
            .await
            .map_err(|error| zbus::Error::Failure(error.to_string()))?;
        let result = manager.invoke(thing, action, options).await?;
        let members = result
            .into_iter()
            .filter_map(|(key, value)| Some((key, value::to_json(&value).ok()?)));
        Ok(Value::Object(members.collect()))
    }
}
