//! Forms of a Thing Description (TD 1.1 §5.3.4.2), read and checked; what their terms mean is each binding's business.
//!
//! Only what a form says is read here: its target (`href`, resolved against the description's `base`), its operations (`op`, with the
//! defaults of TD 1.1 §5.4), its content type, and its other members as they stand. An error names the JSON path.

mod href;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use self::href::resolve;
use crate::things::description::{DataSchema, ThingDescription};

pub use self::href::{HREF_BYTES_MAX, Href, percent_encode};

/// The most forms of one affordance. Chosen because each operation needs one, and some have an alternative.
pub const FORMS_MAX: usize = 16;

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
mod tests;
