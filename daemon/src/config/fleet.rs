//! From `[fleet]` to checked values: the broker and how it is spoken to, and the quotas of the outbox.

use std::path::PathBuf;
use std::time::Duration;

use autoglm_drivers::mqtt::{Access, Broker, ClientFiles, Login, TlsFiles, Transport};

use super::raw::{RawFleet, RawLogin, RawOutbox, RawTls};
use super::validate::{ConfigError, Reject};
use super::{Class, FleetConfig, OutboxConfig, Telemetry};

/// How systemd's credentials are named in the file.
const CREDENTIAL: &str = "credential:";
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
        broker: broker(reject, &raw)?,
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

fn broker(reject: &Reject<'_>, raw: &RawFleet) -> Result<Broker, ConfigError> {
    let mut broker: Broker = raw
        .broker
        .parse()
        .map_err(|error| reject.value("fleet.broker", &raw.broker, error))?;
    let transport = match (&broker.access.transport, &raw.tls) {
        (Transport::Tls(_), Some(tls)) => Transport::Tls(tls_files(reject, tls)?),
        (Transport::Tls(_), None) => {
            return Err(reject.value(
                "fleet.broker",
                &raw.broker,
                "needs [fleet.tls] with ca = the file of the authority that signed the broker's certificate",
            ));
        }
        (Transport::Clear, Some(_)) => {
            return Err(reject.value(
                "fleet.broker",
                &raw.broker,
                "is in clear text, but there is [fleet.tls]: write mqtts://, or remove the table",
            ));
        }
        (Transport::Clear, None) if !raw.allow_clear && !broker.is_local() => {
            return Err(reject.value(
                "fleet.broker",
                &raw.broker,
                "is in clear text and not on this machine: everybody on the way could command this box. Write mqtts:// and [fleet.tls], or \
                 allow_clear = true where the network itself is trusted",
            ));
        }
        (Transport::Clear, None) => Transport::Clear,
    };
    broker.access = Box::new(Access {
        transport,
        login: raw
            .login
            .as_ref()
            .map(|login| self::login(reject, login))
            .transpose()?,
        keep_alive: Duration::from_secs(reject.within(
            "fleet.keep_alive_s",
            raw.keep_alive_s,
            5,
            3_600,
        )?),
    });
    Ok(broker)
}

fn tls_files(reject: &Reject<'_>, raw: &RawTls) -> Result<TlsFiles, ConfigError> {
    let client = match (&raw.certificate, &raw.key) {
        (Some(certificate), Some(key)) => Some(ClientFiles {
            certificate: file(reject, "fleet.tls.certificate", certificate)?,
            key: file(reject, "fleet.tls.key", key)?,
        }),
        (None, None) => None,
        (Some(certificate), None) => {
            return Err(reject.value(
                "fleet.tls.certificate",
                certificate,
                "needs its private key in fleet.tls.key",
            ));
        }
        (None, Some(key)) => {
            return Err(reject.value(
                "fleet.tls.key",
                key,
                "needs its certificate in fleet.tls.certificate",
            ));
        }
    };
    Ok(TlsFiles {
        authority: file(reject, "fleet.tls.ca", &raw.ca)?,
        client,
    })
}

fn login(reject: &Reject<'_>, raw: &RawLogin) -> Result<Login, ConfigError> {
    if raw.user.is_empty() || raw.user.len() > 1_024 || raw.user.contains('\0') {
        return Err(reject.value(
            "fleet.login.user",
            &raw.user,
            "must be 1 to 1024 bytes of text",
        ));
    }
    Ok(Login {
        user: raw.user.clone(),
        password_file: file(reject, "fleet.login.password_file", &raw.password_file)?,
    })
}

/// An absolute path, or a credential that systemd has given to the service.
fn file(reject: &Reject<'_>, key: &str, text: &str) -> Result<PathBuf, ConfigError> {
    let Some(name) = text.strip_prefix(CREDENTIAL) else {
        return match text.starts_with('/') {
            true => Ok(PathBuf::from(text)),
            false => Err(reject.value(
                key,
                text,
                "must be an absolute path, or credential:NAME for one of systemd's LoadCredential=",
            )),
        };
    };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(reject.value(key, text, "must be credential: and a name without slashes"));
    }
    // Outside the service there are none; the path then says what is missing.
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map_or_else(
        || PathBuf::from("/run/credentials/autoglm-edged.service"),
        PathBuf::from,
    );
    Ok(directory.join(name))
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
    fn clear_text_leaves_this_machine_only_when_the_file_says_so() {
        assert!(read("broker = \"mqtt://127.0.0.1\"").is_ok());
        let message = read("broker = \"mqtt://broker.example\"").unwrap_err();
        assert!(message.contains("allow_clear"), "{message}");
        assert!(read("broker = \"mqtt://broker.example\"\nallow_clear = true").is_ok());
    }

    #[test]
    fn tls_needs_an_authority_and_a_certificate_needs_its_key() {
        let message = read("broker = \"mqtts://b\"").unwrap_err();
        assert!(message.contains("[fleet.tls]"), "{message}");
        let message = read("broker = \"mqtt://127.0.0.1\"\n[fleet.tls]\nca = \"/ca\"").unwrap_err();
        assert!(message.contains("mqtts://"), "{message}");
        let tls = "broker = \"mqtts://b\"\n[fleet.tls]\nca = \"/ca\"\n";
        let message = read(&format!("{tls}certificate = \"/c\"")).unwrap_err();
        assert!(message.contains("fleet.tls.key"), "{message}");
        let fleet = read(&format!("{tls}certificate = \"/c\"\nkey = \"/k\"")).unwrap();
        let Transport::Tls(files) = fleet.broker.access.transport else {
            panic!("it is TLS")
        };
        assert_eq!(files.authority, Path::new("/ca"));
        assert_eq!(files.client.unwrap().key, Path::new("/k"));
    }

    #[test]
    fn credentials_are_named_without_paths() {
        let login = |file: &str| {
            read(&format!(
                "broker = \"mqtt://127.0.0.1\"\n[fleet.login]\nuser = \"u\"\npassword_file = \"{file}\""
            ))
        };
        let found = login("credential:mqtt")
            .unwrap()
            .broker
            .access
            .login
            .unwrap();
        assert!(found.password_file.ends_with("mqtt"));
        for wrong in ["credential:../x", "credential:", "relative"] {
            assert!(
                login(wrong).unwrap_err().contains("password_file"),
                "{wrong}"
            );
        }
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
