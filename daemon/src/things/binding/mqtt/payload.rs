//! Between an MQTT payload and the JSON value of a property, by the terms of a form.
//!
//! Of the terms, `edge:pointer` (RFC 6901) finds the value in a JSON payload, `edge:template` makes a text of the payload, `edge:values`
//! lists pairs of our value and the device's, `edge:scale` and `edge:offset` turn the device's number into ours. On the way down
//! they work backwards: the value is put at the pointer of an otherwise empty object, beside the members of `edge:with`.

use serde_json::{Map, Value};

use super::template::Template;
use crate::things::binding::form::{Form, FormError, FormFault};
use crate::things::binding::scalar;
use crate::things::description::{DataSchema, DataType};

/// Payloads are read up to so many bytes; the MQTT client's own limit on packets is 256 KiB.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Parts of `edge:pointer`: as deep as schemas may nest.
const POINTER_PARTS_MAX: usize = 16;
/// Pairs of `edge:values`.
const VALUES_MAX: usize = 256;

/// A payload that does not fit its form. The device, or whoever described it, is to blame.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PayloadError {
    /// Too long.
    #[error("a payload of {0} bytes, more than {PAYLOAD_BYTES_MAX}")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("a payload that is not UTF-8")]
    NotText,
    /// Not JSON although the form says so.
    #[error("a payload that is not JSON: {0}")]
    NotJson(String),
    /// The template cannot make anything of it.
    #[error("the template fails: {0}")]
    Template(String),
    /// A value that the form does not list.
    #[error("{0}, which is not one of the values that the device is said to have")]
    Unlisted(String),
    /// A value of another type than the description says.
    #[error("{found}, where {expected:?} is described")]
    Type {
        /// What came, shortened.
        found: String,
        /// What the schema says.
        expected: DataType,
    },
    /// A value that cannot be sent.
    #[error("{0} cannot be sent to the device")]
    Unsendable(String),
}

/// How a value is found in a payload, and put into one.
#[derive(Debug, Clone, PartialEq)]
pub struct Codec {
    is_json: bool,
    pointer: Option<String>,
    template: Option<Template>,
    values: Vec<(Value, Value)>,
    scale: f64,
    offset: f64,
    with: Map<String, Value>,
    data_type: Option<DataType>,
}

impl Codec {
    /// Reads the terms of a form for a value of this schema.
    ///
    /// # Errors
    /// [`FormError`] names the term.
    pub fn from_form(form: &Form, schema: Option<&DataSchema>) -> Result<Self, FormError> {
        let pointer = form.text("edge:pointer")?;
        let is_pointer = |pointer: &str| {
            pointer.is_empty()
                || (pointer.starts_with('/') && pointer.matches('/').count() <= POINTER_PARTS_MAX)
        };
        if pointer.is_some_and(|pointer| !is_pointer(pointer)) {
            let allowed = "a JSON pointer of at most 16 parts, as in /state";
            let found = pointer.unwrap_or_default().to_owned();
            return Err(form.error("edge:pointer", FormFault::Value { found, allowed }));
        }
        let template = form.text("edge:template")?.map(|text| {
            Template::parse(text).map_err(|error| {
                form.error("edge:template", FormFault::Template(error.to_string()))
            })
        });
        let scale = form.number("edge:scale")?.unwrap_or(1.0);
        if scale == 0.0 {
            let fault = FormFault::Contradiction("a scale of zero loses every value");
            return Err(form.error("edge:scale", fault));
        }
        let with = match form.term("edge:with") {
            None => Map::new(),
            Some(Value::Object(with)) => with.clone(),
            Some(_) => {
                return Err(form.error(
                    "edge:with",
                    FormFault::Type {
                        expected: "an object",
                    },
                ));
            }
        };
        Ok(Self {
            is_json: !form.content_type.starts_with("text/"),
            pointer: pointer.map(str::to_owned),
            template: template.transpose()?,
            values: values(form)?,
            scale,
            offset: form.number("edge:offset")?.unwrap_or(0.0),
            with,
            data_type: schema.and_then(|schema| schema.data_type),
        })
    }

    /// The value in a payload. None: the payload says nothing about it.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn decode(&self, payload: &[u8]) -> Result<Option<Value>, PayloadError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(PayloadError::TooLong(payload.len()));
        }
        let text = std::str::from_utf8(payload).map_err(|_| PayloadError::NotText)?;
        let found = if let Some(template) = &self.template {
            match template.render(text).map_err(PayloadError::Template)? {
                empty if empty.is_empty() || empty == "None" || empty == "none" => return Ok(None),
                text => Value::String(text),
            }
        } else if self.is_json {
            let json: Value = serde_json::from_str(text)
                .map_err(|error| PayloadError::NotJson(error.to_string()))?;
            match json.pointer(self.pointer.as_deref().unwrap_or("")) {
                None | Some(Value::Null) => return Ok(None),
                Some(found) => found.clone(),
            }
        } else if text.is_empty() {
            return Ok(None);
        } else {
            Value::String(text.to_owned())
        };
        self.ours(found).map(Some)
    }

    /// Our value for the device's.
    fn ours(&self, theirs: Value) -> Result<Value, PayloadError> {
        if !self.values.is_empty() {
            let pair = self
                .values
                .iter()
                .find(|(_, known)| is_same(known, &theirs));
            return pair
                .map(|(ours, _)| ours.clone())
                .ok_or_else(|| PayloadError::Unlisted(shortened(&theirs)));
        }
        let wrong = |expected| {
            let found = shortened(&theirs);
            PayloadError::Type { found, expected }
        };
        let numeric = || match &theirs {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse::<f64>().ok(),
            _ => None,
        };
        match self.data_type {
            Some(expected @ (DataType::Number | DataType::Integer)) => {
                let number = numeric()
                    .filter(|number| number.is_finite())
                    .ok_or_else(|| wrong(expected))?;
                let number = scalar::scaled(number, self.scale, self.offset);
                let number = if expected == DataType::Integer {
                    number.round()
                } else {
                    number
                };
                scalar::number(number).ok_or_else(|| wrong(expected))
            }
            Some(DataType::Boolean) => match &theirs {
                Value::Bool(_) => Ok(theirs),
                Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
                Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
                _ => Err(wrong(DataType::Boolean)),
            },
            Some(DataType::String) => match theirs {
                Value::String(_) => Ok(theirs),
                Value::Number(_) | Value::Bool(_) => Ok(Value::String(theirs.to_string())),
                _ => Err(wrong(DataType::String)),
            },
            Some(DataType::Object) if !theirs.is_object() => Err(wrong(DataType::Object)),
            Some(DataType::Array) if !theirs.is_array() => Err(wrong(DataType::Array)),
            _ => Ok(theirs),
        }
    }

    /// The payload that carries a value to the device.
    ///
    /// # Errors
    /// [`PayloadError::Unsendable`] and [`PayloadError::Template`].
    pub fn encode(&self, value: &Value) -> Result<Vec<u8>, PayloadError> {
        let theirs = self.theirs(value)?;
        if let Some(template) = &self.template {
            return template
                .render_value(&theirs)
                .map(String::into_bytes)
                .map_err(PayloadError::Template);
        }
        let text = match &self.pointer {
            Some(pointer) if !pointer.is_empty() => {
                let mut object = self.with.clone();
                put(&mut object, pointer, theirs);
                Value::Object(object).to_string()
            }
            _ if self.is_json => theirs.to_string(),
            _ => match theirs {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            },
        };
        Ok(text.into_bytes())
    }

    fn theirs(&self, ours: &Value) -> Result<Value, PayloadError> {
        if !self.values.is_empty() {
            let pair = self.values.iter().find(|(known, _)| is_same(known, ours));
            return pair
                .map(|(_, theirs)| theirs.clone())
                .ok_or_else(|| PayloadError::Unsendable(shortened(ours)));
        }
        let is_scaled = self.scale != 1.0 || self.offset != 0.0;
        match ours.as_f64() {
            Some(number) if is_scaled => {
                let number = (number - self.offset) / self.scale;
                // The description's whole numbers are the device's, too: 40 % of 254 is 102, not 101.6.
                let number = if self.data_type == Some(DataType::Integer) {
                    number.round()
                } else {
                    number
                };
                scalar::number(number).ok_or_else(|| PayloadError::Unsendable(shortened(ours)))
            }
            _ => Ok(ours.clone()),
        }
    }
}

/// Pairs of `edge:values`: `[[true, "ON"], [false, "OFF"]]`.
fn values(form: &Form) -> Result<Vec<(Value, Value)>, FormError> {
    let expected = "a list of pairs: our value, then the device's";
    let wrong = || form.error("edge:values", FormFault::Type { expected });
    match form.term("edge:values") {
        None => Ok(Vec::new()),
        Some(Value::Array(pairs)) => {
            if pairs.len() > VALUES_MAX {
                let (count, limit) = (pairs.len(), VALUES_MAX);
                return Err(form.error("edge:values", FormFault::TooMany { count, limit }));
            }
            pairs
                .iter()
                .map(|pair| match pair.as_array().map(Vec::as_slice) {
                    Some([ours, theirs]) => Ok((ours.clone(), theirs.clone())),
                    _ => Err(wrong()),
                })
                .collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Devices and templates write truth and numbers as texts or as themselves.
fn is_same(known: &Value, found: &Value) -> bool {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    known == found
        || plain(known) == plain(found)
        || (known.is_boolean() && plain(known).eq_ignore_ascii_case(&plain(found)))
}

/// Puts a value where a pointer says, making objects on the way. Every part names a member, none an index.
fn put(object: &mut Map<String, Value>, pointer: &str, value: Value) {
    let mut parts = pointer
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .peekable();
    let mut here = object;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            here.insert(part, value);
            return;
        }
        let next = here
            .entry(part)
            .or_insert_with(|| Value::Object(Map::new()));
        if !next.is_object() {
            *next = Value::Object(Map::new());
        }
        match next.as_object_mut() {
            Some(next) => here = next,
            None => return,
        }
    }
}

/// A value short enough for a log line.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 {
        text.chars().take(60).chain(['…']).collect()
    } else {
        text
    }
}
