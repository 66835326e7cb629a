//! A Thing Description (W3C WoT TD 1.1) as validated types.
//!
//! JSON is read into raw serde structs first and then checked, so that an error names the
//! path of what is wrong. Members that we do not know are ignored, as the specification
//! demands of a consumer. Forms and security definitions are not read here: a device that
//! speaks our protocol needs none, and bindings for foreign devices read their own.
//!
//! Our extension vocabulary has the prefix `edge:` (a description declares it in its
//! `@context`): `edge:aliases` (other names a person may use), `edge:location` (the room),
//! `edge:kind` (what it is, for "all lights"), `edge:confirm` (ask a person before doing it)
//! and `edge:sets` (the property that an action sets, for "brighter").

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::raw;

/// The most affordances of one class (properties, actions or events) that a description may
/// have. Chosen because each costs some twenty embedded phrases; real devices have under 50.
pub const AFFORDANCES_MAX: usize = 128;
/// The most values that an enumeration may list; each becomes phrases of its own.
pub const CHOICES_MAX: usize = 128;
/// The most bytes in a name, title, alias or location.
pub const NAME_BYTES_MAX: usize = 200;
/// The most other names that one thing, affordance or choice may list.
pub const ALIASES_MAX: usize = 32;
/// How deep schemas may nest. serde_json itself stops at 128 levels.
pub(super) const SCHEMA_DEPTH_MAX: usize = 16;

/// The identifier of a Thing: the description's `id`, usually a URN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ThingId(String);

impl ThingId {
    /// Checks and takes an identifier: 1 to [`NAME_BYTES_MAX`] bytes, no white space or
    /// control characters.
    ///
    /// # Errors
    /// [`InvalidThingId`] holds what was given.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidThingId> {
        let id = id.into();
        let fits = !id.is_empty() && id.len() <= NAME_BYTES_MAX;
        if fits && !id.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Ok(Self(id))
        } else {
            Err(InvalidThingId(id))
        }
    }

    /// The identifier's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ThingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be a [`ThingId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no thing id: it must have 1 to {NAME_BYTES_MAX} bytes and no white space")]
pub struct InvalidThingId(pub String);

/// What a device says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ThingDescription {
    /// `id`.
    pub id: ThingId,
    /// `title`: what people call it first.
    pub title: String,
    /// `description`.
    pub description: Option<String>,
    /// `edge:aliases`: what else people call it.
    pub aliases: Vec<String>,
    /// `edge:location`: the room or place where it is.
    pub location: Option<String>,
    /// `edge:kind`: nouns in the singular that name what it is ("light").
    pub kinds: Vec<String>,
    /// `@type`.
    pub types: Vec<String>,
    /// `properties`, by name.
    pub properties: BTreeMap<String, Property>,
    /// `actions`, by name.
    pub actions: BTreeMap<String, Action>,
    /// `events`, by name.
    pub events: BTreeMap<String, Event>,
    /// The whole description, for callers that want the Thing Description itself.
    pub document: Value,
}

/// What every affordance has.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Naming {
    /// `title`, where the description gives one.
    pub title: Option<String>,
    /// `description`.
    pub description: Option<String>,
    /// `edge:aliases`.
    pub aliases: Vec<String>,
    /// `@type`.
    pub types: Vec<String>,
}

/// A property affordance.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Titles and types.
    pub naming: Naming,
    /// The schema of its value, with `readOnly` and `writeOnly`.
    pub schema: DataSchema,
    /// `observable`.
    pub observable: bool,
    /// `edge:confirm`: a person is asked before it is written.
    pub confirm: bool,
}

/// An action affordance.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Titles and types.
    pub naming: Naming,
    /// `input`; `None` takes none.
    pub input: Option<DataSchema>,
    /// `output`; `None` returns none.
    pub output: Option<DataSchema>,
    /// `safe`: changes no state.
    pub safe: bool,
    /// `idempotent`: doing it twice is doing it once.
    pub idempotent: bool,
    /// `edge:confirm`: a person is asked before it is done (unlocking a door).
    pub confirm: bool,
    /// `edge:sets`: the property that its input becomes the value of.
    pub sets: Option<String>,
}

/// An event affordance.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Titles and types.
    pub naming: Naming,
    /// `data`: what a notification carries.
    pub data: Option<DataSchema>,
}

/// The `type` of a data schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataType {
    /// `boolean`
    Boolean,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `string`
    String,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `null`
    Null,
}

/// One value of an enumeration (`enum`, or `oneOf` of `const` with `title`).
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The value that goes to the device.
    pub value: Value,
    /// `title`; `None` for a plain `enum`.
    pub title: Option<String>,
    /// `edge:aliases`.
    pub aliases: Vec<String>,
}

/// A data schema: the parts that understanding needs as types, and all of it as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSchema {
    /// Titles and types.
    pub naming: Naming,
    /// `type`; `None` leaves it open.
    pub data_type: Option<DataType>,
    /// `unit`, as the description writes it.
    pub unit: Option<String>,
    /// `minimum` (inclusive).
    pub minimum: Option<f64>,
    /// `maximum` (inclusive).
    pub maximum: Option<f64>,
    /// `multipleOf`, above zero.
    pub multiple_of: Option<f64>,
    /// `enum` or `oneOf`, in the description's order, which is taken as rising for "faster".
    pub choices: Vec<Choice>,
    /// `properties` of an object.
    pub members: BTreeMap<String, DataSchema>,
    /// `required` of an object.
    pub required: Vec<String>,
    /// `readOnly`.
    pub read_only: bool,
    /// `writeOnly`.
    pub write_only: bool,
    /// The whole schema, for [`super::schema`] and for callers that want JSON Schema.
    pub json: Value,
}

/// Why a text is no Thing Description that we can use. The device is to blame.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// Not JSON, or a member has the wrong JSON type.
    #[error("thing description, at {path}: {source}")]
    Malformed {
        /// Where, as `properties.on.type`; `.` is the whole text.
        path: String,
        /// What serde found.
        #[source]
        source: serde_json::Error,
    },
    /// The JSON is well formed but says something that cannot be.
    #[error("thing description, at {path}: {fault}")]
    Invalid {
        /// Where, as `properties.on.type`.
        path: String,
        /// What is wrong there.
        fault: Fault,
    },
}

/// What is wrong at one place of a description.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// See [`InvalidThingId`].
    #[error(transparent)]
    Id(#[from] InvalidThingId),
    /// An empty text where a name must stand.
    #[error("must not be empty")]
    Empty,
    /// A text over [`NAME_BYTES_MAX`].
    #[error("has {bytes} bytes, more than {NAME_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A list or map over its limit.
    #[error("has {count} entries, more than {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// `minimum` over `maximum`.
    #[error("minimum {minimum} is above maximum {maximum}")]
    EmptyRange {
        /// `minimum`
        minimum: f64,
        /// `maximum`
        maximum: f64,
    },
    /// `multipleOf` not above zero.
    #[error("must be above zero, not {0}")]
    NotPositive(f64),
    /// Both `readOnly` and `writeOnly`.
    #[error("is both readOnly and writeOnly")]
    NeitherReadNorWritten,
    /// A name that should be among others and is not.
    #[error("names {0:?}, which the description does not have")]
    NoSuchMember(String),
    /// The schema nests deeper than we follow.
    #[error("nests deeper than {SCHEMA_DEPTH_MAX} levels")]
    TooDeep,
    /// `enum` and `oneOf` of constants together, or an `enum` without values.
    #[error("lists no value that is allowed")]
    NoChoice,
}

impl DataSchema {
    /// A schema that asks for nothing but a type.
    #[must_use]
    pub fn of(data_type: Option<DataType>) -> Self {
        Self {
            naming: Naming::default(),
            data_type,
            unit: None,
            minimum: None,
            maximum: None,
            multiple_of: None,
            choices: Vec::new(),
            members: BTreeMap::new(),
            required: Vec::new(),
            read_only: false,
            write_only: false,
            json: Value::Object(serde_json::Map::new()),
        }
    }
}

impl ThingDescription {
    /// Reads a description from JSON text.
    ///
    /// # Errors
    /// [`DescriptionError`] names the path of the first thing that is wrong.
    pub fn from_json(text: &str) -> Result<Self, DescriptionError> {
        let document =
            serde_json::from_str(text).map_err(|source| DescriptionError::Malformed {
                path: ".".into(),
                source,
            })?;
        Self::from_value(document)
    }

    /// Reads a description from JSON that is already parsed.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_value(value: Value) -> Result<Self, DescriptionError> {
        let thing = serde_path_to_error::deserialize(&value).map_err(raw::malformed)?;
        raw::validate(thing, value)
    }
}
