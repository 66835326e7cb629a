//! Checks a value against an affordance's data schema before it goes to the device.
//!
//! The verdict is JSON Schema's (the `jsonschema` crate); this module only says in a
//! person's terms which thing, which value and what would be allowed. It never changes a
//! value: a brightness of 400 is refused, not clamped.

use std::collections::BTreeMap;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::description::{DataSchema, Naming, ThingDescription};

pub use super::value_error::{Subject, ValueError, ValueFault};

/// The compiled schemas of one thing.
#[derive(Debug)]
pub struct ThingSchemas {
    thing: String,
    /// `None`: the action takes no input.
    inputs: BTreeMap<String, Compiled<Option<Validator>>>,
    properties: BTreeMap<String, Compiled<Validator>>,
}

#[derive(Debug)]
struct Compiled<V> {
    title: String,
    schema: Option<DataSchema>,
    validator: V,
}

/// A schema of a description that is no JSON Schema. The device is to blame.
#[derive(Debug, thiserror::Error)]
#[error("{path}: not a usable JSON Schema: {reason}")]
pub struct SchemaError {
    /// Where in the description.
    pub path: String,
    /// What the compiler said.
    pub reason: String,
}

/// Why a request does not fit a thing. Whoever asked is to blame.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CheckError {
    /// The thing has no such action.
    #[error("{thing} has no action {name:?}")]
    NoSuchAction {
        /// The thing's title.
        thing: String,
        /// The action's name.
        name: String,
    },
    /// The thing has no such property.
    #[error("{thing} has no property {name:?}")]
    NoSuchProperty {
        /// The thing's title.
        thing: String,
        /// The property's name.
        name: String,
    },
    /// The property is `readOnly`.
    #[error("{name:?} of {thing} can only be read")]
    ReadOnly {
        /// The thing's title.
        thing: String,
        /// The property's name.
        name: String,
    },
    /// The property is `writeOnly`.
    #[error("{name:?} of {thing} can only be written")]
    WriteOnly {
        /// The thing's title.
        thing: String,
        /// The property's name.
        name: String,
    },
    /// The value does not fit.
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl ThingSchemas {
    /// Compiles the schemas of all actions' inputs and all properties.
    ///
    /// # Errors
    /// [`SchemaError`] for the first that does not compile; references to other documents
    /// are not followed.
    pub fn compile(description: &ThingDescription) -> Result<Self, SchemaError> {
        let mut inputs = BTreeMap::new();
        for (name, action) in &description.actions {
            let path = format!("actions.{name}.input");
            let compiled = Compiled {
                title: title(&action.naming, name),
                validator: action
                    .input
                    .as_ref()
                    .map(|schema| compile(&path, schema))
                    .transpose()?,
                schema: action.input.clone(),
            };
            inputs.insert(name.clone(), compiled);
        }
        let mut properties = BTreeMap::new();
        for (name, property) in &description.properties {
            let compiled = Compiled {
                title: title(&property.naming, name),
                validator: compile(&format!("properties.{name}"), &property.schema)?,
                schema: Some(property.schema.clone()),
            };
            properties.insert(name.clone(), compiled);
        }
        Ok(Self {
            thing: description.title.clone(),
            inputs,
            properties,
        })
    }

    /// Whether `action` exists and takes this `input`.
    ///
    /// # Errors
    /// [`CheckError`]
    pub fn check_input(&self, action: &str, input: Option<&Value>) -> Result<(), CheckError> {
        let compiled = self
            .inputs
            .get(action)
            .ok_or_else(|| CheckError::NoSuchAction {
                thing: self.thing.clone(),
                name: action.to_owned(),
            })?;
        let whole = |fault| ValueError {
            subject: Box::new(self.subject(&compiled.title, None)),
            fault,
        };
        let member = || compiled.title.clone();
        match (&compiled.validator, &compiled.schema, input) {
            (Some(validator), Some(schema), Some(value)) => {
                self.check(&compiled.title, validator, schema, value)
            }
            (None, _, Some(_)) => Err(whole(ValueFault::Unexpected { member: member() })),
            (Some(_), _, None) => Err(whole(ValueFault::Missing { member: member() })),
            _ => Ok(()),
        }
        .map_err(CheckError::Value)
    }

    /// Whether `property` exists, may be written and takes this `value`.
    ///
    /// # Errors
    /// [`CheckError`]
    pub fn check_write(&self, property: &str, value: &Value) -> Result<(), CheckError> {
        let (compiled, schema) = self.property(property)?;
        if schema.read_only {
            return Err(CheckError::ReadOnly {
                thing: self.thing.clone(),
                name: property.to_owned(),
            });
        }
        self.check(&compiled.title, &compiled.validator, schema, value)
            .map_err(CheckError::Value)
    }

    /// Whether `property` exists and may be read.
    ///
    /// # Errors
    /// [`CheckError`]
    pub fn check_read(&self, property: &str) -> Result<(), CheckError> {
        let (_, schema) = self.property(property)?;
        if schema.write_only {
            return Err(CheckError::WriteOnly {
                thing: self.thing.clone(),
                name: property.to_owned(),
            });
        }
        Ok(())
    }

    fn property(&self, name: &str) -> Result<(&Compiled<Validator>, &DataSchema), CheckError> {
        self.properties
            .get(name)
            .and_then(|compiled| Some((compiled, compiled.schema.as_ref()?)))
            .ok_or_else(|| CheckError::NoSuchProperty {
                thing: self.thing.clone(),
                name: name.to_owned(),
            })
    }

    fn check(
        &self,
        title: &str,
        validator: &Validator,
        schema: &DataSchema,
        value: &Value,
    ) -> Result<(), ValueError> {
        let Err(error) = validator.validate(value) else {
            return Ok(());
        };
        // Inputs are flat objects in practice: the first step of the path is the member.
        let path = error.instance_path().as_str().trim_start_matches('/');
        let member = path.split('/').next().filter(|step| !step.is_empty());
        let part = member.and_then(|name| schema.members.get(name));
        Err(ValueError {
            subject: Box::new(self.subject(title, member.map(str::to_owned))),
            fault: fault(&error, part.unwrap_or(schema)),
        })
    }

    fn subject(&self, affordance: &str, member: Option<String>) -> Subject {
        Subject {
            thing: self.thing.clone(),
            affordance: affordance.to_owned(),
            member,
        }
    }
}

fn title(naming: &Naming, name: &str) -> String {
    naming.title.clone().unwrap_or_else(|| name.to_owned())
}

fn compile(path: &str, schema: &DataSchema) -> Result<Validator, SchemaError> {
    jsonschema::draft7::new(&schema.json).map_err(|error| SchemaError {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn fault(error: &ValidationError<'_>, schema: &DataSchema) -> ValueFault {
    let actual = error.instance().as_ref().clone();
    match error.kind() {
        ValidationErrorKind::Type { .. } => ValueFault::WrongType {
            expected: schema.data_type,
            actual,
        },
        ValidationErrorKind::Minimum { .. }
        | ValidationErrorKind::Maximum { .. }
        | ValidationErrorKind::ExclusiveMinimum { .. }
        | ValidationErrorKind::ExclusiveMaximum { .. } => ValueFault::OutOfRange {
            min: schema.minimum,
            max: schema.maximum,
            actual: actual.as_f64().unwrap_or(f64::NAN),
            unit: schema.unit.clone(),
        },
        ValidationErrorKind::MultipleOf { .. } => ValueFault::NotAMultiple {
            step: schema.multiple_of.unwrap_or(1.0),
            actual: actual.as_f64().unwrap_or(f64::NAN),
        },
        ValidationErrorKind::Enum { .. }
        | ValidationErrorKind::Constant { .. }
        | ValidationErrorKind::OneOfNotValid { .. }
            if !schema.choices.is_empty() =>
        {
            ValueFault::NotInEnum {
                allowed: choice_names(schema),
                actual,
            }
        }
        ValidationErrorKind::Required { property } => ValueFault::Missing {
            member: property.as_str().unwrap_or_default().to_owned(),
        },
        ValidationErrorKind::AdditionalProperties { unexpected } => ValueFault::Unexpected {
            member: unexpected.join(", "),
        },
        _ => ValueFault::Other {
            rule: error.to_string(),
        },
    }
}

/// What a person may say for each value of an enumeration.
pub fn choice_names(schema: &DataSchema) -> Vec<String> {
    schema
        .choices
        .iter()
        .map(|choice| match (&choice.title, &choice.value) {
            (Some(title), _) => title.to_lowercase(),
            (None, Value::String(text)) => text.clone(),
            (None, value) => value.to_string(),
        })
        .collect()
}
