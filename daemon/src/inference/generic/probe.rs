//! The probe of such a bundle: inputs, outputs, and how near they must be.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::inference::{
    arrays::{Array, Arrays},
    bundle::Bundle,
    error::LoadError,
    manifest::TensorFacts,
    probe::{self, ProbeError},
};

/// The known answer.
pub(in super::super) struct GenericProbe {
    pub(in super::super) inputs: Arrays,
    pub(super) outputs: Arrays,
    pub(super) tolerance: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProbe {
    inputs: BTreeMap<String, RawArray>,
    outputs: BTreeMap<String, RawArray>,
    /// Largest difference, as a share of the output's largest element where that is above 1.
    tolerance: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArray {
    shape: Vec<usize>,
    values: Vec<Json>,
}

impl GenericProbe {
    /// Reads the bundle's probe: `{"inputs": {NAME: {"shape": [...], "values": [...]}}, "outputs": {...}, "tolerance": N}`, with the types
    /// of `model.toml`.
    pub(in super::super) fn of(bundle: &Bundle) -> Result<Self, LoadError> {
        let raw: RawProbe = probe::read(bundle)?;
        let graph = &bundle.manifest().graph;
        let typed = |raw: BTreeMap<String, RawArray>, facts: &BTreeMap<String, TensorFacts>| {
            let mut all = Arrays::new();
            for (name, RawArray { shape, values }) in raw {
                let element_type = facts.get(&name).map(|facts| facts.element_type.as_str());
                let array = element_type.and_then(|it| Array::from_json(it, shape, &values));
                let array = array.ok_or_else(|| ProbeError::Tensor {
                    path: bundle.path(&bundle.manifest().probe.file),
                    name: name.clone(),
                })?;
                all.insert(name, array);
            }
            Ok::<_, ProbeError>(all)
        };
        Ok(Self {
            inputs: typed(raw.inputs, graph.inputs())?,
            outputs: typed(raw.outputs, graph.outputs())?,
            tolerance: raw.tolerance,
        })
    }
}

/// All outputs that the probe names must be there and near enough; it must name at least one.
pub(super) fn compare(
    expected: &Arrays,
    actual: &Arrays,
    tolerance: f64,
) -> Result<(), ProbeError> {
    if expected.is_empty() {
        return Err(ProbeError::Length {
            expected: 1,
            actual: 0,
        });
    }
    for (name, expected) in expected {
        let seen = actual.get(name).filter(|it| it.shape == expected.shape);
        let seen = seen.ok_or_else(|| ProbeError::Shape {
            name: name.clone(),
            expected: expected.shape.clone(),
            actual: actual
                .get(name)
                .map(|it| it.shape.clone())
                .unwrap_or_default(),
        })?;
        let (expected, seen) = (expected.numbers(), seen.numbers());
        let scale = expected
            .iter()
            .fold(1.0f64, |scale, it| scale.max(it.abs()));
        for (index, (&expected, &actual)) in expected.iter().zip(&seen).enumerate() {
            // Not `>`: a NaN must fail.
            let is_near = (expected - actual).abs() <= tolerance * scale;
            if !is_near {
                return Err(ProbeError::Element {
                    name: name.clone(),
                    index,
                    expected,
                    actual,
                    tolerance: tolerance * scale,
                });
            }
        }
    }
    Ok(())
}
