//! Plain GATT characteristics by form: which characteristic is read, written or subscribed to, and what its bytes mean.
//!
//! `href` is `gatt://DEVICE/SERVICE/CHARACTERISTIC`: DEVICE is a Bluetooth address with dashes or colons (`A4-C1-38-8D-18-B2`), SERVICE and
//! CHARACTERISTIC are UUIDs of 4 or 32 hexadecimal digits. There is no published binding for Bluetooth; the terms are those of
//! [`super::scalar`], with `edge:type` for the type (an XML Schema name), little-endian as GATT has it, `edge:length` for texts,
//! `edge:withResponse` for writes (true unless said otherwise), `edge:pollingTime` for reads (milliseconds between two that nobody asked
//! for; without it a property is read when it is asked for), and `edge:value` for an action's constant.
//!
//! Pure: for the radio part. [`GattThing::bind`] reads a description; [`Characteristic`] says which characteristic an operation is for, its codec
//! turns bytes into the property's value and back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::form::{self, Affordance, Class, Form, FormError, FormFault, Operation};
use super::scalar::{DecodeError, EncodeError, Kind, Layout, TEXT_BYTES_MAX};
use super::{BindError, Described};
use crate::things::description::DataType;

/// Scheme of the forms that this binding serves.
pub const SCHEME: &str = "gatt";
/// `edge:pollingTime` in milliseconds: a radio has no time for more, and a day is as good as never.
const POLL_MS: (i64, i64) = (100, 86_400_000);
/// The Bluetooth base UUID, which 16-bit UUIDs stand in (Core Specification Vol 3 Part B §2.5.1).
const BASE_UUID: u128 = 0x0000_0000_0000_1000_8000_0080_5f9b_34fb;

/// A characteristic, and what its bytes mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Characteristic {
    /// UUID of its service, 128 bits.
    pub service: u128,
    /// Its own UUID, 128 bits.
    pub uuid: u128,
    /// Writes wait for the device's response.
    pub with_response: bool,
    layout: Layout,
    length: usize,
    is_truth: bool,
}

impl Characteristic {
    /// The value of the bytes that were read or notified.
    ///
    /// # Errors
    /// [`DecodeError`]; the device is to blame, or its description.
    pub fn decode(&self, bytes: &[u8]) -> Result<Value, DecodeError> {
        self.layout.decode(bytes, self.is_truth)
    }

    /// The bytes to write for a value; `before` is what stands there now, needed where [`Self::needs_before`] says so.
    ///
    /// # Errors
    /// [`EncodeError`]: nothing is clamped or cut.
    pub fn encode(&self, value: &Value, before: Option<&[u8]>) -> Result<Vec<u8>, EncodeError> {
        self.layout.encode(value, self.length, before)
    }

    /// Whether writing needs to know what stands there now: a bit field shares its bytes.
    #[must_use]
    pub fn needs_before(&self) -> bool {
        self.layout.bits.is_some()
    }
}

/// How a property is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct PropertyBinding {
    /// The characteristic that is read.
    pub read: Option<Characteristic>,
    /// The characteristic that is written.
    pub write: Option<Characteristic>,
    /// The characteristic whose notifications are its reports.
    pub notify: Option<Characteristic>,
    /// `edge:pollingTime` of the reading form: how often it is read unasked.
    pub poll: Option<Duration>,
}

/// How an action is carried out: a write.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionBinding {
    /// The characteristic that is written.
    pub write: Characteristic,
    /// `edge:value`: what is written where the caller gives no value.
    pub constant: Option<Value>,
    /// The one member of an input object, whose value is what is written.
    pub member: Option<String>,
}

/// A Thing behind a Bluetooth radio.
#[derive(Debug, Clone)]
pub struct GattThing {
    /// What it is.
    pub described: Described,
    /// Its Bluetooth address, first byte first as it is written.
    pub address: [u8; 6],
    /// Its properties, by name.
    pub properties: BTreeMap<String, PropertyBinding>,
    /// Its actions, by name.
    pub actions: BTreeMap<String, ActionBinding>,
    /// Its events, by name: notifications.
    pub events: BTreeMap<String, Characteristic>,
}

impl GattThing {
    /// Binds a description whose forms are GATT forms.
    ///
    /// # Errors
    /// [`BindError::Form`] names the path of the first form that cannot be served, or of what lacks one.
    pub fn bind(described: Described) -> Result<Self, BindError> {
        let description = described.description.clone();
        let mut address: Option<[u8; 6]> = None;
        let (mut properties, mut actions, mut events) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for affordance in form::affordances(&description)? {
            for form in &affordance.forms {
                let found = address_of(form)?;
                if *address.get_or_insert(found) != found {
                    let fault = FormFault::Contradiction(
                        "all forms of one thing must name the same device",
                    );
                    return Err(form.error("href", fault).into());
                }
            }
            let name = affordance.name.to_owned();
            match affordance.class {
                Class::Property => {
                    properties.insert(name, property(&affordance)?);
                }
                Class::Action => {
                    actions.insert(name, action(&affordance)?);
                }
                Class::Event => {
                    let form = affordance
                        .form(Operation::Subscribe)
                        .ok_or_else(|| missing(&affordance))?;
                    events.insert(
                        name,
                        characteristic(
                            form,
                            affordance.schema.and_then(|schema| schema.data_type),
                        )?,
                    );
                }
            }
        }
        let address = address.ok_or_else(|| FormError {
            path: "forms".into(),
            fault: FormFault::Missing,
        })?;
        Ok(Self {
            described,
            address,
            properties,
            actions,
            events,
        })
    }

    /// All characteristics that the forms name, as (service, characteristic).
    #[must_use]
    pub fn characteristics(&self) -> BTreeSet<(u128, u128)> {
        let properties = self.properties.values();
        let of_properties = properties
            .flat_map(|property| [&property.read, &property.write, &property.notify])
            .flatten();
        let of_actions = self.actions.values().map(|action| &action.write);
        of_properties
            .chain(of_actions)
            .chain(self.events.values())
            .map(|characteristic| (characteristic.service, characteristic.uuid))
            .collect()
    }
}

fn property(affordance: &Affordance<'_>) -> Result<PropertyBinding, FormError> {
    let Some(schema) = affordance.schema else {
        return Err(missing(affordance));
    };
    let of = |operation| {
        affordance
            .form(operation)
            .map(|form| characteristic(form, schema.data_type))
            .transpose()
    };
    let poll = match affordance.form(Operation::Read) {
        Some(form) => form.integer("edge:pollingTime", POLL_MS.0, POLL_MS.1)?,
        None => None,
    };
    let binding = PropertyBinding {
        poll: poll.map(|ms| Duration::from_millis(ms.unsigned_abs())),
        read: if schema.write_only {
            None
        } else {
            of(Operation::Read)?
        },
        write: if schema.read_only {
            None
        } else {
            of(Operation::Write)?
        },
        notify: if schema.write_only {
            None
        } else {
            of(Operation::Observe)?
        },
    };
    let is_heard = schema.write_only || binding.read.is_some() || binding.notify.is_some();
    if is_heard && (schema.read_only || binding.write.is_some()) {
        Ok(binding)
    } else {
        Err(missing(affordance))
    }
}

fn action(affordance: &Affordance<'_>) -> Result<ActionBinding, FormError> {
    let form = affordance
        .form(Operation::Invoke)
        .ok_or_else(|| missing(affordance))?;
    let constant = form.term("edge:value").cloned();
    let member = match affordance.schema {
        None if constant.is_none() => return Err(form.error("edge:value", FormFault::Missing)),
        Some(schema) if schema.data_type == Some(DataType::Object) => {
            match schema.members.keys().collect::<Vec<_>>().as_slice() {
                [only] => Some((*only).clone()),
                _ => {
                    let fault = FormFault::Contradiction(
                        "an input with several members does not fit one characteristic",
                    );
                    return Err(FormError {
                        path: format!("{}.input", affordance.path()),
                        fault,
                    });
                }
            }
        }
        _ => None,
    };
    Ok(ActionBinding {
        write: characteristic(form, None)?,
        constant,
        member,
    })
}

fn missing(affordance: &Affordance<'_>) -> FormError {
    let fault = FormFault::Contradiction(
        "no form says how to read, observe, write, invoke or subscribe to it (readOnly and writeOnly say what it cannot)",
    );
    FormError {
        path: format!("{}.forms", affordance.path()),
        fault,
    }
}

fn address_of(form: &Form) -> Result<[u8; 6], FormError> {
    if form.href.scheme != SCHEME {
        let (found, allowed) = (
            form.href.scheme.clone(),
            "gatt, as in the thing's other forms",
        );
        return Err(form.error("href", FormFault::Value { found, allowed }));
    }
    let parts: Vec<&str> = form.href.authority.split(['-', ':']).collect();
    let bytes: Option<Vec<u8>> = parts
        .iter()
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            let allowed = "gatt://AA-BB-CC-DD-EE-FF/SERVICE/CHARACTERISTIC";
            form.error(
                "href",
                FormFault::Value {
                    found: form.href.authority.clone(),
                    allowed,
                },
            )
        })
}

fn characteristic(form: &Form, data_type: Option<DataType>) -> Result<Characteristic, FormError> {
    let parts: Vec<&str> = form.href.path.split('/').collect();
    let wrong = || {
        let allowed =
            "gatt://AA-BB-CC-DD-EE-FF/SERVICE/CHARACTERISTIC, UUIDs of 4 or 32 hexadecimal digits";
        form.error(
            "href",
            FormFault::Value {
                found: form.href.to_string(),
                allowed,
            },
        )
    };
    let [service, own] = parts.as_slice() else {
        return Err(wrong());
    };
    let (service, uuid) = (
        uuid(service).ok_or_else(wrong)?,
        uuid(own).ok_or_else(wrong)?,
    );
    // GATT is little-endian: both orders turned is the whole value turned.
    let little = Layout {
        big_bytes: false,
        big_words: false,
        ..Layout::plain(Kind::U8)
    };
    let layout = Layout::from_form(form, "edge:type", little)?;
    if form.term("edge:type").is_none() && data_type != Some(DataType::Boolean) {
        return Err(form.error("edge:type", FormFault::Missing));
    }
    let length = form
        .integer("edge:length", 1, TEXT_BYTES_MAX as i64)?
        .unwrap_or(TEXT_BYTES_MAX as i64);
    Ok(Characteristic {
        service,
        uuid,
        with_response: form.flag("edge:withResponse")?.unwrap_or(true),
        // Texts have no byte order, so they must not be turned.
        layout: match layout.kind {
            Kind::Text | Kind::Bytes => Layout {
                big_bytes: true,
                big_words: true,
                ..layout
            },
            _ => layout,
        },
        length: length as usize,
        is_truth: data_type == Some(DataType::Boolean),
    })
}

/// A UUID of 4 or 32 hexadecimal digits, dashes aside.
fn uuid(text: &str) -> Option<u128> {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match digits.len() {
        4 => Some(BASE_UUID | u128::from_str_radix(&digits, 16).ok()? << 96),
        32 => u128::from_str_radix(&digits, 16).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn one(property: Value) -> Result<GattThing, BindError> {
        GattThing::bind(Described::from_value(
            json!({"id": "urn:x", "title": "X", "properties": {"level": property}}),
        )?)
    }

    #[test]
    fn a_form_becomes_a_characteristic_with_its_bytes() {
        // Temperature (0x2A6E) of the Environmental Sensing service (0x181A): sint16, hundredths of a degree (GATT Specification Supplement).
        let thing = one(json!({"type": "number", "readOnly": true, "observable": true, "forms": [{
            "href": "gatt://A4-C1-38-8D-18-B2/181A/2A6E", "op": ["readproperty", "observeproperty"], "edge:type": "xsd:short", "edge:scale": 0.01
        }]}))
        .unwrap();
        assert_eq!(thing.address, [0xa4, 0xc1, 0x38, 0x8d, 0x18, 0xb2]);
        let level = &thing.properties["level"];
        let read = level.read.as_ref().unwrap();
        assert_eq!(read.uuid, 0x0000_2a6e_0000_1000_8000_0080_5f9b_34fb);
        assert_eq!(read.service, 0x0000_181a_0000_1000_8000_0080_5f9b_34fb);
        assert_eq!(read.decode(&[0xca, 0x09]).unwrap(), json!(25.06));
        assert_eq!(read.encode(&json!(25.06), None).unwrap(), [0xca, 0x09]);
        assert_eq!(level.notify, level.read);
        assert!(level.write.is_none());
    }

    #[test]
    fn four_bytes_are_little_endian_and_texts_are_not_turned() {
        let form = |more: Value| {
            let mut form = json!({"href": "gatt://A4:C1:38:8D:18:B2/181A/2A6E"});
            form.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            one(json!({"forms": [form]})).unwrap().properties["level"]
                .write
                .clone()
                .unwrap()
        };
        assert_eq!(
            form(json!({"edge:type": "xsd:unsignedInt"}))
                .encode(&json!(0x1234_5678), None)
                .unwrap(),
            [0x78, 0x56, 0x34, 0x12]
        );
        assert_eq!(
            form(json!({"edge:type": "xsd:string", "edge:length": 4}))
                .encode(&json!("Hi"), None)
                .unwrap(),
            b"Hi\0\0"
        );
        assert!(!form(json!({"edge:type": "xsd:byte", "edge:withResponse": false})).with_response);
    }

    #[test]
    fn a_wrong_form_is_refused_with_its_path() {
        for (form, path) in [
            (
                json!({"href": "gatt://A4-C1-38-8D-18/181A/2A6E"}),
                "properties.level.forms[0].href",
            ),
            (
                json!({"href": "gatt://A4-C1-38-8D-18-B2/181A"}),
                "properties.level.forms[0].href",
            ),
            (
                json!({"href": "gatt://A4-C1-38-8D-18-B2/181A/2A6Z"}),
                "properties.level.forms[0].href",
            ),
            (
                json!({"href": "gatt://A4-C1-38-8D-18-B2/181A/2A6E"}),
                "properties.level.forms[0].edge:type",
            ),
            (
                json!({"href": "gatt://A4-C1-38-8D-18-B2/181A/2A6E", "edge:type": "xsd:year"}),
                "properties.level.forms[0].edge:type",
            ),
            (
                json!({"href": "gatt://A4-C1-38-8D-18-B2/181A/2A6E", "op": "readproperty", "edge:type": "xsd:byte"}),
                "properties.level.forms",
            ),
        ] {
            let error = one(json!({"type": "integer", "forms": [form]}))
                .unwrap_err()
                .to_string();
            assert!(error.contains(path), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_notification_is_a_value_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..20), kind in prop::sample::select(vec![
            "byte", "unsignedByte", "short", "int", "long", "unsignedLong", "float", "double", "string", "hexBinary"])) {
            let thing = one(json!({"readOnly": true, "forms": [{"href": "gatt://A4-C1-38-8D-18-B2/181A/2A6E", "edge:type": kind}]})).unwrap();
            let _ = thing.properties["level"].read.as_ref().unwrap().decode(&bytes);
        }
    }
}
