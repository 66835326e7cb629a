//! Why a value may not be sent, in a person's terms. Read [`schema`](super::schema) first, which finds it out.

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
    /// Whose value it is. Boxed, because errors should be small where all is well.
    pub subject: Box<Subject>,
    /// What is wrong with it.
    pub fault: ValueFault,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ValueFault {
    /// Another type is needed.
    #[error("{actual} is not {}", kind(*expected))]
    WrongType {
        /// What the schema wants.
        expected: Option<DataType>,
        /// What was given.
        actual: Value,
    },
    /// A number outside its range.
    #[error("{actual} is not {}", range(*min, *max, unit.as_deref()))]
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

/// What a number must be, in words: `within 0 to 100 %`, `at least 5`.
fn range(min: Option<f64>, max: Option<f64>, unit: Option<&str>) -> String {
    let unit = unit.map(|unit| format!(" {unit}")).unwrap_or_default();
    match (min, max) {
        (Some(min), Some(max)) => format!("within {min} to {max}{unit}"),
        (Some(min), None) => format!("at least {min}{unit}"),
        (None, Some(max)) => format!("at most {max}{unit}"),
        (None, None) => "in its range".to_owned(),
    }
}

/// A type in words.
fn kind(expected: Option<DataType>) -> &'static str {
    match expected {
        Some(DataType::Boolean) => "true or false",
        Some(DataType::Integer) => "a whole number",
        Some(DataType::Number) => "a number",
        Some(DataType::String) => "a text",
        Some(DataType::Object) => "an object",
        Some(DataType::Array) => "a list",
        Some(DataType::Null) => "null",
        None => "of a type that is described",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_said_as_a_person_says_them() {
        let said = |min, max, unit: Option<&str>| {
            let unit = unit.map(str::to_owned);
            let actual = 400.0;
            ValueFault::OutOfRange {
                min,
                max,
                actual,
                unit,
            }
            .to_string()
        };
        assert_eq!(
            said(Some(0.0), Some(100.0), Some("%")),
            "400 is not within 0 to 100 %"
        );
        assert_eq!(said(Some(500.0), None, None), "400 is not at least 500");
        assert_eq!(said(None, Some(0.5), None), "400 is not at most 0.5");
        let fault = ValueFault::WrongType {
            expected: Some(DataType::Integer),
            actual: json!("much"),
        };
        assert_eq!(fault.to_string(), "\"much\" is not a whole number");
    }
}
