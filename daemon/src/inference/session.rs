//! From a bundle's graph to an ONNX Runtime session on the CPU provider, with its signature checked.
//!
//! Every engine opens its session here, so that the options are the same everywhere.

use std::{collections::BTreeMap, num::NonZeroUsize};

use ort::{
    session::{Session, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType, ValueType},
};

use super::{
    bundle::Bundle,
    error::LoadError,
    manifest::{Graph, TensorFacts},
    runtime::Runtime,
};

/// What stands for a layer's number in the names of `model.toml`.
const LAYER: &str = "{layer}";

/// Opens the bundle's graph with `threads` threads inside an operator, and compares its inputs and outputs with `model.toml`.
///
/// Waiting threads sleep instead of spinning: on a box whose cores have other work, two spinning threads were slower than one.
///
/// # Errors
/// [`LoadError::Graph`], [`LoadError::Signature`].
pub(super) fn open(
    bundle: &Bundle,
    runtime: &Runtime,
    threads: NonZeroUsize,
) -> Result<Session, LoadError> {
    let graph = &bundle.manifest().graph;
    let path = bundle.path(graph.file());
    let build = || -> ort::Result<Session> {
        Session::builder(runtime.environment())?
            .with_intra_threads(threads.get())?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .commit_from_file(&path)
    };
    let session = build().map_err(|source| LoadError::Graph {
        path: path.clone(),
        source,
    })?;
    let sides = [
        ("input", graph.inputs(), session.inputs()),
        ("output", graph.outputs(), session.outputs()),
    ];
    for (what, declared, actual) in sides {
        let declared = per_layer(declared, graph);
        for (name, facts) in &declared {
            require(&path, what, name, facts, actual)?;
        }
        // An output that nobody declared is only unused; an input that nobody declared would never be fed.
        if let Some(extra) = actual
            .iter()
            .find(|outlet| what == "input" && !declared.contains_key(outlet.name()))
        {
            return Err(LoadError::Signature {
                path,
                what,
                name: extra.name().into(),
                expected: "absent".into(),
                actual: extra.dtype().to_string(),
            });
        }
    }
    Ok(session)
}

/// Names with the placeholder `{layer}` stand for one tensor in each layer.
fn per_layer<'a>(
    declared: &'a BTreeMap<String, TensorFacts>,
    graph: &Graph,
) -> BTreeMap<String, &'a TensorFacts> {
    let layers = graph.chat().map_or(0, |graph| graph.layers);
    let mut all = BTreeMap::new();
    for (name, facts) in declared {
        if name.contains(LAYER) {
            all.extend((0..layers).map(|layer| (name.replace(LAYER, &layer.to_string()), facts)));
        } else {
            all.insert(name.clone(), facts);
        }
    }
    all
}

fn require(
    path: &std::path::Path,
    what: &'static str,
    name: &str,
    facts: &TensorFacts,
    outlets: &[Outlet],
) -> Result<(), LoadError> {
    let actual = match outlets
        .iter()
        .find(|outlet| outlet.name() == name)
        .map(Outlet::dtype)
    {
        Some(ValueType::Tensor { ty, .. }) => element_name(*ty).to_owned(),
        Some(other) => other.to_string(),
        None => "absent".to_owned(),
    };
    if actual == facts.element_type {
        return Ok(());
    }
    Err(LoadError::Signature {
        path: path.into(),
        what,
        name: name.into(),
        expected: facts.element_type.clone(),
        actual,
    })
}

fn element_name(ty: TensorElementType) -> &'static str {
    match ty {
        TensorElementType::Float32 => "f32",
        TensorElementType::Float16 => "f16",
        TensorElementType::Float64 => "f64",
        TensorElementType::Int8 => "i8",
        TensorElementType::Int16 => "i16",
        TensorElementType::Int32 => "i32",
        TensorElementType::Int64 => "i64",
        TensorElementType::Uint8 => "u8",
        TensorElementType::Bool => "bool",
        _ => "another type",
    }
}
