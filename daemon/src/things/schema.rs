//! Checks a value against an affordance's data schema before it goes to the device.
//!
//! The verdict is JSON Schema's (the `jsonschema` crate); this module only says in a
//! person's terms which thing, which value and what would be allowed. It never changes a
//! value: a brightness of 400 is refused, not clamped.

use serde_json::Value;

use super::description::DataType;

/// Whose value was checked, in the words of the description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The thing's title.
    pub thing: String,
    /// The affordance's title, or its name.
    pub affordance: String,
    /// The input member that is at fault, where the input is an object.
    pub member: Option<String>,
}

/// Why a value may not be sent. The caller (a person or a program) is to blame.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}: {}: {fault}", subject.thing, subject.affordance)]
pub struct ValueError {
    /// Whose value it is.
    pub subject: Subject,
    /// What is wrong with it.
    pub fault: ValueFault,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ValueFault {
    /// Another type is needed.
    #[error("{actual} is not of type {expected:?}")]
    WrongType {
        /// What the schema wants.
        expected: Option<DataType>,
        /// What was given.
        actual: Value,
    },
    /// A number outside its range.
    #[error("{actual} is not within {min:?} to {max:?} {}", unit.as_deref().unwrap_or(""))]
    OutOfRange {
        /// Smallest allowed value.
        min: Option<f64>,
        /// Largest allowed value.
        max: Option<f64>,
        /// What was given.
        actual: f64,
        /// The schema's unit.
        unit: Option<String>,
    },
    /// A number between the steps.
    #[error("{actual} is not a multiple of {step}")]
    NotAMultiple {
        /// `multipleOf`
        step: f64,
        /// What was given.
        actual: f64,
    },
    /// None of the values that are listed.
    #[error("{actual} is none of {}", allowed.join(", "))]
    NotInEnum {
        /// The titles (or values) that are allowed.
        allowed: Vec<String>,
        /// What was given.
        actual: Value,
    },
    /// A required part is not there.
    #[error("{member} is missing")]
    Missing {
        /// Which; the affordance's own name where the whole input is missing.
        member: String,
    },
    /// A part that the affordance does not take.
    #[error("{member} is not taken")]
    Unexpected {
        /// Which; the affordance's own name where it takes no input at all.
        member: String,
    },
    /// Any other rule of the schema.
    #[error("{rule}")]
    Other {
        /// The rule, as the validator says it.
        rule: String,
    },
}
