//! The exchange itself, on the graph's protobuf form: bytes in, bytes out.
//!
//! Every GroupQueryAttention becomes our operator, and every cache tensor among inputs and outputs a tensor of bytes whose last dimension
//! is a row. Nothing else is touched; weights stay where they are, in files beside the graph. What our operator does not do is
//! looked for here, so that a graph is either exchanged as a whole or left alone.

use std::{fs, io, path::Path};

use ort::operator::OperatorDomain;

use crate::{
    DIMS,
    operator::{self, DOMAIN, OPERATOR},
    row,
};

pub use self::wire::Malformed;
use self::{
    onnx::{attribute, graph, model, node, opset, value_info},
    wire::{Fields, Value},
};

mod onnx;
mod wire;

const EXCHANGED: &str = "GroupQueryAttention";

/// Largest graph, without its weights, that is rewritten in memory. A decoder's is some hundred kB.
const GRAPH_BYTES_MAX: u64 = 64 << 20;

/// Inputs of GroupQueryAttention, as ONNX Runtime's `ContribOperators.md` numbers them.
const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;
const PAST_KEY: usize = 3;
const PAST_VALUE: usize = 4;
const LAST_INDEX: usize = 5;
const COS: usize = 7;
const SIN: usize = 8;
/// The first of those that our operator does not know: positions, bias, sinks, scales.
const FURTHER: usize = 9;

/// Why a graph's cache stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Unsuited {
    /// It cannot be read.
    #[error("the graph's file: {0}")]
    File(#[source] io::Error),
    /// The file is too large to be a graph without its weights.
    #[error("the graph holds its weights itself, {0} bytes")]
    Inline(u64),
    /// It is no graph.
    #[error("the graph cannot be read: {0}")]
    Graph(#[from] Malformed),
    /// The operator could not be made.
    #[error("ONNX Runtime did not take the operator: {0}")]
    Operator(#[source] ort::Error),
    /// There is nothing to exchange.
    #[error("no layer has GroupQueryAttention")]
    NoAttention,
    /// Attention in a way that the operator does not know.
    #[error("{node} has {what}")]
    Node {
        /// Its name in the graph.
        node: String,
        /// An input, an attribute, or what is missing.
        what: String,
    },
    /// A cache of another type or shape.
    #[error("{0} is no tensor of 32-bit floats [rows, heads, tokens, {dims}]", dims = dims())]
    Cache(String),
}

fn dims() -> String {
    DIMS.map(|dim| dim.to_string()).join(" or ")
}

/// Whether an input or output of this name is a cache tensor.
pub fn is_cache(name: &str) -> bool {
    name.starts_with("past_key_values.") || name.starts_with("present.")
}

/// A graph with a cache of bytes, and what it needs beyond ONNX Runtime's operators.
pub struct Remade {
    /// The graph, without the weights that lie beside its file.
    pub graph: Vec<u8>,
    /// Its operators.
    pub operators: OperatorDomain,
}

/// The graph of `file` with a cache of bytes.
///
/// # Errors
/// [`Unsuited`]; the graph is then run as it is.
///
/// # Panics
/// If ONNX Runtime is not loaded: an operator is made by it.
pub fn remake(file: &Path) -> Result<Remade, Unsuited> {
    let bytes = fs::metadata(file).map_err(Unsuited::File)?.len();
    if bytes > GRAPH_BYTES_MAX {
        return Err(Unsuited::Inline(bytes));
    }
    remade(&fs::read(file).map_err(Unsuited::File)?)
}

/// [`remake`] of a graph's bytes.
pub(crate) fn remade(graph: &[u8]) -> Result<Remade, Unsuited> {
    let graph = rewrite(graph)?;
    let operators = OperatorDomain::new(DOMAIN)
        .and_then(|domain| domain.add(operator::ByteCacheAttention::default()))
        .map_err(Unsuited::Operator)?;
    Ok(Remade { graph, operators })
}

fn rewrite(bytes: &[u8]) -> Result<Vec<u8>, Unsuited> {
    let mut model = Fields::parse(bytes)?;
    let exchanged = model.inside(model::GRAPH, |graph| Some(rewrite_graph(graph)));
    if exchanged.ok_or(Malformed)?? == 0 {
        return Err(Unsuited::NoAttention);
    }
    let ours = Fields(vec![
        (opset::DOMAIN, Value::Bytes(DOMAIN.into())),
        (opset::VERSION, Value::Varint(1)),
    ]);
    let import = (model::OPSET_IMPORT, Value::Bytes(ours.write()));
    model.0.push(import);
    Ok(model.write())
}

/// Gives how many layers were exchanged.
fn rewrite_graph(graph: &mut Fields) -> Result<usize, Unsuited> {
    let mut exchanged = 0;
    // What is only derived from the types is derived anew.
    graph.0.retain(|(number, _)| *number != graph::VALUE_INFO);
    for (number, value) in &mut graph.0 {
        let Value::Bytes(bytes) = value else { continue };
        match *number {
            // A node names its operator in plain text, and so do those of a graph inside it.
            graph::NODE if memchr::memmem::find(bytes, EXCHANGED.as_bytes()).is_some() => {
                let mut node = Fields::parse(bytes)?;
                exchange(&mut node)?;
                exchanged += 1;
                *bytes = node.write();
            }
            graph::INPUT | graph::OUTPUT => {
                let mut info = Fields::parse(bytes)?;
                let name = info.text(value_info::NAME);
                if is_cache(&name) {
                    narrow(&mut info).ok_or(Unsuited::Cache(name))?;
                    *bytes = info.write();
                }
            }
            _ => {}
        }
    }
    Ok(exchanged)
}

fn exchange(node: &mut Fields) -> Result<(), Unsuited> {
    let name = node.text(node::NAME);
    let unsuited = |what: &str| Unsuited::Node {
        node: name.clone(),
        what: what.to_owned(),
    };
    if node.text(node::OP_TYPE) != EXCHANGED {
        return Err(unsuited("attention in a graph of its own"));
    }
    let texts = |number: u32| -> Vec<String> {
        let texts = node.all(number).map(|value| match value {
            Value::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        });
        texts.collect()
    };
    let (inputs, outputs) = (texts(node::INPUT), texts(node::OUTPUT));
    let mut further = inputs.iter().skip(FURTHER);
    if let Some(further) = further.find(|name| !name.is_empty()) {
        return Err(unsuited(&format!("the input {further}")));
    }
    let mut turns = false;
    let mut kept = Vec::new();
    for value in node.all(node::ATTRIBUTE) {
        let Value::Bytes(bytes) = value else { continue };
        let attribute = Fields::parse(bytes)?;
        let whole = attribute.whole(attribute::WHOLE);
        let is_zero = matches!(
            attribute.all(attribute::FLOAT).last(),
            None | Some(Value::Fixed32(0))
        );
        let name = attribute.text(attribute::NAME);
        match name.as_str() {
            "num_heads" | "kv_num_heads" | "scale" => {
                kept.push((node::ATTRIBUTE, value.clone()));
            }
            "do_rotary" => turns = whole != 0,
            "local_window_size" if whole == -1 => {}
            // All others stand for nothing when they are 0, `NONE`, or absent.
            _ if [0, -1].contains(&whole)
                && is_zero
                && ["", "NONE"].contains(&attribute.text(attribute::TEXT).as_str()) => {}
            _ => return Err(unsuited(&format!("the attribute {name}"))),
        }
    }
    let name_of = |at: usize| inputs.get(at).cloned().unwrap_or_default();
    let table = |at: usize| if turns { name_of(at) } else { String::new() };
    let mut ours = vec![
        name_of(QUERY),
        name_of(PAST_KEY),
        name_of(PAST_VALUE),
        name_of(LAST_INDEX),
        table(COS),
        table(SIN),
        name_of(KEY),
        name_of(VALUE),
    ];
    let needed = if turns { 6 } else { 4 };
    if ours[..needed].iter().any(String::is_empty) || outputs.len() < 3 {
        return Err(unsuited("no cache, no lengths or no rotary tables"));
    }
    while ours.last().is_some_and(String::is_empty) {
        ours.pop();
    }
    let replaced = [node::INPUT, node::OUTPUT, node::ATTRIBUTE];
    node.0.retain(|(number, _)| !replaced.contains(number));
    let inputs = ours.into_iter().map(|name| (node::INPUT, name));
    let outputs = outputs.into_iter().take(3).map(|name| (node::OUTPUT, name));
    let names = inputs.chain(outputs);
    node.0
        .extend(names.map(|(number, name)| (number, Value::Bytes(name.into()))));
    node.0.extend(kept);
    node.set(node::OP_TYPE, Value::Bytes(OPERATOR.into()));
    node.set(node::DOMAIN, Value::Bytes(DOMAIN.into()));
    Ok(())
}

/// Makes a cache's input or output bytes; `None` if it is none that our operator takes.
fn narrow(info: &mut Fields) -> Option<()> {
    info.inside(value_info::TYPE, |kind| {
        kind.inside(value_info::TENSOR, |tensor| {
            if tensor.whole(value_info::ELEMENT) != value_info::FLOAT {
                return None;
            }
            tensor.set(value_info::ELEMENT, Value::Varint(value_info::UINT8));
            tensor.inside(value_info::SHAPE, |shape| {
                if shape.all(value_info::DIMENSION).count() != 4 {
                    return None;
                }
                let (_, Value::Bytes(last)) = shape.0.last_mut()? else {
                    return None;
                };
                let mut dimension = Fields::parse(last).ok()?;
                let dim = usize::try_from(dimension.whole(value_info::EXTENT)).ok()?;
                if !DIMS.contains(&dim) {
                    return None;
                }
                dimension.set(value_info::EXTENT, Value::Varint(row::bytes(dim) as u64));
                *last = dimension.write();
                Some(())
            })
        })
    })
}

#[cfg(test)]
pub(crate) mod tests;
