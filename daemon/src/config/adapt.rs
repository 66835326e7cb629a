//! `[inference.adapt]`: from when on the box is under strain, and what is done about it.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::validate::{ConfigError, Reject};

/// The table as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAdapt {
    /// Whether anybody looks. Default: yes.
    pub enabled: bool,
    /// CPU pressure (of the machine, or on the service) in percent from which on the box is eased. Default 40: two of five seconds somebody waits.
    pub cpu_eased: u64,
    /// And strained. Default 75.
    pub cpu_strained: u64,
    /// Memory pressure in percent from which on the box is eased. Default 10: who waits for memory waits for a disk.
    pub memory_eased: u64,
    /// And strained. Default 30.
    pub memory_strained: u64,
    /// Degrees Celsius from which on a thermal zone without a passive or hot trip point is warm, 0 for never. Default 0: nobody knows what is hot for it.
    pub temperature_c: u64,
    /// How many times as long as at the model's best a token takes when the box counts as eased. Default 2.
    pub slower_eased: u64,
    /// And strained. Default 4.
    pub slower_strained: u64,
    /// Seconds that it must last before the level rises. Default 10.
    pub rise_s: u64,
    /// Seconds of less before it falls, at first. Default 60; doubled while it does not last.
    pub dwell_s: u64,
    /// And at most. Default 900.
    pub dwell_max_s: u64,
    /// Threads of the chat model while eased, 0 for half of what it has, rounded up.
    pub eased_threads: usize,
    /// And while strained. Default 1.
    pub strained_threads: usize,
    /// The bundle that converses in place of `inference.chat` while strained. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smaller_chat: Option<String>,
}

impl Default for RawAdapt {
    fn default() -> Self {
        Self {
            enabled: true,
            cpu_eased: 40,
            cpu_strained: 75,
            memory_eased: 10,
            memory_strained: 30,
            temperature_c: 0,
            slower_eased: 2,
            slower_strained: 4,
            rise_s: 10,
            dwell_s: 60,
            dwell_max_s: 900,
            eased_threads: 0,
            strained_threads: 1,
            smaller_chat: None,
        }
    }
}

/// What is looked for, and what is done, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptSettings {
    /// CPU pressure in percent from which on the box is eased, and strained.
    pub cpu_percent: [f64; 2],
    /// Memory pressure, the same.
    pub memory_percent: [f64; 2],
    /// Degrees Celsius from which on a zone without a limit of its own is warm.
    pub zone_c: Option<f64>,
    /// How many times as long as at its best a token takes, the same.
    pub slower_times: [f64; 2],
    /// How long strain must last.
    pub rise: Duration,
    /// How long calm must last at first.
    pub dwell: Duration,
    /// And at most.
    pub dwell_max: Duration,
    /// Threads of the chat model while eased; `None` for half.
    pub eased_threads: Option<NonZeroUsize>,
    /// And while strained.
    pub strained_threads: Option<NonZeroUsize>,
    /// The bundle that converses while strained.
    pub smaller_chat: Option<String>,
}

/// The check; `None` where nobody is to look. `chat` is the bundle that converses otherwise.
pub(super) fn validate(
    reject: &Reject<'_>,
    raw: &RawAdapt,
    chat: &str,
) -> Result<Option<AdaptSettings>, ConfigError> {
    let within = |key: &str, value, min, max| {
        let key = format!("inference.adapt.{key}");
        reject.within(&key, value, min, max)
    };
    let percent = |key: &str, value, min| within(key, value, min, 100).map(|it| it as f64);
    let seconds = |key: &str, value, min| within(key, value, min, 86_400).map(Duration::from_secs);
    let threads = |key: &str, value: usize, min| {
        within(key, value as u64, min, 256).map(|_| NonZeroUsize::new(value))
    };
    if let Some(smaller) = &raw.smaller_chat {
        let key = "inference.adapt.smaller_chat";
        let allowed =
            "must be the name of a bundle's directory, and another one than inference.chat";
        let is_path =
            smaller.is_empty() || smaller.contains(['/', '\\']) || smaller.starts_with('.');
        if is_path || smaller == chat {
            return Err(reject.value(key, smaller, allowed));
        }
    }
    let settings = AdaptSettings {
        cpu_percent: [
            percent("cpu_eased", raw.cpu_eased, 1)?,
            percent("cpu_strained", raw.cpu_strained, raw.cpu_eased)?,
        ],
        memory_percent: [
            percent("memory_eased", raw.memory_eased, 1)?,
            percent("memory_strained", raw.memory_strained, raw.memory_eased)?,
        ],
        zone_c: Some(within("temperature_c", raw.temperature_c, 0, 150)? as f64)
            .filter(|limit| *limit > 0.0),
        slower_times: [
            within("slower_eased", raw.slower_eased, 2, 1000)? as f64,
            within(
                "slower_strained",
                raw.slower_strained,
                raw.slower_eased,
                1000,
            )? as f64,
        ],
        rise: seconds("rise_s", raw.rise_s, 1)?,
        dwell: seconds("dwell_s", raw.dwell_s, 10)?,
        dwell_max: seconds("dwell_max_s", raw.dwell_max_s, raw.dwell_s)?,
        eased_threads: threads("eased_threads", raw.eased_threads, 0)?,
        strained_threads: threads("strained_threads", raw.strained_threads, 1)?,
        smaller_chat: raw.smaller_chat.clone(),
    };
    Ok(raw.enabled.then_some(settings))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn refusal(text: &str) -> String {
        let text = format!("[inference.adapt]\n{text}\n");
        let read = Config::from_text(&text, Path::new("config.toml"));
        read.expect_err("it is refused").to_string()
    }

    #[test]
    fn limits_that_contradict_each_other_are_named() {
        for (text, key) in [
            ("cpu_eased = 80", "inference.adapt.cpu_strained"),
            ("cpu_eased = 0", "inference.adapt.cpu_eased"),
            ("memory_strained = 101", "inference.adapt.memory_strained"),
            ("dwell_s = 1000", "inference.adapt.dwell_max_s"),
            ("strained_threads = 0", "inference.adapt.strained_threads"),
            ("smaller_chat = \"../x\"", "inference.adapt.smaller_chat"),
            (
                "smaller_chat = \"smollm2-135m-instruct-int4\"",
                "inference.adapt.smaller_chat",
            ),
            ("enable = false", "enable"),
        ] {
            let message = refusal(text);
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn it_is_on_unless_switched_off() {
        let adapt = |text: &str| {
            let read = Config::from_text(text, Path::new("config.toml"));
            read.unwrap().inference.adapt
        };
        assert_eq!(adapt("").unwrap().cpu_percent, [40.0, 75.0]);
        assert_eq!(adapt("[inference.adapt]\nenabled = false\n"), None);
    }
}
