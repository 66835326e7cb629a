//! From `[fleet]` to checked values: the broker's topics, and the quotas of the outbox. How the broker is spoken to is checked by
//! [`super::access`].

use std::time::Duration;

use super::access::Written;
use super::raw::{RawFleet, RawOutbox};
use super::validate::{ConfigError, Reject};
use super::{Class, FleetConfig, OutboxConfig, Telemetry};

/// Together the classes must fit the store's tree for them (16 MiB and 40,000 records).
const KIB_MAX_TOGETHER: u64 = 15 * 1024;
const ENTRIES_MAX_TOGETHER: u64 = 39_000;
/// Longest lifetime of a message in seconds.
const YEAR_S: u64 = 365 * 86_400;

pub(super) fn fleet(reject: &Reject<'_>, raw: RawFleet) -> Result<FleetConfig, ConfigError> {
    if raw.topic_root.is_empty()
        || raw.topic_root.contains(['+', '#', '\0'])
        || raw.topic_root.starts_with('$')
    {
        return Err(reject.value(
            "fleet.topic_root",
            raw.topic_root,
            "must be a topic without wildcards",
        ));
    }
    Ok(FleetConfig {
        broker: Written {
            table: "fleet",
            key: "broker",
            broker: &raw.broker,
            allow_clear: raw.allow_clear,
            keep_alive_s: raw.keep_alive_s,
            tls: raw.tls.as_ref(),
            login: raw.login.as_ref(),
        }
        .broker(reject)?,
        topic_root: raw.topic_root.trim_matches('/').to_owned(),
        session_expiry: Duration::from_secs(reject.within(
            "fleet.session_expiry_s",
            raw.session_expiry_s,
            60,
            u64::from(u32::MAX) - 1,
        )?),
        outbox: outbox(reject, &raw.outbox)?,
    })
}

fn outbox(reject: &Reject<'_>, raw: &RawOutbox) -> Result<OutboxConfig, ConfigError> {
    let telemetry = match raw.telemetry.as_str() {
        "latest" => Telemetry::Latest,
        "every" => Telemetry::Every,
        "off" => Telemetry::Off,
        other => {
            return Err(reject.value(
                "fleet.outbox.telemetry",
                other,
                "must be \"latest\", \"every\" or \"off\"",
            ));
        }
    };
    let class = |name: &str, one: &str, entries: u64, kib: u64, lifetime_s: u64| {
        let key = |part: &str| format!("fleet.outbox.{name}{part}");
        let lifetime = format!("fleet.outbox.{one}_lifetime_s");
        Ok(Class {
            entries_max: reject.within(&key("_max"), entries, 16, ENTRIES_MAX_TOGETHER)?,
            bytes_max: 1024 * reject.within(&key("_kib_max"), kib, 64, KIB_MAX_TOGETHER)?,
            lifetime: Duration::from_secs(reject.within(&lifetime, lifetime_s, 1, YEAR_S)?),
        })
    };
    let results = class(
        "results",
        "result",
        raw.results_max,
        raw.results_kib_max,
        raw.result_lifetime_s,
    )?;
    let events = class(
        "events",
        "event",
        raw.events_max,
        raw.events_kib_max,
        raw.event_lifetime_s,
    )?;
    let telemetry_class = class(
        "telemetry",
        "telemetry",
        raw.telemetry_max,
        raw.telemetry_kib_max,
        raw.telemetry_lifetime_s,
    )?;
    let classes = [results, events, telemetry_class];
    let kib: u64 = classes.iter().map(|class| class.bytes_max / 1024).sum();
    if kib > KIB_MAX_TOGETHER {
        return Err(reject.value(
            "fleet.outbox.*_kib_max",
            kib,
            format!("must be {KIB_MAX_TOGETHER} at most, all classes together"),
        ));
    }
    let entries: u64 = classes.iter().map(|class| class.entries_max).sum();
    if entries > ENTRIES_MAX_TOGETHER {
        return Err(reject.value(
            "fleet.outbox.*_max",
            entries,
            format!("must be {ENTRIES_MAX_TOGETHER} at most, all classes together"),
        ));
    }
    Ok(OutboxConfig {
        telemetry,
        results,
        events,
        telemetry_class,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn read(fleet: &str) -> Result<FleetConfig, String> {
        let text = format!("[fleet]\n{fleet}");
        Config::from_text(&text, Path::new("config.toml"))
            .map(|config| config.fleet.unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn quotas_must_fit_the_store_together() {
        let outbox = |line: &str| {
            read(&format!(
                "broker = \"mqtt://127.0.0.1\"\n[fleet.outbox]\n{line}"
            ))
        };
        assert!(outbox("").is_ok());
        for (line, culprit) in [
            ("telemetry = \"all\"", "fleet.outbox.telemetry"),
            ("events_max = 1", "fleet.outbox.events_max"),
            ("events_kib_max = 15000", "fleet.outbox.*_kib_max"),
            ("telemetry_max = 30000", "fleet.outbox.*_max"),
            ("result_lifetime_s = 0", "fleet.outbox.result_lifetime_s"),
        ] {
            let message = outbox(line).unwrap_err();
            assert!(message.contains(culprit), "{message}");
        }
    }
}
