//! Values for what an operation needs, from the words of a clause.
//!
//! A value that the schema does not allow is refused with the allowed range; nothing is clamped except
//! a relative step without a number ("brighter"), which stops at the end of the range.

use serde_json::{Map, Value};

use crate::things::description::{Choice, DataSchema};
use crate::things::schema::{Subject, ValueError, ValueFault, choice_names};

use super::Refusal;
use super::clause::{Change, Clause, Number};
use super::phrases::{Offer, Slot, choice_words, is_number, is_text, words};
use super::text::Amount;
use super::wording::{Unit, Wording, starts_with};

/// What the words of a clause give an operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filled {
    /// The whole input; `None` where none is taken.
    Value(Option<Value>),
    /// This slot has no value in the clause.
    Missing(usize),
    /// A value is there, and wrong.
    Refused(Refusal),
    /// The clause has a value that this operation has no place for.
    Unfit,
}

/// Takes the values for `offer` from the clause.
pub(super) fn fill(offer: &Offer, clause: &Clause, thing: &str, wording: &Wording) -> Filled {
    let mut numbers: Vec<&Number> = clause.numbers.iter().filter(|n| !n.is_change).collect();
    let mut quotes: Vec<&String> = clause.quotes.iter().collect();
    if let Some(fixed) = &offer.fixed {
        let whole = numbers.is_empty() && quotes.is_empty() && clause.numbers.is_empty();
        return match offer.slots.first() {
            Some(slot) if whole => Filled::Value(Some(whole_input(slot, fixed.clone()))),
            _ => Filled::Unfit,
        };
    }
    let mut input = Map::new();
    let mut missing = None;
    for (index, slot) in offer.slots.iter().enumerate() {
        let value = if is_text(&slot.schema) {
            (!quotes.is_empty()).then(|| Value::String(quotes.remove(0).clone()))
        } else if !slot.schema.choices.is_empty() {
            chosen(slot, clause).or_else(|| extreme_choice(&slot.schema, clause, wording))
        } else if is_number(&slot.schema) {
            match take_number(slot, &mut numbers, clause, thing, wording) {
                Ok(value) => value,
                Err(refusal) => return Filled::Refused(refusal),
            }
        } else {
            None
        };
        match value {
            Some(value) if slot.member.is_none() => {
                return if numbers.is_empty() && quotes.is_empty() {
                    Filled::Value(Some(value))
                } else {
                    Filled::Unfit
                };
            }
            Some(value) => {
                input.insert(slot.member.clone().unwrap_or_default(), value);
            }
            None if slot.required => missing = missing.or(Some(index)),
            None => {}
        }
    }
    if !numbers.is_empty() || !quotes.is_empty() {
        return Filled::Unfit;
    }
    match missing {
        Some(slot) => Filled::Missing(slot),
        None if offer.slots.is_empty() => Filled::Value(None),
        None => Filled::Value(Some(Value::Object(input))),
    }
}

/// One value as the whole input.
pub(super) fn whole_input(slot: &Slot, value: Value) -> Value {
    match &slot.member {
        None => value,
        Some(member) => Value::Object(Map::from_iter([(member.clone(), value)])),
    }
}

fn chosen(slot: &Slot, clause: &Clause) -> Option<Value> {
    let said = |choice: &Choice| {
        choice_words(choice)
            .iter()
            .filter(|said| {
                (0..clause.tokens.len()).any(|at| starts_with(&clause.tokens[at..], said))
            })
            .map(Vec::len)
            .max()
    };
    let found = slot
        .schema
        .choices
        .iter()
        .filter_map(|choice| Some((said(choice)?, choice)));
    let (_, choice) = found.max_by_key(|(length, _)| *length)?;
    Some(choice.value.clone())
}

fn says(clause: &Clause, list: &super::wording::PhraseList) -> bool {
    (0..clause.tokens.len()).any(|at| list.prefix_len(&clause.tokens[at..]) > 0)
}

fn extreme_choice(schema: &DataSchema, clause: &Clause, wording: &Wording) -> Option<Value> {
    if says(clause, &wording.numbers.largest) {
        schema.choices.last().map(|choice| choice.value.clone())
    } else if says(clause, &wording.numbers.smallest) {
        schema.choices.first().map(|choice| choice.value.clone())
    } else {
        None
    }
}

fn take_number(
    slot: &Slot,
    numbers: &mut Vec<&Number>,
    clause: &Clause,
    thing: &str,
    wording: &Wording,
) -> Result<Option<Value>, Refusal> {
    let schema = &slot.schema;
    if numbers.is_empty() {
        let extreme = if says(clause, &wording.numbers.largest) {
            schema.maximum
        } else if says(clause, &wording.numbers.smallest) {
            schema.minimum
        } else {
            None
        };
        return Ok(extreme.map(json_number));
    }
    let fits = |number: &&Number| in_unit_of(number, schema, wording).is_some();
    let Some(at) = numbers.iter().position(fits) else {
        let said = &numbers[0].said;
        return Err(Refusal::WrongUnit {
            thing: thing.to_owned(),
            expected: schema
                .unit
                .clone()
                .unwrap_or_else(|| slot.title.to_lowercase()),
            actual: said.clone(),
        });
    };
    let number = numbers.remove(at);
    Ok(in_unit_of(number, schema, wording).map(json_number))
}

/// The number in the schema's unit; `None` if its unit measures something else.
fn in_unit_of(number: &Number, schema: &DataSchema, wording: &Wording) -> Option<f64> {
    let value = match number.amount {
        Amount::Number(value) => value,
        Amount::Fraction(part) => {
            let (minimum, maximum) = (schema.minimum?, schema.maximum?);
            return Some(tidy(minimum + part * (maximum - minimum)));
        }
    };
    let Some(said) = number.unit.as_ref().and_then(|key| wording.units.get(key)) else {
        return Some(value);
    };
    let wanted = schema
        .unit
        .as_deref()
        .and_then(|code| wording.unit_by_code(code))?;
    if !said
        .dimensions
        .iter()
        .any(|dimension| wanted.dimensions.contains(dimension))
    {
        return None;
    }
    if is_loose(said) || is_loose(wanted) {
        return Some(value);
    }
    Some(tidy(
        (value + said.offset) * said.factor / wanted.factor - wanted.offset,
    ))
}

/// "degrees" takes the scale of whatever it is compared with.
fn is_loose(unit: &Unit) -> bool {
    unit.dimensions.len() > 1
}

/// Takes off what binary fractions add in a conversion.
fn tidy(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Whole numbers as JSON integers, so that 21 and 21.0 are one value.
pub(super) fn json_number(value: f64) -> Value {
    // Beyond 2^53 an f64 holds no exact integers.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

/// The value after a relative change from `present`.
pub(super) fn changed(
    slot: &Slot,
    present: &Value,
    change: &Change,
    clause: &Clause,
    thing: &str,
    wording: &Wording,
) -> Result<Value, Refusal> {
    let schema = &slot.schema;
    let at_limit = |value: &Value| Refusal::AtLimit {
        thing: thing.to_owned(),
        limit: super::values::value_words(value, schema, wording),
    };
    if !schema.choices.is_empty() {
        let at = schema
            .choices
            .iter()
            .position(|choice| choice.value == *present);
        let next = at.and_then(|at| at.checked_add_signed(change.sign as isize));
        return next
            .and_then(|next| schema.choices.get(next))
            .map(|choice| choice.value.clone())
            .ok_or_else(|| at_limit(present));
    }
    let unknown = || Refusal::StateUnknown {
        thing: thing.to_owned(),
        property: slot.title.clone(),
    };
    let from = present.as_f64().ok_or_else(unknown)?;
    if let Some(number) = clause.numbers.iter().find(|number| number.is_change) {
        let zero = Number {
            amount: Amount::Number(0.0),
            ..number.clone()
        };
        // The difference of two conversions is free of offsets: 2 degrees are 2 degrees.
        let size = in_unit_of(number, schema, wording).zip(in_unit_of(&zero, schema, wording));
        let Some((size, zero)) = size else {
            return Err(Refusal::WrongUnit {
                thing: thing.to_owned(),
                expected: schema.unit.clone().unwrap_or_default(),
                actual: number.said.clone(),
            });
        };
        return Ok(json_number(tidy(from + change.sign * (size - zero))));
    }
    let step = step(schema, change, wording).ok_or_else(unknown)?;
    let grid = schema.multiple_of.or((schema.data_type
        == Some(crate::things::description::DataType::Integer))
    .then_some(1.0));
    let moved = from + change.sign * step * change.steps;
    let moved = grid.map_or(moved, |grid| (moved / grid).round() * grid);
    let moved = moved
        .max(schema.minimum.unwrap_or(f64::NEG_INFINITY))
        .min(schema.maximum.unwrap_or(f64::INFINITY));
    let value = json_number(tidy(moved));
    if tidy(moved) == tidy(from) {
        return Err(at_limit(&value));
    }
    Ok(value)
}

/// One step: the quantity's own, else a tenth of the range to one significant digit,
/// because 50 mm/s is what a person expects where the range is 490.
fn step(schema: &DataSchema, change: &Change, wording: &Wording) -> Option<f64> {
    let unit = schema
        .unit
        .as_deref()
        .and_then(|code| wording.unit_by_code(code));
    let by_unit = |unit: &Unit| {
        unit.dimensions
            .iter()
            .find_map(|dimension| wording.quantities.get(dimension)?.step)
    };
    let quantity = change
        .quantity
        .as_ref()
        .and_then(|key| wording.quantities.get(key));
    if let Some(step) = quantity
        .and_then(|quantity| quantity.step)
        .or_else(|| by_unit(unit?))
    {
        return Some(step / unit.map_or(1.0, |unit| unit.factor));
    }
    let tenth = (schema.maximum? - schema.minimum?) / 10.0;
    if tenth <= 0.0 {
        return None;
    }
    let scale = 10f64.powf(tenth.log10().floor());
    Some((tenth / scale).round() * scale)
}

/// A word that stands where a value should, and is none that the slot takes.
pub(super) fn wrong_word(slot: &Slot, thing: &str, affordance: &str, said: &str) -> Refusal {
    let actual = Value::String(said.to_owned());
    Refusal::Value(ValueError {
        subject: Box::new(Subject {
            thing: thing.to_owned(),
            affordance: affordance.to_owned(),
            member: slot.member.clone(),
        }),
        fault: if slot.schema.choices.is_empty() {
            ValueFault::WrongType {
                expected: slot.schema.data_type,
                actual,
            }
        } else {
            ValueFault::NotInEnum {
                allowed: choice_names(&slot.schema),
                actual,
            }
        },
    })
}

/// Whether a choice of `offer` is named in these words (an answer to "which one?").
pub(super) fn value_is_named(value: &Value, schema: &DataSchema, said: &[String]) -> bool {
    schema
        .choices
        .iter()
        .filter(|choice| choice.value == *value)
        .flat_map(choice_words)
        .chain(value.as_str().map(words))
        .any(|name| super::phrases::contains(said, &name))
}
