//! The devices of a configuration, checked: names, links, and how each connection is protected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use autoglm_drivers::link::{LinkAddress, LinkClass, LinkId};
use autoglm_drivers::mqtt::{Broker, Transport};

use super::access::Written;
use super::key::{KeySource, from_hex};
use super::raw::{RawBroker, RawDevice, RawKey};
use super::validate::{ConfigError, Reject, absolute, name};
use super::{DeviceConfig, LinkConfig, Protection};

/// The longest time that a connection may be kept, in seconds. A device remembers its latest requests only.
const RESUME_S_MAX: u64 = 3600;

/// The brokers by which devices are reached, as far as more is to be said of one than its address.
pub(super) fn brokers(reject: &Reject<'_>, raw: &[RawBroker]) -> Result<Vec<Broker>, ConfigError> {
    let mut brokers: Vec<Broker> = Vec::new();
    for raw in raw {
        let broker = Written {
            table: "broker",
            key: "address",
            broker: &raw.address,
            allow_clear: raw.allow_clear,
            keep_alive_s: raw.keep_alive_s,
            tls: raw.tls.as_ref(),
            login: raw.login.as_ref(),
        }
        .broker(reject)?;
        if brokers.iter().any(|known| is_same(known, &broker)) {
            let why = "stands twice; one [[broker]] serves all devices that are reached by it";
            return Err(reject.value("broker.address", &raw.address, why));
        }
        brokers.push(broker);
    }
    Ok(brokers)
}

/// Whether both are one address: host, port, and TLS or not.
fn is_same(one: &Broker, other: &Broker) -> bool {
    one.to_string() == other.to_string()
}

pub(super) fn devices(
    reject: &Reject<'_>,
    raw: Vec<RawDevice>,
    brokers: &[Broker],
) -> Result<Vec<DeviceConfig>, ConfigError> {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    raw.into_iter()
        .map(|raw| {
            let device = name(reject, "device.name", raw.name.clone())?;
            if !names.insert(device.clone()) {
                return Err(reject.value(
                    "device.name",
                    device,
                    "stands twice; names must be unique",
                ));
            }
            let links = links(reject, &device, &raw.links, brokers, &mut addresses)?;
            let protection = protection(reject, &device, &raw)?;
            if protection == Protection::Clear {
                check_clear(reject, &device, &links, raw.allow_clear)?;
            } else if raw.allow_clear {
                let allowed = "says nothing for a device with a key, which is never spoken to in the clear: remove it";
                return Err(reject.value(format!("device.{device}.allow_clear"), true, allowed));
            }
            let resume = reject.within(
                &format!("device.{device}.resume_s"),
                raw.resume_s,
                0,
                RESUME_S_MAX,
            )?;
            Ok(DeviceConfig {
                name: device,
                links,
                protection,
                resume: Duration::from_secs(resume),
            })
        })
        .collect()
}

/// Whether a device without a key may be reached so.
fn check_clear(
    reject: &Reject<'_>,
    device: &str,
    links: &[LinkConfig],
    allow_clear: bool,
) -> Result<(), ConfigError> {
    for link in links {
        let (why, exception) = match link.address.class() {
            LinkClass::Serial => continue,
            LinkClass::Ble if allow_clear => continue,
            LinkClass::Ble => (
                "by radio everybody near can listen, and answer in the device's name",
                "; for a device that can have none, allow_clear = true",
            ),
            LinkClass::Mqtt => ("a broker is somebody else's computer", ""),
        };
        return Err(reject.value(
            format!("device.{device}.links"),
            &link.address,
            format!(
                "{why}, so this device needs a key: `autoglmctl key new FILE`, key = {{ file = \"FILE\" }} under [[device]] {device}, and \
                 the same key in the device{exception}"
            ),
        ));
    }
    Ok(())
}

fn links(
    reject: &Reject<'_>,
    device: &str,
    raw: &[String],
    brokers: &[Broker],
    addresses: &mut BTreeSet<String>,
) -> Result<Vec<LinkConfig>, ConfigError> {
    let key = format!("device.{device}.links");
    if raw.is_empty() {
        return Err(reject.value(key, "[]", "must name at least one link"));
    }
    let mut counts: BTreeMap<LinkClass, u32> = BTreeMap::new();
    raw.iter()
        .map(|text| {
            let mut address: LinkAddress = text
                .parse()
                .map_err(|error| reject.value(key.clone(), text, error))?;
            if let LinkAddress::Mqtt { broker, .. } = &mut address {
                match brokers.iter().find(|known| is_same(known, broker)) {
                    Some(known) => broker.clone_from(known),
                    None if matches!(broker.access.transport, Transport::Tls(_)) => {
                        let why = format!(
                            "needs a table [[broker]] with address = \"{broker}\" and [broker.tls] with ca = the file of the authority that \
                             signed the broker's certificate"
                        );
                        return Err(reject.value(key.clone(), text, why));
                    }
                    None => {}
                }
            }
            if !addresses.insert(address.to_string()) {
                return Err(reject.value(key.clone(), text, "another link has it already"));
            }
            let class = address.class();
            let count = counts.entry(class).or_default();
            *count += 1;
            let id = match count {
                1 => format!("{device}-{}", class.name()),
                count => format!("{device}-{}-{count}", class.name()),
            };
            Ok(LinkConfig {
                id: LinkId(id),
                address,
            })
        })
        .collect()
}

fn protection(
    reject: &Reject<'_>,
    device: &str,
    raw: &RawDevice,
) -> Result<Protection, ConfigError> {
    let source =
        |member: &str, raw: &RawKey| key_source(reject, &format!("device.{device}.{member}"), raw);
    let key = raw.key.as_ref().map(|key| source("key", key)).transpose()?;
    match (key, &raw.identity, &raw.peer) {
        (None, None, None) => Ok(Protection::Clear),
        (Some(key), None, None) => Ok(Protection::PreShared { key }),
        (Some(key), Some(identity), Some(peer)) => {
            let public = from_hex(peer).ok_or_else(|| {
                reject.value(
                    format!("device.{device}.peer"),
                    peer,
                    "must be the device's public key, 64 hexadecimal digits, as `autoglmctl key public` prints it",
                )
            })?;
            Ok(Protection::Mutual {
                key,
                identity: source("identity", identity)?,
                peer: *public,
            })
        }
        (None, ..) => Err(reject.value(
            format!("device.{device}.key"),
            "",
            "identity and peer protect only beside a shared key: add key = { file = \"…\" }",
        )),
        (Some(_), ..) => Err(reject.value(
            format!("device.{device}"),
            "",
            "identity (this box's private key) and peer (the device's public key) belong together",
        )),
    }
}

/// Where a key is, checked.
pub(super) fn key_source(
    reject: &Reject<'_>,
    key: &str,
    raw: &RawKey,
) -> Result<KeySource, ConfigError> {
    match raw {
        RawKey::File(path) => absolute(reject, &format!("{key}.file"), path).map(KeySource::File),
        RawKey::Credential(credential) => {
            let is_fit = !credential.is_empty()
                && !credential.starts_with('.')
                && !credential.contains(['/', '\0']);
            match is_fit {
                true => Ok(KeySource::Credential(credential.clone())),
                false => Err(reject.value(
                    format!("{key}.credential"),
                    credential,
                    "must be the name of a credential",
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn read(text: &str) -> Result<Vec<DeviceConfig>, String> {
        Config::from_text(text, Path::new("config.toml"))
            .map(|config| config.devices)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_devices_links_are_named_after_it_and_keep_their_order() {
        let devices = read(
            "[[device]]\nname = \"desk\"\nkey = { file = \"/k\" }\nlinks = [\"serial:///dev/a\", \"mqtt://b/d\", \"serial:///dev/c\"]",
        )
        .unwrap();
        let ids: Vec<&str> = devices[0]
            .links
            .iter()
            .map(|link| link.id.0.as_str())
            .collect();
        assert_eq!(ids, ["desk-serial", "desk-mqtt", "desk-serial-2"]);
        assert_eq!(devices[0].resume, Duration::from_secs(30));
    }

    #[test]
    fn a_device_at_a_broker_needs_a_key_and_is_told_how() {
        let error = read("[[device]]\nname = \"desk\"\nlinks = [\"mqtt://b/desk\"]").unwrap_err();
        for part in ["device.desk.links", "autoglmctl key new", "key = {"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_device_is_reached_over_tls_as_its_brokers_table_says() {
        let device =
            "[[device]]\nname = \"desk\"\nkey = { file = \"/k\" }\nlinks = [\"mqtts://b/desk\"]\n";
        let error = read(device).unwrap_err();
        for part in [
            "device.desk.links",
            "[[broker]]",
            "mqtts://b:8883",
            "[broker.tls]",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let broker = "[[broker]]\naddress = \"mqtts://b:8883\"\n[broker.tls]\nca = \"/ca\"\ncertificate = \"/c\"\nkey = \"/p\"\n\
                      [broker.login]\nuser = \"u\"\npassword_file = \"/w\"\n";
        let devices = read(&format!("{broker}{device}")).unwrap();
        let LinkAddress::Mqtt {
            broker: found,
            topic,
        } = &devices[0].links[0].address
        else {
            panic!("it is at a broker")
        };
        assert_eq!(topic, "desk");
        assert!(
            matches!(&found.access.transport, Transport::Tls(files) if files.client.is_some() && files.authority == Path::new("/ca")),
            "{found:?}"
        );
        assert_eq!(found.access.login.as_ref().unwrap().user, "u");
        let twice = read(&format!("{broker}{broker}{device}")).unwrap_err();
        assert!(
            twice.contains("broker.address") && twice.contains("twice"),
            "{twice}"
        );
        let clear = "[[broker]]\naddress = \"mqtt://b.example\"\n[broker.login]\nuser = \"u\"\npassword_file = \"/w\"\n";
        let refused = read(clear).unwrap_err();
        assert!(
            refused.contains("broker.address") && refused.contains("allow_clear"),
            "{refused}"
        );
    }

    #[test]
    fn a_device_by_radio_needs_a_key_or_a_word_that_it_has_none() {
        let device = |more: &str| {
            read(&format!(
                "[[device]]\nname = \"desk\"\nlinks = [\"serial:///dev/a\", \"ble:///name/Lamp\"]\n{more}"
            ))
        };
        let error = device("").unwrap_err();
        for part in [
            "device.desk.links",
            "ble:///name/Lamp",
            "autoglmctl key new",
            "allow_clear",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        device("allow_clear = true").unwrap();
        device("key = { file = \"/k\" }").unwrap();
        let error = device("allow_clear = true\nkey = { file = \"/k\" }").unwrap_err();
        assert!(error.contains("device.desk.allow_clear"), "{error}");
        let broker = "[[device]]\nname = \"desk\"\nallow_clear = true\nlinks = [\"mqtt://b/desk\"]";
        assert!(
            read(broker)
                .unwrap_err()
                .contains("somebody else's computer")
        );
    }

    #[test]
    fn static_pairs_are_complete_or_refused() {
        let device = |more: &str| {
            read(&format!(
                "[[device]]\nname = \"desk\"\nlinks = [\"serial:///dev/a\"]\n{more}"
            ))
        };
        let peer = "ab".repeat(32);
        let both = format!("identity = {{ credential = \"box\" }}\npeer = \"{peer}\"\n");
        let mutual = device(&format!("key = {{ file = \"/k\" }}\n{both}")).unwrap();
        assert!(matches!(
            &mutual[0].protection,
            Protection::Mutual { peer, .. } if *peer == [0xab; 32]
        ));
        assert!(device(&both).unwrap_err().contains("shared key"));
        assert!(
            device("key = { file = \"/k\" }\npeer = \"00\"")
                .unwrap_err()
                .contains("belong together")
        );
        assert!(
            device("key = { file = \"k\" }")
                .unwrap_err()
                .contains("absolute")
        );
        assert!(
            device("key = { credential = \"../k\" }")
                .unwrap_err()
                .contains("name of a credential")
        );
    }

    #[test]
    fn names_and_addresses_are_unique_and_addresses_are_checked() {
        let device = |name: &str, path: &str| {
            format!("[[device]]\nname=\"{name}\"\nlinks=[\"serial:///dev/{path}\"]\n")
        };
        let refusal = |text: String| read(&text).unwrap_err();
        assert!(refusal(device("a", "x") + &device("a", "y")).contains("twice"));
        assert!(refusal(device("a", "x") + &device("b", "x")).contains("already"));
        let wrong = refusal("[[device]]\nname=\"a\"\nlinks=[\"usb:x\"]".to_owned());
        assert!(
            wrong.contains("device.a.links") && wrong.contains("usb:x") && wrong.contains("serial"),
            "{wrong}"
        );
        assert!(refusal("[[device]]\nname=\"a\"\nlinks=[]".to_owned()).contains("at least one"));
    }
}
