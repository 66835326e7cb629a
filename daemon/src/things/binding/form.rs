//! Forms of a Thing Description (TD 1.1 §5.3.4.2), read and checked; what their terms mean is each binding's business.
//!
//! Only what a form says is read here: its target (`href`, resolved against the description's `base`), its operations (`op`, with the
//! defaults of TD 1.1 §5.4), its content type, and its other members as they stand. An error names the JSON path.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use crate::things::description::{DataSchema, ThingDescription};

/// The most forms of one affordance. Chosen because each operation needs one, and some have an alternative.
pub const FORMS_MAX: usize = 16;
/// The longest `href` or `base`, in bytes.
pub const HREF_BYTES_MAX: usize = 1024;

/// Operations of TD 1.1 that a binding can carry out; others are ignored, as a consumer may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `readproperty`
    Read,
    /// `writeproperty`
    Write,
    /// `observeproperty`
    Observe,
    /// `invokeaction`
    Invoke,
    /// `subscribeevent`
    Subscribe,
}

/// The three classes of affordances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// `properties`
    Property,
    /// `actions`
    Action,
    /// `events`
    Event,
}

impl Class {
    fn key(self) -> &'static str {
        match self {
            Self::Property => "properties",
            Self::Action => "actions",
            Self::Event => "events",
        }
    }
}

/// What is wrong with a form, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("thing description, at {path}: {fault}")]
pub struct FormError {
    /// Where, as `properties.temperature.forms[0].modv:entity`.
    pub path: String,
    /// What is wrong there.
    pub fault: FormFault,
}

/// What can be wrong with a form.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FormFault {
    /// A member that must be there is not.
    #[error("is missing")]
    Missing,
    /// A member has another JSON type than it must have.
    #[error("must be {expected}")]
    Type {
        /// What it must be.
        expected: &'static str,
    },
    /// A member has a value that is not allowed.
    #[error("is {found:?}; must be {allowed}")]
    Value {
        /// What stands there.
        found: String,
        /// What may stand there.
        allowed: &'static str,
    },
    /// A number outside its range.
    #[error("is {found}; must be from {min} to {max}")]
    Range {
        /// What stands there.
        found: i64,
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// Two members that cannot stand together, or a member without another that it needs.
    #[error("{0}")]
    Contradiction(&'static str),
    /// More than we take.
    #[error("has {count}, more than {limit}")]
    TooMany {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A template that is refused.
    #[error("{0}")]
    Template(String),
}

/// One form.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// Where it stands, for errors.
    pub path: String,
    /// Its target, taken apart.
    pub href: Href,
    /// What it is for.
    pub operations: BTreeSet<Operation>,
    /// `contentType`; `application/json` where none stands.
    pub content_type: String,
    terms: Map<String, Value>,
}

/// An absolute URI, taken apart: `scheme://authority/segments?query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Href {
    /// Scheme in lower case.
    pub scheme: String,
    /// Host and port, as written.
    pub authority: String,
    /// What follows the authority's slash, percent-decoded; not split, since MQTT topics contain slashes.
    pub path: String,
    /// `name=value` pairs after `?`, percent-decoded.
    pub query: Vec<(String, String)>,
}

impl fmt::Display for Href {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}/{}", self.scheme, self.authority, self.path)
    }
}

/// An affordance with its forms.
#[derive(Debug, Clone)]
pub struct Affordance<'a> {
    /// Of which class.
    pub class: Class,
    /// Its name.
    pub name: &'a str,
    /// The schema of a property's value, an action's input or an event's data.
    pub schema: Option<&'a DataSchema>,
    /// Its forms.
    pub forms: Vec<Form>,
}

impl Affordance<'_> {
    /// The first form for an operation.
    #[must_use]
    pub fn form(&self, operation: Operation) -> Option<&Form> {
        self.forms
            .iter()
            .find(|form| form.operations.contains(&operation))
    }

    /// Where the affordance stands in its description.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.class.key(), self.name)
    }
}

/// Reads the forms of all affordances.
///
/// # Errors
/// [`FormError`] for the first form that is wrong.
pub fn affordances(thing: &ThingDescription) -> Result<Vec<Affordance<'_>>, FormError> {
    let base = base(&thing.document)?;
    let mut found = Vec::new();
    let mut add = |class, name, schema| {
        let forms = forms(&thing.document, base.as_deref(), class, name)?;
        found.push(Affordance {
            class,
            name,
            schema,
            forms,
        });
        Ok(())
    };
    for (name, property) in &thing.properties {
        add(Class::Property, name.as_str(), Some(&property.schema))?;
    }
    for (name, action) in &thing.actions {
        add(Class::Action, name, action.input.as_ref())?;
    }
    for (name, event) in &thing.events {
        add(Class::Event, name, event.data.as_ref())?;
    }
    Ok(found)
}

/// The scheme that every form of a description has.
///
/// # Errors
/// A form that is wrong, no form at all, or forms of several protocols in one Thing, which no one link could serve.
pub fn scheme(thing: &ThingDescription) -> Result<String, FormError> {
    let affordances = affordances(thing)?;
    let mut forms = affordances.iter().flat_map(|affordance| &affordance.forms);
    let first = forms
        .next()
        .ok_or_else(|| at("forms", FormFault::Missing))?;
    match forms.find(|form| form.href.scheme != first.href.scheme) {
        None => Ok(first.href.scheme.clone()),
        Some(_) => Err(at(
            "forms",
            FormFault::Contradiction("all forms of one thing must have the same scheme"),
        )),
    }
}

/// Forms that belong to the thing as a whole, under a member of its own such as `edge:availability`.
///
/// # Errors
/// As [`affordances`].
pub fn thing_forms(document: &Value, member: &str) -> Result<Vec<Form>, FormError> {
    let base = base(document)?;
    match document.get(member) {
        None => Ok(Vec::new()),
        Some(Value::Array(forms)) if forms.len() <= FORMS_MAX => forms
            .iter()
            .enumerate()
            .map(|(index, form)| {
                form_at(
                    format!("{member}[{index}]"),
                    form,
                    base.as_deref(),
                    Vec::new(),
                )
            })
            .collect(),
        Some(Value::Array(forms)) => {
            let (count, limit) = (forms.len(), FORMS_MAX);
            Err(at(member, FormFault::TooMany { count, limit }))
        }
        Some(_) => Err(at(
            member,
            FormFault::Type {
                expected: "a list of forms",
            },
        )),
    }
}

fn base(document: &Value) -> Result<Option<String>, FormError> {
    match document.get("base") {
        None => Ok(None),
        Some(Value::String(base)) if base.len() <= HREF_BYTES_MAX => Ok(Some(base.clone())),
        Some(_) => Err(at("base", FormFault::Type { expected: "a URI" })),
    }
}

fn forms(
    document: &Value,
    base: Option<&str>,
    class: Class,
    name: &str,
) -> Result<Vec<Form>, FormError> {
    let path = format!("{}.{name}.forms", class.key());
    // Names are trimmed when a description is validated, so the document is searched by the trimmed name.
    let affordance = document
        .get(class.key())
        .and_then(Value::as_object)
        .and_then(|all| all.iter().find(|(key, _)| key.trim() == name))
        .map(|(_, affordance)| affordance);
    let raw = match affordance.and_then(|affordance| affordance.get("forms")) {
        None => return Ok(Vec::new()),
        Some(Value::Array(forms)) => forms,
        Some(_) => {
            let expected = "a list of forms";
            return Err(at(path, FormFault::Type { expected }));
        }
    };
    if raw.len() > FORMS_MAX {
        let count = raw.len();
        return Err(at(
            path,
            FormFault::TooMany {
                count,
                limit: FORMS_MAX,
            },
        ));
    }
    let read_only =
        affordance.and_then(|member| member.get("readOnly")) == Some(&Value::Bool(true));
    let write_only =
        affordance.and_then(|member| member.get("writeOnly")) == Some(&Value::Bool(true));
    raw.iter()
        .enumerate()
        .map(|(index, form)| {
            let defaults = match class {
                Class::Property if read_only => vec![Operation::Read],
                Class::Property if write_only => vec![Operation::Write],
                Class::Property => vec![Operation::Read, Operation::Write],
                Class::Action => vec![Operation::Invoke],
                Class::Event => vec![Operation::Subscribe],
            };
            form_at(format!("{path}[{index}]"), form, base, defaults)
        })
        .collect()
}

fn form_at(
    path: String,
    raw: &Value,
    base: Option<&str>,
    defaults: Vec<Operation>,
) -> Result<Form, FormError> {
    let Value::Object(terms) = raw else {
        let expected = "an object";
        return Err(at(path, FormFault::Type { expected }));
    };
    let href_path = format!("{path}.href");
    let href = match terms.get("href") {
        None => return Err(at(href_path, FormFault::Missing)),
        Some(Value::String(href)) => resolve(&href_path, href, base)?,
        Some(_) => {
            let expected = "a URI";
            return Err(at(href_path, FormFault::Type { expected }));
        }
    };
    let operations = match terms.get("op") {
        None => defaults.into_iter().collect(),
        Some(Value::String(one)) => operation(one).into_iter().collect(),
        Some(Value::Array(many)) => {
            let mut operations = BTreeSet::new();
            for one in many {
                let Value::String(one) = one else {
                    let expected = "a list of operation names";
                    return Err(at(format!("{path}.op"), FormFault::Type { expected }));
                };
                operations.extend(operation(one));
            }
            operations
        }
        Some(_) => {
            let expected = "an operation name or a list of them";
            return Err(at(format!("{path}.op"), FormFault::Type { expected }));
        }
    };
    let content_type = match terms.get("contentType") {
        None => "application/json".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => {
            let expected = "a media type";
            return Err(at(
                format!("{path}.contentType"),
                FormFault::Type { expected },
            ));
        }
    };
    Ok(Form {
        path,
        href,
        operations,
        content_type,
        terms: terms.clone(),
    })
}

fn operation(name: &str) -> Option<Operation> {
    Some(match name {
        "readproperty" => Operation::Read,
        "writeproperty" => Operation::Write,
        "observeproperty" => Operation::Observe,
        "invokeaction" => Operation::Invoke,
        "subscribeevent" => Operation::Subscribe,
        _ => return None,
    })
}

/// Resolves a reference against the base, as far as bindings need it: an absolute URI stands for itself, anything else is appended.
fn resolve(path: &str, href: &str, base: Option<&str>) -> Result<Href, FormError> {
    let absolute = match (href.contains("://"), base) {
        (true, _) => href.to_owned(),
        (false, Some(base)) => format!(
            "{}/{}",
            base.trim_end_matches('/'),
            href.trim_start_matches('/')
        ),
        (false, None) => {
            return Err(at(
                path,
                FormFault::Contradiction("is relative, and the description has no base"),
            ));
        }
    };
    let wrong = |allowed| {
        let found = href.chars().take(80).collect();
        at(path, FormFault::Value { found, allowed })
    };
    if absolute.len() > HREF_BYTES_MAX {
        return Err(wrong("at most 1024 bytes"));
    }
    let (scheme, rest) = absolute
        .split_once("://")
        .ok_or_else(|| wrong("an absolute URI"))?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, target) = before.split_once('/').unwrap_or((before, ""));
    if scheme.is_empty() || authority.is_empty() {
        return Err(wrong("scheme://name/target"));
    }
    let decode = |text: &str| percent_decode(text).ok_or_else(|| wrong("percent-encoded UTF-8"));
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect::<Result<_, FormError>>()?;
    Ok(Href {
        scheme: scheme.to_ascii_lowercase(),
        authority: authority.to_owned(),
        path: decode(target)?,
        query,
    })
}

/// RFC 3986 §2.1. None when an escape is broken or the result is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Writes a text so that [`Href`] gives it back: everything but unreserved characters and slashes is escaped.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn at(path: impl Into<String>, fault: FormFault) -> FormError {
    FormError {
        path: path.into(),
        fault,
    }
}

impl Form {
    /// An error at one of this form's members.
    #[must_use]
    pub fn error(&self, member: &str, fault: FormFault) -> FormError {
        at(format!("{}.{member}", self.path), fault)
    }

    /// A member as it stands.
    #[must_use]
    pub fn term(&self, name: &str) -> Option<&Value> {
        self.terms.get(name)
    }

    /// A text member.
    ///
    /// # Errors
    /// When it is no text.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, FormError> {
        self.typed(name, Value::as_str, "a text")
    }

    /// A truth member.
    ///
    /// # Errors
    /// When it is neither true nor false.
    pub fn flag(&self, name: &'static str) -> Result<Option<bool>, FormError> {
        self.typed(name, Value::as_bool, "true or false")
    }

    /// A number member that is finite.
    ///
    /// # Errors
    /// When it is no number.
    pub fn number(&self, name: &'static str) -> Result<Option<f64>, FormError> {
        let finite = |value: &Value| value.as_f64().filter(|number| number.is_finite());
        self.typed(name, finite, "a number")
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// When it is no whole number, or out of bounds.
    pub fn integer(
        &self,
        name: &'static str,
        min: i64,
        max: i64,
    ) -> Result<Option<i64>, FormError> {
        let Some(found) = self.typed(name, Value::as_i64, "a whole number")? else {
            return Ok(None);
        };
        if (min..=max).contains(&found) {
            Ok(Some(found))
        } else {
            Err(self.error(name, FormFault::Range { found, min, max }))
        }
    }

    fn typed<'a, T>(
        &'a self,
        name: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
        expected: &'static str,
    ) -> Result<Option<T>, FormError> {
        match self.terms.get(name) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| self.error(name, FormFault::Type { expected })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn thing(document: Value) -> ThingDescription {
        ThingDescription::from_value(document).unwrap()
    }

    fn with_form(form: Value) -> ThingDescription {
        thing(
            json!({"id": "urn:x", "title": "X", "base": "modbus+rtu://bus/7/", "properties": {
                "level": {"type": "integer", "forms": [form]}
            }}),
        )
    }

    #[test]
    fn a_form_has_the_default_operations_of_its_class() {
        let thing = with_form(json!({"href": "3?quantity=2"}));
        let found = affordances(&thing).unwrap();
        let form = &found[0].forms[0];
        assert_eq!(form.operations, [Operation::Read, Operation::Write].into());
        assert_eq!(
            (form.href.scheme.as_str(), form.href.authority.as_str()),
            ("modbus+rtu", "bus")
        );
        assert_eq!(form.href.path, "7/3");
        assert_eq!(form.href.query, [("quantity".into(), "2".into())]);
    }

    #[test]
    fn a_wrong_form_names_its_path() {
        for (form, path, says) in [
            (json!({}), "properties.level.forms[0].href", "missing"),
            (json!(3), "properties.level.forms[0]", "object"),
            (json!({"href": 3}), "properties.level.forms[0].href", "URI"),
            (
                json!({"href": "%zz"}),
                "properties.level.forms[0].href",
                "percent",
            ),
            (
                json!({"href": "x", "op": 3}),
                "properties.level.forms[0].op",
                "operation",
            ),
            (
                json!({"href": "x", "contentType": 3}),
                "properties.level.forms[0].contentType",
                "media",
            ),
        ] {
            let error = affordances(&with_form(form)).unwrap_err();
            assert_eq!(error.path, path);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn forms_of_two_protocols_in_one_thing_are_refused() {
        let two = thing(json!({"id": "urn:x", "title": "X", "properties": {
            "a": {"forms": [{"href": "mqtt://b/t"}]}, "b": {"forms": [{"href": "gatt://c/d"}]}
        }}));
        assert!(
            scheme(&two)
                .unwrap_err()
                .to_string()
                .contains("same scheme")
        );
    }

    proptest! {
        #[test]
        fn an_encoded_topic_comes_back(topic in "[^\\x00]{1,40}") {
            let href = format!("mqtt://broker/{}", percent_encode(&topic));
            prop_assert_eq!(resolve("p", &href, None).unwrap().path, topic);
        }

        #[test]
        fn any_href_is_taken_or_refused(href in "\\PC{0,60}") {
            let _ = resolve("p", &href, Some("a://b/c"));
            let _ = resolve("p", &href, None);
        }
    }
}
