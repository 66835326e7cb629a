//! From a bundle's graph to an ONNX Runtime session on the provider that was chosen for it, with its signature checked.
//!
//! Every engine opens its session here, so that the options are the same everywhere. The [`Runtime`] that an engine is handed knows
//! where its sessions run ([`Placement`](super::providers::Placement)).

use std::{collections::BTreeMap, num::NonZeroUsize, path::Path};

use autoglm_edge_attention::Remade;
use ort::{
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{Outlet, TensorElementType, ValueType},
};

use super::{
    bundle::Bundle,
    error::LoadError,
    manifest::{Dimension, TensorFacts},
    runtime::Runtime,
};

/// What stands for a layer's number in the names of `model.toml`.
const LAYER: &str = "{layer}";

/// ONNX Runtime's option for where the weights of a graph lie that comes from memory.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Opens the bundle's graph with `threads` threads inside an operator, and compares its inputs and outputs with `model.toml`.
///
/// Waiting threads sleep instead of spinning: on a box whose cores have other work, two spinning threads were slower than one.
///
/// # Errors
/// [`LoadError::Graph`], [`LoadError::Operator`], [`LoadError::Signature`], [`LoadError::Shape`].
pub(super) fn open(
    bundle: &Bundle,
    runtime: &Runtime,
    threads: NonZeroUsize,
) -> Result<Session, LoadError> {
    let graph = &bundle.manifest().graph;
    let declared = Declared {
        file: graph.file(),
        layers: graph.layers(),
        inputs: graph.inputs(),
        outputs: graph.outputs(),
    };
    open_file(bundle, runtime, threads, &declared)
}

/// What `model.toml` says of one file with a graph.
pub(super) struct Declared<'a> {
    pub(super) file: &'a str,
    /// How many tensors a name with [`LAYER`] stands for.
    pub(super) layers: usize,
    pub(super) inputs: &'a BTreeMap<String, TensorFacts>,
    pub(super) outputs: &'a BTreeMap<String, TensorFacts>,
}

/// [`open`] for a graph of the bundle that is not its main one.
///
/// # Errors
/// As [`open`].
pub(super) fn open_file(
    bundle: &Bundle,
    runtime: &Runtime,
    threads: NonZeroUsize,
    graph: &Declared<'_>,
) -> Result<Session, LoadError> {
    let path = bundle.path(graph.file);
    let placement = runtime.placement();
    let build = |file: &Path| -> ort::Result<Session> {
        placement
            .attach(builder(runtime, threads)?, runtime.environment())?
            .commit_from_file(file)
    };
    let compiled = placement.compiled.as_deref().and_then(|compiled| {
        let opened = build(compiled);
        if let Err(error) = &opened {
            tracing::warn!(model = %bundle.manifest().name, compiled = %compiled.display(), %error,
                "the compiled graph was kept and cannot be opened; the model is compiled anew");
        }
        opened.ok()
    });
    let session = compiled
        .map_or_else(|| build(&path), Ok)
        .map_err(|source| refused(&path, source))?;
    check(&path, &session, graph)?;
    Ok(session)
}

/// [`open`] for a graph that was made of the bundle's main one; on the CPU provider.
///
/// # Errors
/// As [`open`].
pub(super) fn open_remade(
    bundle: &Bundle,
    runtime: &Runtime,
    threads: NonZeroUsize,
    remade: Remade,
    declared: &Declared<'_>,
) -> Result<Session, LoadError> {
    let path = bundle.path(declared.file);
    let build = || -> ort::Result<Session> {
        builder(runtime, threads)?
            .with_operators(remade.operators)?
            .with_config_entry(WEIGHTS_FOLDER, bundle.dir().to_string_lossy())?
            .commit_from_memory(&remade.graph)
    };
    let session = build().map_err(|source| refused(&path, source))?;
    check(&path, &session, declared)?;
    Ok(session)
}

/// Compares a session's inputs and outputs with what is declared of them.
fn check(path: &Path, session: &Session, graph: &Declared<'_>) -> Result<(), LoadError> {
    let sides = [
        ("input", graph.inputs, session.inputs()),
        ("output", graph.outputs, session.outputs()),
    ];
    for (what, declared, actual) in sides {
        let declared = per_layer(declared, graph.layers);
        for (name, facts) in &declared {
            require(path, what, name, facts, actual)?;
        }
        // An output that nobody declared is only unused; an input that nobody declared would never be fed.
        if let Some(extra) = actual
            .iter()
            .find(|outlet| what == "input" && !declared.contains_key(outlet.name()))
        {
            return Err(LoadError::Signature {
                path: path.into(),
                what,
                name: extra.name().into(),
                expected: "absent".into(),
                actual: extra.dtype().to_string(),
            });
        }
    }
    Ok(())
}

/// The options of every session, without its provider.
pub(super) fn builder(runtime: &Runtime, threads: NonZeroUsize) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(runtime.environment())?
        .with_intra_threads(threads.get())?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_optimization_level(GraphOptimizationLevel::All)?)
}

/// ONNX Runtime says in words alone that a graph needs an operator that this build does not have; it is the one complaint about a sound
/// file, and what a person does about it is another runtime, not another copy.
fn refused(path: &Path, source: ort::Error) -> LoadError {
    let message = source.message();
    let operator = message
        .split_once("No Op registered for ")
        .or_else(|| message.split_once("Could not find an implementation for "))
        .or_else(|| message.split_once("Fatal error: "))
        .and_then(|(_, rest)| rest.split([' ', '(']).next())
        .map(str::to_owned);
    let path = path.to_owned();
    match operator.filter(|name| !name.is_empty()) {
        Some(operator) => LoadError::Operator {
            path,
            operator,
            source,
        },
        None => LoadError::Graph { path, source },
    }
}

/// Names with the placeholder `{layer}` stand for one tensor in each layer.
fn per_layer(
    declared: &BTreeMap<String, TensorFacts>,
    layers: usize,
) -> BTreeMap<String, &TensorFacts> {
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
    path: &Path,
    what: &'static str,
    name: &str,
    facts: &TensorFacts,
    outlets: &[Outlet],
) -> Result<(), LoadError> {
    let outlet = outlets.iter().find(|outlet| outlet.name() == name);
    let (actual, shape) = match outlet.map(Outlet::dtype) {
        Some(ValueType::Tensor { ty, shape, .. }) => (element_name(*ty).to_owned(), &shape[..]),
        Some(other) => (other.to_string(), &[][..]),
        None => ("absent".to_owned(), &[][..]),
    };
    if actual != facts.element_type {
        return Err(LoadError::Signature {
            path: path.into(),
            what,
            name: name.into(),
            expected: facts.element_type.clone(),
            actual,
        });
    }
    let is_same = |(declared, &actual): (&Dimension, &i64)| match declared {
        // A graph may leave open what the bundle fixes, and fix what it leaves open, so long as no two numbers differ.
        Dimension::Fixed(extent) => actual < 0 || u64::try_from(actual) == Ok(*extent),
        Dimension::Free(_) => true,
    };
    // ONNX Runtime gives no dimensions for a scalar and for a shape that the graph does not state.
    let is_known = !shape.is_empty();
    if is_known && (shape.len() != facts.shape.len() || !facts.shape.iter().zip(shape).all(is_same))
    {
        return Err(LoadError::Shape {
            path: path.into(),
            what,
            name: name.into(),
            expected: format!("{:?}", facts.shape),
            actual: format!("{shape:?}"),
        });
    }
    Ok(())
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
