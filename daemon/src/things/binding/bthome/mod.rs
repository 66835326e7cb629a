//! BTHome v2 advertisements as a Thing: bytes in, properties and events out.
//!
//! A BTHome sensor is never connected to; it broadcasts what it measures as service data of UUID 0xFCD2. Which properties it has is known by
//! what it has sent, so its description grows: [`Heard::is_described_anew`] says when. For the radio part: find the service data with
//! [`service_data`] (or take them from the Bluetooth stack), keep one [`Receiver`] for each address, hand each payload to
//! [`Receiver::handle_service_data`], and attach [`Receiver::description`] to the registry.
//!
//! Encryption is AES-CCM with the bind key of the device. With a key, clear text is refused (no downgrade), a counter must rise (no replay), and
//! an advertisement that is heard again is no news. A device whose counter starts over (a new battery in some) is refused until
//! [`Receiver::forget_counter`]. `aes` and `ccm` of RustCrypto do the cipher; no kept crate decodes the format (the `bthome` names on
//! crates.io do not cover it), so the table in [`objects`] is ours.
//!
//! Read first: <https://bthome.io/format/> and <https://bthome.io/encryption/>.

pub mod objects;

use std::collections::BTreeMap;
use std::fmt;

use aes::Aes128;
use ccm::aead::{Aead as _, KeyInit as _};
use ccm::consts::{U4, U13};
use ccm::{Ccm, Nonce};
use serde_json::{Map, Value, json};
use zeroize::Zeroize as _;

use objects::{Event, Object, Shape};

/// The 16-bit UUID of BTHome's service data.
pub const SERVICE_UUID: u16 = 0xfcd2;
/// AD types (Bluetooth Assigned Numbers §2.3): service data of a 16-bit UUID, shortened and complete local name.
const AD_SERVICE_DATA: u8 = 0x16;
const AD_NAMES: [u8; 2] = [0x08, 0x09];
/// Bit 0 of the device information byte.
const ENCRYPTED: u8 = 0x01;
/// Bit 2: it sends when something happens, not at intervals.
const TRIGGERED: u8 = 0x04;
/// Bits 5 to 7: the version.
const VERSION_SHIFT: u8 = 5;
/// Objects of one kind in one advertisement: one of 255 bytes could not hold more than 127 at all.
const SAME_MAX: usize = 16;
/// A counter may wrap: from within so many of its end to within so many of its beginning.
const WRAP: u32 = 0x100;

/// Service data that cannot be used. The device is to blame, or somebody who speaks in its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BthomeError {
    /// No device information byte.
    #[error("the advertisement is empty")]
    Empty,
    /// Another version of the format.
    #[error("BTHome version {0}, we know 2")]
    Version(u8),
    /// Encrypted, and we have no key.
    #[error("the advertisement is encrypted, and there is no bind key for the device")]
    NoKey,
    /// In clear text, although we have a key.
    #[error("the advertisement is not encrypted, although the device has a bind key: refused")]
    Downgrade,
    /// Too short for counter and check value.
    #[error("the encrypted advertisement has {0} bytes, too few")]
    Short(usize),
    /// The check value is wrong: another key, another device, or altered.
    #[error("the advertisement does not decrypt: wrong bind key, or altered")]
    Decryption,
    /// An older one.
    #[error("the counter {found} is older than {last}: a replay, or a device that started over")]
    Replay {
        /// What came.
        found: u32,
        /// What came before.
        last: u32,
    },
    /// An object that is cut off.
    #[error("the object 0x{0:02x} is cut off")]
    Truncated(u8),
}

/// Text that is no bind key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bind key is 32 hexadecimal digits")]
pub struct InvalidKey;

/// A device's bind key, 16 bytes. Never shown, wiped when dropped.
#[derive(Clone)]
pub struct BindKey([u8; 16]);

impl BindKey {
    /// Reads a key file's text: 32 hexadecimal digits, spaces around them.
    ///
    /// # Errors
    /// [`InvalidKey`], which does not hold what was read.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let mut bytes = hex::decode(text.trim()).map_err(|_| InvalidKey)?;
        let key = <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| InvalidKey);
        bytes.zeroize();
        key.map(Self)
    }
}

impl Drop for BindKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for BindKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("BindKey(…)")
    }
}

/// What an advertisement said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// Properties with their values.
    pub values: Vec<(String, Value)>,
    /// Events with their data.
    pub events: Vec<(String, Value)>,
    /// The device has properties or events that it had not before: its description is another.
    pub is_described_anew: bool,
    /// It is the advertisement of before, heard again.
    pub is_repeated: bool,
    /// The first object that we do not know; what follows it cannot be read.
    pub unknown_object: Option<u8>,
}

/// One device, by its address.
#[derive(Debug)]
pub struct Receiver {
    address: [u8; 6],
    key: Option<BindKey>,
    counter: Option<u32>,
    packet_id: Option<u8>,
    is_triggered: bool,
    /// Properties and events that it has sent, by name, with their object.
    properties: BTreeMap<String, &'static Object>,
    events: BTreeMap<String, Event>,
}

impl Receiver {
    /// A device of which nothing was heard yet. `address` is its Bluetooth address, first byte first as it is written.
    #[must_use]
    pub fn new(address: [u8; 6], key: Option<BindKey>) -> Self {
        Self {
            address,
            key,
            counter: None,
            packet_id: None,
            is_triggered: false,
            properties: BTreeMap::new(),
            events: BTreeMap::new(),
        }
    }

    /// Lets the device's counter start over.
    pub fn forget_counter(&mut self) {
        self.counter = None;
    }

    /// The device's last counter, where it encrypts: what is not above it is a replay. To be kept over restarts.
    #[must_use]
    pub fn counter(&self) -> Option<u32> {
        self.counter
    }

    /// Goes on after a restart: what is not above `counter` is a replay.
    pub fn resume(&mut self, counter: u32) {
        self.counter = Some(counter);
    }

    /// Whether it sends when something happens, not at intervals.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.is_triggered
    }

    /// Takes the service data of UUID 0xFCD2, without the UUID.
    ///
    /// # Errors
    /// [`BthomeError`]; nothing of the advertisement was taken.
    pub fn handle_service_data(&mut self, data: &[u8]) -> Result<Heard, BthomeError> {
        let (&information, body) = data.split_first().ok_or(BthomeError::Empty)?;
        let version = information >> VERSION_SHIFT;
        if version != 2 {
            return Err(BthomeError::Version(version));
        }
        let opened;
        let measurements = if information & ENCRYPTED != 0 {
            let (plain, counter) = self.decrypt(information, body)?;
            if self.counter.replace(counter) == Some(counter) {
                return Ok(Heard {
                    is_repeated: true,
                    ..Heard::default()
                });
            }
            opened = plain;
            opened.as_slice()
        } else if self.key.is_some() {
            return Err(BthomeError::Downgrade);
        } else {
            body
        };
        let parsed = parse(measurements)?;
        if let Some(id) = parsed.packet_id
            && self.packet_id.replace(id) == Some(id)
        {
            return Ok(Heard {
                is_repeated: true,
                ..Heard::default()
            });
        }
        self.is_triggered = information & TRIGGERED != 0;
        let mut heard = Heard {
            unknown_object: parsed.unknown,
            ..Heard::default()
        };
        for (name, object, value) in parsed.values {
            heard.is_described_anew |= self.properties.insert(name.clone(), object).is_none();
            heard.values.push((name, value));
        }
        for (name, event, data) in parsed.events {
            heard.is_described_anew |= self.events.insert(name.clone(), event).is_none();
            if let Some(data) = data {
                heard.events.push((name, data));
            }
        }
        Ok(heard)
    }

    /// Clear text and counter. The nonce is address, UUID as sent, device information and counter.
    fn decrypt(&self, information: u8, body: &[u8]) -> Result<(Vec<u8>, u32), BthomeError> {
        let key = self.key.as_ref().ok_or(BthomeError::NoKey)?;
        // The counter of four bytes and the check value of four follow the cipher text.
        let split = body
            .len()
            .checked_sub(8)
            .ok_or(BthomeError::Short(body.len()))?;
        let (cipher_text, end) = body.split_at(split);
        let (counter, tag) = end.split_at(4);
        let mut nonce = Vec::with_capacity(13);
        nonce.extend(self.address);
        nonce.extend(SERVICE_UUID.to_le_bytes());
        nonce.push(information);
        nonce.extend(counter);
        let sealed = [cipher_text, tag].concat();
        let cipher = Ccm::<Aes128, U4, U13>::new(&key.0.into());
        let plain = cipher
            .decrypt(Nonce::<U13>::from_slice(&nonce), sealed.as_slice())
            .map_err(|_| BthomeError::Decryption)?;
        let found = counter
            .iter()
            .rev()
            .fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        // Judged after decryption, so that only the device itself can move it.
        if let Some(last) = self.counter.filter(|last| found < *last) {
            let has_wrapped = last > u32::MAX - WRAP && found < WRAP;
            if !has_wrapped {
                return Err(BthomeError::Replay { found, last });
            }
        }
        Ok((plain, found))
    }

    /// The device's Thing Description as far as it is known; `name` is the local name that it advertises.
    #[must_use]
    pub fn description(&self, name: Option<&str>) -> Value {
        let [a, b, c, d, e, f] = self.address;
        let title = name
            .map(str::trim)
            .filter(|name| !name.is_empty() && name.len() <= 100);
        let title = title.map_or_else(|| format!("BTHome {e:02X}{f:02X}"), str::to_owned);
        let mut properties = Map::new();
        for (name, object) in &self.properties {
            let mut schema = object.schema();
            if let Some(number) = name
                .strip_prefix(object.name)
                .and_then(|rest| rest.strip_prefix('_'))
            {
                schema["title"] = json!(format!("{} {number}", object.title()));
            }
            properties.insert(name.clone(), schema);
        }
        let events: Map<String, Value> = self
            .events
            .iter()
            .map(|(name, event)| (name.clone(), event.affordance(name)))
            .collect();
        json!({
            "@context": ["https://www.w3.org/2022/wot/td/v1.1", {"edge": "https://openautoglm.org/ns/edge#"}],
            // RFC 9039 §4.1: a 48-bit address becomes an EUI-64.
            "id": format!("urn:dev:mac:{a:02x}{b:02x}{c:02x}fffe{d:02x}{e:02x}{f:02x}"),
            "title": title,
            "description": if self.is_triggered { "A BTHome sensor that reports when something happens." } else { "A BTHome sensor that reports at intervals." },
            "edge:kind": ["sensor"],
            "securityDefinitions": {"radio": {"scheme": "nosec"}},
            "security": ["radio"],
            "properties": properties,
            "events": events,
        })
    }
}

#[derive(Default)]
struct Parsed {
    packet_id: Option<u8>,
    values: Vec<(String, &'static Object, Value)>,
    /// Data are None for an event that did not happen ("none"), which still tells that the device has it.
    events: Vec<(String, Event, Option<Value>)>,
    unknown: Option<u8>,
}

fn parse(mut rest: &[u8]) -> Result<Parsed, BthomeError> {
    let mut parsed = Parsed::default();
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    while let Some((&id, after)) = rest.split_first() {
        let mut named = |name: &'static str| {
            let count = counts.entry(name).or_default();
            *count += 1;
            let number = *count;
            (number <= SAME_MAX).then(|| {
                if number == 1 {
                    name.to_owned()
                } else {
                    format!("{name}_{number}")
                }
            })
        };
        let take = |count: usize| {
            after
                .split_at_checked(count)
                .ok_or(BthomeError::Truncated(id))
        };
        if id == objects::PACKET_ID {
            let (data, after) = take(1)?;
            parsed.packet_id = data.first().copied();
            rest = after;
            continue;
        }
        if let Some(event) = Event::from_id(id) {
            let length = event.length(after).ok_or(BthomeError::Truncated(id))?;
            let (data, after) = take(length)?;
            if let Some(name) = named(event.name()) {
                parsed.events.push((name, event, event.data(data)));
            }
            rest = after;
            continue;
        }
        let Some(object) = objects::find(id) else {
            // Objects stand in rising order, so that a receiver can stop at the first that is too new for it.
            parsed.unknown = Some(id);
            break;
        };
        let (length, skip) = match object.shape {
            Shape::Text | Shape::Raw => {
                let length = after.first().ok_or(BthomeError::Truncated(id))?;
                (usize::from(*length), 1)
            }
            _ => (object.width(), 0),
        };
        let (data, after) = take(skip + length)?;
        if let (Some(name), Some(value)) = (
            named(object.name),
            object.value(data.get(skip..).unwrap_or_default()),
        ) {
            parsed.values.push((name, object, value));
        }
        rest = after;
    }
    Ok(parsed)
}

/// The BTHome service data in an advertising payload, without the UUID.
#[must_use]
pub fn service_data(advertisement: &[u8]) -> Option<&[u8]> {
    elements(advertisement)
        .filter(|(kind, _)| *kind == AD_SERVICE_DATA)
        .find_map(|(_, data)| data.strip_prefix(&SERVICE_UUID.to_le_bytes()))
}

/// The local name in an advertising payload.
#[must_use]
pub fn local_name(advertisement: &[u8]) -> Option<&str> {
    elements(advertisement)
        .filter(|(kind, _)| AD_NAMES.contains(kind))
        .find_map(|(_, data)| std::str::from_utf8(data).ok())
}

/// The AD elements of an advertising payload: type and data. Ends at the first that is cut off.
fn elements(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&length, after) = rest.split_first()?;
        let (element, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        let (&kind, data) = element.split_first()?;
        Some((kind, data))
    })
}

#[cfg(test)]
mod tests;
