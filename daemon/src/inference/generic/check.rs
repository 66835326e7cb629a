//! Holds a request against types, dimensions and limits of its bundle. Pure.

use std::collections::BTreeMap;

use crate::inference::{
    arrays::{Array, Arrays},
    error::InferenceError,
    manifest::{Dimension, TensorFacts, TensorsGraph},
};

/// Holds a request against what the bundle says, and returns how many rows it has if the first axis is a batch.
///
/// # Errors
/// [`InferenceError::Tensor`] for the first input that is absent, unknown, of another type, or of another shape; free dimensions of one name
/// must have one extent, within its limits.
pub(super) fn check(
    graph: &TensorsGraph,
    inputs: &Arrays,
) -> Result<Option<usize>, InferenceError> {
    let wrong = |name: &str, expected: String, actual: String| InferenceError::Tensor {
        name: name.to_owned(),
        expected,
        actual,
    };
    if let Some(extra) = inputs.keys().find(|name| !graph.inputs.contains_key(*name)) {
        let known: Vec<&str> = graph.inputs.keys().map(String::as_str).collect();
        return Err(wrong(
            extra,
            format!("absent (the inputs are {})", known.join(", ")),
            "there".into(),
        ));
    }
    let mut extents: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, facts) in &graph.inputs {
        let Some(array) = inputs.get(name) else {
            return Err(wrong(
                name,
                format!("{} {:?}", facts.element_type, facts.shape),
                "absent".into(),
            ));
        };
        check_one(graph, facts, array, &mut extents)
            .map_err(|(expected, actual)| wrong(name, expected, actual))?;
    }
    Ok(graph
        .batch
        .as_deref()
        .and_then(|batch| extents.get(batch).copied()))
}

type Differs = (String, String);

fn check_one<'g>(
    graph: &TensorsGraph,
    facts: &'g TensorFacts,
    array: &Array,
    extents: &mut BTreeMap<&'g str, usize>,
) -> Result<(), Differs> {
    let actual = array.values.element_type();
    if actual != facts.element_type {
        return Err((facts.element_type.clone(), actual.to_owned()));
    }
    let differs = || {
        (
            format!("of the shape {:?}", facts.shape),
            format!("{:?}", array.shape),
        )
    };
    if array.shape.len() != facts.shape.len() {
        return Err(differs());
    }
    if Array::elements_of(&array.shape) != Some(array.values.len()) {
        return Err((
            format!("of as many elements as its shape {:?} says", array.shape),
            format!("{} elements", array.values.len()),
        ));
    }
    for (dimension, &extent) in facts.shape.iter().zip(&array.shape) {
        match dimension {
            Dimension::Fixed(fixed) if u64::try_from(extent) == Ok(*fixed) => {}
            Dimension::Fixed(_) => return Err(differs()),
            Dimension::Free(name) => {
                let range = graph.range(name);
                if !range.contains(&extent) {
                    let allowed = format!("{name} from {} to {}", range.start(), range.end());
                    return Err((allowed, format!("{name} = {extent}")));
                }
                let &mut known = extents.entry(name.as_str()).or_insert(extent);
                if known != extent {
                    return Err((
                        format!("{name} = {known}, as in another input"),
                        format!("{name} = {extent}"),
                    ));
                }
            }
        }
    }
    Ok(())
}
