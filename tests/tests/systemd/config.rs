//! The example configuration, as the daemon reads it.

use std::path::Path;

use autoglm_edge::config::{Config, RawConfig};
use toml::Value;

use crate::tool::shipped;

/// Keys whose example is no default, because they have none that could be written down.
const WITHOUT_DEFAULT: [&str; 6] = [
    "box.id",
    "foreign.things",
    "inference.adapt.smaller_chat",
    "inference.runtime",
    "metrics.listen",
    "understanding.wording",
];

/// Lists of tables, of which there are none by default.
const TABLES: [&str; 4] = ["broker", "device", "foreign.modbus", "foreign.mqtt"];
/// What these begin is not there by default.
const OPTIONAL: [&str; 4] = [
    "fleet.",
    "foreign.ble.",
    "inference.providers.",
    "inference.upstream.",
];

fn example() -> String {
    std::fs::read_to_string(shipped().join("config.example.toml")).unwrap()
}

/// All settings in use: `#key` and `#[table]` lose their `#`, prose (`# text`) stays a comment.
fn with_every_setting() -> String {
    let is_setting =
        |rest: &str| rest.starts_with(|first: char| first.is_ascii_alphabetic() || first == '[');
    example()
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| is_setting(rest))
                .unwrap_or(line)
                .to_owned()
                + "\n"
        })
        .collect()
}

/// Every `table.key` with its value.
fn settings(value: &Value, path: &str, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                settings(value, &path, into);
            }
        }
        other => into.push((path.to_owned(), other.clone())),
    }
}

fn list(value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    settings(value, "", &mut found);
    found
}

#[test]
fn the_example_as_shipped_is_the_defaults() {
    let path = Path::new("config.example.toml");
    let shipped = Config::from_text(&example(), path).unwrap();
    let defaults = Config::from_text("", path).unwrap();
    assert_eq!(format!("{shipped:?}"), format!("{defaults:?}"));
}

#[test]
fn the_example_with_every_setting_in_use_is_accepted() {
    let config =
        Config::from_text(&with_every_setting(), Path::new("config.example.toml")).unwrap();
    assert_eq!(config.devices.len(), 1);
    assert_eq!(
        (config.foreign.modbus.len(), config.foreign.mqtt.len()),
        (1, 1)
    );
    assert!(config.fleet.is_some());
}

#[test]
fn the_example_names_every_key_and_its_true_default() {
    let text = with_every_setting();
    let written: Value = toml::from_str(&text).unwrap();
    let raw: RawConfig = toml::from_str(&text).unwrap();
    // Keys that the example leaves out come back here with their defaults.
    let understood = Value::try_from(&raw).unwrap();
    assert_eq!(
        list(&written),
        list(&understood),
        "left: written in the example, right: known to the daemon"
    );

    let defaults = list(&Value::try_from(RawConfig::default()).unwrap());
    let written = list(&written);
    for (key, value) in &defaults {
        if !TABLES.contains(&key.as_str()) {
            assert!(
                written.contains(&(key.clone(), value.clone())),
                "the default of {key} is {value}"
            );
        }
    }
    for (key, _) in &written {
        let is_table_without_default =
            OPTIONAL.iter().any(|begin| key.starts_with(begin)) || TABLES.contains(&key.as_str());
        assert!(
            is_table_without_default
                || WITHOUT_DEFAULT.contains(&key.as_str())
                || defaults.iter().any(|(name, _)| name == key),
            "{key} has no default: say so"
        );
    }
}
