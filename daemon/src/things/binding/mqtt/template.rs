//! The safe part of Home Assistant's templates: expressions and `if`, a short list of filters, numbers multiplied by numbers.
//!
//! Templates come out of the broker, so whoever can publish can write one. minijinja bounds time (fuel) but not memory: loops, `set`,
//! repeated strings and lists can double what they hold at every step. What is taken here grows at most linearly with template and payload,
//! both of which are bounded; everything else is refused by name when the template is read, never half understood later.
//!
//! Read first: <https://www.home-assistant.io/docs/configuration/templating/#using-templates-with-the-mqtt-integration>.

use std::sync::Arc;

use minijinja::value::Rest;
use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, Value as Jinja, tests as jinja_tests,
};
use serde_json::Value;

/// The longest template in bytes; documented ones have under 300.
pub const TEMPLATE_BYTES_MAX: usize = 2048;
/// The longest payload that goes through a template, in bytes: with the longest template this bounds a result to some 4 MiB.
pub const TEMPLATE_PAYLOAD_MAX: usize = 16 * 1024;
/// Instructions that one rendering may take; ordinary templates take under 100.
const FUEL: u64 = 10_000;
/// Name of the one template in its environment.
const NAME: &str = "template";

const FILTERS: &[&str] = &[
    "float",
    "int",
    "round",
    "abs",
    "upper",
    "lower",
    "trim",
    "default",
    "iif",
    "is_defined",
    "length",
    "first",
    "last",
    "string",
    "bool",
];
const STATEMENTS: &[&str] = &["if", "elif", "else", "endif"];
const VARIABLES: &[&str] = &["value", "value_json"];

/// Why a template is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Longer than [`TEMPLATE_BYTES_MAX`].
    #[error("the template has {0} bytes, more than {TEMPLATE_BYTES_MAX}")]
    TooLong(usize),
    /// It says something that we do not take.
    #[error("the template uses {0}, which is not taken here (known: value, value_json, if, and the filters {filters})", filters = FILTERS.join(", "))]
    NotTaken(String),
    /// It is no template.
    #[error("the template cannot be read: {0}")]
    Syntax(String),
}

/// A template that was read and checked.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    environment: Arc<Environment<'static>>,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] names what is not taken.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong(text.len()));
        }
        refuse_what_grows(&without_strings(text))?;
        let mut environment = environment();
        environment
            .add_template_owned(NAME, text.to_owned())
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        let used = environment
            .get_template(NAME)
            .map_err(|error| TemplateError::Syntax(error.to_string()))?
            .undeclared_variables(false);
        if let Some(unknown) = used.iter().find(|name| !VARIABLES.contains(&name.as_str())) {
            return Err(TemplateError::NotTaken(format!("`{unknown}`")));
        }
        Ok(Self {
            text: text.to_owned(),
            environment: Arc::new(environment),
        })
    }

    /// The template's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it makes of a payload; an empty text is no news.
    ///
    /// # Errors
    /// The reason in minijinja's words: a filter that does not fit its value, too long a payload, too long a rendering.
    pub fn render(&self, payload: &str) -> Result<String, String> {
        if payload.len() > TEMPLATE_PAYLOAD_MAX {
            return Err(format!(
                "the payload has {} bytes, more than {TEMPLATE_PAYLOAD_MAX}",
                payload.len()
            ));
        }
        let json = serde_json::from_str::<Value>(payload)
            .map_or(Jinja::UNDEFINED, |json| Jinja::from_serialize(&json));
        self.render_with(Jinja::from(payload), json)
    }

    /// What it makes of a value that is to be sent.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_value(&self, value: &Value) -> Result<String, String> {
        self.render_with(Jinja::from_serialize(value), Jinja::UNDEFINED)
    }

    fn render_with(&self, value: Jinja, value_json: Jinja) -> Result<String, String> {
        let context = minijinja::context! { value, value_json };
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| error.to_string())?;
        let text = template
            .render(context)
            .map_err(|error| error.to_string())?;
        Ok(text.trim().to_owned())
    }
}

/// The template without the contents of its string literals, so that they are not taken for code. Literals stay as `''`.
fn without_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open: Option<char> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match open {
            None => {
                out.push(letter);
                if matches!(letter, '\'' | '"') {
                    open = Some(letter);
                }
            }
            Some(_) if letter == '\\' => {
                letters.next();
            }
            Some(quote) if letter == quote => {
                out.push(letter);
                open = None;
            }
            Some(_) => {}
        }
    }
    out
}

/// The code of the template, part by part: what stands between `{{ }}` and `{% %}`.
fn parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(['{']).map(|at| at + 1)?;
        let after = rest.get(start..)?;
        let (close, is_statement) = match after.chars().next() {
            Some('{') => ("}}", false),
            Some('%') => ("%}", true),
            _ => {
                rest = after;
                return Some((false, ""));
            }
        };
        let body = after.get(1..)?;
        let end = body.find(close).unwrap_or(body.len());
        rest = body.get(end..).unwrap_or("");
        Some((
            is_statement,
            body.get(..end).unwrap_or("").trim_matches(['-', '+', ' ']),
        ))
    })
}

fn refuse_what_grows(text: &str) -> Result<(), TemplateError> {
    let not_taken = |what: String| Err(TemplateError::NotTaken(what));
    for (is_statement, part) in parts(text) {
        let first = part
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .next()
            .unwrap_or("");
        if is_statement && !STATEMENTS.contains(&first) {
            return not_taken(format!("`{{% {first} %}}`"));
        }
        for after in part.split('|').skip(1) {
            let name: String = after
                .trim_start()
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect();
            if !FILTERS.contains(&name.as_str()) {
                return not_taken(format!("the filter `{name}`"));
            }
        }
        for (at, _) in part.match_indices('*') {
            let (before, after) = (part[..at].trim_end(), part[at + 1..].trim_start());
            if !(is_number_filter(before) && starts_with_number(after)) {
                return not_taken(
                    "a multiplication other than of a |float or |int by a number".to_owned(),
                );
            }
        }
    }
    Ok(())
}

/// Whether this ends with `| float`, `| int`, either with a default in parentheses.
fn is_number_filter(before: &str) -> bool {
    let name = match before.strip_suffix(')') {
        Some(call) => match call.rsplit_once('(') {
            Some((name, argument)) if !argument.contains(')') => name.trim_end(),
            _ => return false,
        },
        None => before,
    };
    ["float", "int"].iter().any(|filter| {
        name.strip_suffix(filter)
            .is_some_and(|rest| rest.trim_end().ends_with('|'))
    })
}

fn starts_with_number(after: &str) -> bool {
    let number: String = after
        .chars()
        .take_while(|letter| letter.is_ascii_digit() || *letter == '.')
        .collect();
    number.parse::<f64>().is_ok()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.add_filter("float", float);
    environment.add_filter("int", int);
    environment.add_filter("round", round);
    environment.add_filter("abs", minijinja::filters::abs);
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("trim", minijinja::filters::trim);
    environment.add_filter("default", minijinja::filters::default);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("first", minijinja::filters::first);
    environment.add_filter("last", minijinja::filters::last);
    environment.add_filter("string", minijinja::filters::string);
    environment.add_filter("bool", minijinja::filters::bool);
    environment.add_filter("iif", iif);
    environment.add_filter("is_defined", |value: Jinja| value);
    environment.add_test("defined", jinja_tests::is_defined);
    environment.add_test("undefined", jinja_tests::is_undefined);
    environment.add_test("none", jinja_tests::is_none);
    environment.add_test("number", jinja_tests::is_number);
    environment.add_test("string", jinja_tests::is_string);
    environment
}

fn read_number(value: &Jinja) -> Option<f64> {
    let number = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    number.filter(|number: &f64| number.is_finite())
}

fn float(value: Jinja, default: Option<Jinja>) -> Result<Jinja, Error> {
    match (read_number(&value), default) {
        (Some(number), _) => Ok(Jinja::from(number)),
        (None, Some(default)) => Ok(default),
        (None, None) => Err(Error::new(ErrorKind::InvalidOperation, "not a number")),
    }
}

fn int(value: Jinja, default: Option<Jinja>) -> Result<Jinja, Error> {
    match (read_number(&value), default) {
        (Some(number), _) if number.abs() < 9e15 => Ok(Jinja::from(number as i64)),
        (_, Some(default)) => Ok(default),
        (_, None) => Err(Error::new(
            ErrorKind::InvalidOperation,
            "not a whole number",
        )),
    }
}

fn round(value: Jinja, precision: Option<i32>) -> Result<Jinja, Error> {
    let number = read_number(&value)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "not a number"))?;
    let factor = 10f64.powi(precision.unwrap_or(0).clamp(0, 12));
    Ok(Jinja::from((number * factor).round() / factor))
}

/// `condition | iif(then, otherwise)`.
fn iif(value: Jinja, results: Rest<Jinja>) -> Jinja {
    let otherwise = || {
        results
            .get(1)
            .cloned()
            .unwrap_or_else(|| Jinja::from(false))
    };
    if value.is_true() {
        results
            .first()
            .cloned()
            .unwrap_or_else(|| Jinja::from(true))
    } else {
        otherwise()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn render(template: &str, payload: &str) -> Result<String, String> {
        Template::parse(template).unwrap().render(payload)
    }

    #[test]
    fn documented_templates_are_understood() {
        for (template, payload, result) in [
            (
                "{{ value_json.temperature}}",
                r#"{ "temperature": 23.20, "humidity": 43.70 }"#,
                "23.2",
            ),
            ("{{ value_json['POWER1'] }}", r#"{"POWER1":"ON"}"#, "ON"),
            (
                "{{ value_json.ENERGY.Power }}",
                r#"{"ENERGY":{"Power":12}}"#,
                "12",
            ),
            ("{{ value | float / 10 }}", "217", "21.7"),
            (
                "{{ (value_json.t | float * 100) | round(0) | int }}",
                r#"{"t":"0.217"}"#,
                "22",
            ),
            ("{% if value == '1' %}ON{% else %}OFF{% endif %}", "1", "ON"),
            (
                "{{ 'ON' if value_json.on else 'OFF' }}",
                r#"{"on":false}"#,
                "OFF",
            ),
            ("{{ value_json.missing.deeper }}", "{}", ""),
            (
                "{{ value_json.occupancy | iif('ON', 'OFF') }}",
                r#"{"occupancy":true}"#,
                "ON",
            ),
            ("{{ value | upper }}", "on", "ON"),
            ("{{ value_json.x | default('none') }}", "{}", "none"),
            ("{{ value_json.x is defined }}", "{}", "False"),
        ] {
            assert_eq!(
                render(template, payload).as_deref(),
                Ok(result),
                "{template}"
            );
        }
        let command = Template::parse(r#"{"state": "{{ value }}", "n": 1}"#).unwrap();
        assert_eq!(
            command.render_value(&json!("ON")).unwrap(),
            r#"{"state": "ON", "n": 1}"#
        );
    }

    #[test]
    fn what_could_grow_or_reach_out_is_refused_by_name() {
        for (template, culprit) in [
            ("{% for i in range(9) %}x{% endfor %}", "for"),
            ("{% set x = value ~ value %}{{ x }}", "set"),
            ("{{ states('sensor.x') }}", "states"),
            ("{{ now() }}", "now"),
            ("{{ value | replace('a', 'aa') }}", "replace"),
            ("{{ value * 1000000 }}", "multiplication"),
            ("{{ [value] * 1000000 }}", "multiplication"),
            ("{{ value|float * value }}", "multiplication"),
            ("{{ value | timestamp_custom('%H') }}", "timestamp_custom"),
            ("{{ trigger.topic }}", "trigger"),
            ("{% include 'x' %}", "include"),
        ] {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(error.contains(culprit), "{template}: {error}");
        }
        assert!(matches!(
            Template::parse("{{ value "),
            Err(TemplateError::Syntax(_))
        ));
        assert!(matches!(
            Template::parse(&"x".repeat(3000)),
            Err(TemplateError::TooLong(3000))
        ));
        assert!(render("{{ value }}", &"x".repeat(20_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_template_is_bounded_or_refused(pieces in prop::collection::vec(prop::sample::select(vec![
            "{{", "}}", "{%", "%}", " value ", "value_json", ".a", "['a']", "|", "float", "int", "round(1)", "*", "100", "~", "+",
            "if ", "else", "endif", "for ", "set ", "'", "\"", "(", ")", "[", "]", " in ", "range(9)", "macro", "x", "=", "é"]), 0..24),
            payload in "\\PC{0,40}") {
            if let Ok(template) = Template::parse(&pieces.concat())
                && let Ok(text) = template.render(&payload) {
                prop_assert!(text.len() <= (payload.len() + 64) * (TEMPLATE_BYTES_MAX / 4));
            }
        }
    }
}
