//! Any graph of named tensors in and out, as its bundle describes it: layout `tensors` ([`TensorsGraph`]).
//!
//! What comes in is held against types, dimensions and limits before ONNX Runtime sees it, so that a wrong request is told which tensor and which
//! dimension is at fault, and costs nothing. Where the bundle says that the first axis is a batch, requests that wait are run together, as many rows as
//! it allows, if all their other dimensions are the same; that rows do not touch each other is the bundle's word, and its probe is run beside
//! another request at load to hold it to that.
//!
//! Each bundle has a slot and a thread of its own. Read [`Joined`] for the batches, [`check`] for the limits.

use std::collections::{BTreeMap, VecDeque};

use ort::session::{Session, SessionInputValue};
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    arrays::{Array, Arrays, Values},
    bundle::Bundle,
    class::Class,
    error::{InferenceError, LoadError},
    jobs::Jobs,
    manifest::{Dimension, Graph, Task, TensorFacts, TensorsGraph},
    probe::{self, ProbeError},
    runtime::Runtime,
    session,
    slot::{Door, Model, Setup},
    status::LoadStage,
};

/// Most bytes of all inputs of one request: 4 s of stereo sound or a photograph of 5 megapixels, several times over.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// A cheap, clonable way to one such model.
#[derive(Debug, Clone)]
pub struct GenericHandle(Door<GenericJob>);

impl GenericHandle {
    pub(super) fn new(door: Door<GenericJob>) -> Self {
        Self(door)
    }

    /// Runs the graph once. `inputs` are all that its bundle names, no more and no fewer; the answer has all of its outputs. Dropping the future abandons
    /// what has not begun.
    ///
    /// # Errors
    /// At once: [`InferenceError::NotReady`], [`InferenceError::Overloaded`], [`InferenceError::OutOfRange`]. Later: [`InferenceError::Tensor`] naming the
    /// input that does not fit, [`InferenceError::Run`], [`InferenceError::Stopping`].
    pub async fn run(&self, inputs: Arrays) -> Result<Arrays, InferenceError> {
        let size = |array: &Array| {
            let bytes = Values::element_bytes(array.values.element_type()).unwrap_or(8);
            array.values.len().saturating_mul(bytes)
        };
        let bytes = inputs.values().map(size).fold(0, usize::saturating_add);
        if bytes > REQUEST_BYTES_MAX {
            return Err(InferenceError::OutOfRange {
                what: "bytes of all inputs",
                actual: bytes.to_string(),
                allowed: format!("up to {REQUEST_BYTES_MAX}"),
            });
        }
        let (reply, answer) = oneshot::channel();
        self.0
            .try_submit(Class::default(), GenericJob { inputs, reply })?;
        answer.await.map_err(|_| self.0.not_ready())?
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct GenericJob {
    inputs: Arrays,
    reply: oneshot::Sender<Result<Arrays, InferenceError>>,
}

/// The model, owned by its thread.
pub(super) struct Generic {
    session: Session,
    graph: TensorsGraph,
}

impl Model for Generic {
    type Job = GenericJob;
    const TASK: Task = Task::Generic;

    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError> {
        let Graph::Tensors(graph) = &bundle.manifest().graph else {
            unreachable!("Bundle::open checked that the layout serves the task");
        };
        on_stage(LoadStage::Graph);
        let mut generic = Self {
            session: session::open(bundle, runtime, setup.threads)?,
            graph: graph.clone(),
        };
        on_stage(LoadStage::Probe);
        let GenericProbe {
            inputs,
            outputs,
            tolerance,
        } = GenericProbe::of(bundle)?;
        let failed = |source| LoadError::ProbeRun {
            name: bundle.manifest().name.clone(),
            source: Box::new(source),
        };
        let rows = check(graph, &inputs).map_err(failed)?;
        let seen = generic.run(&inputs).map_err(failed)?;
        compare(&outputs, &seen, tolerance)?;
        if let Some(rows) = rows.filter(|rows| rows * 2 <= graph.rows_max()) {
            // Beside another request, before and behind it, it must come out as it does alone.
            let other: Arrays = inputs
                .iter()
                .map(|(name, array)| (name.clone(), array.zeros()))
                .collect();
            for (pair, at) in [((&inputs, &other), 0), ((&other, &inputs), rows)] {
                let mut joined = Joined::of(pair.0.clone(), rows);
                if joined.try_add(graph, pair.1, rows) {
                    let seen = generic.run(&joined.inputs).map_err(failed)?;
                    let part = part_of(&seen, at, rows).map_err(failed)?;
                    compare(&outputs, &part, tolerance)?;
                }
            }
        }
        Ok(generic)
    }

    fn serve(mut self, jobs: &Jobs<GenericJob>, stop: &CancellationToken) {
        let mut waiting: VecDeque<GenericJob> = VecDeque::new();
        let mut served = Class::default();
        loop {
            if waiting.is_empty() {
                let Some((class, job)) = jobs.blocking_recv_classed() else {
                    return;
                };
                served = class;
                waiting.push_back(job);
            }
            // What waits in the queue may go along; what is here already came first.
            while waiting.len() < self.graph.rows_max()
                && let Some(job) = jobs.try_recv(served)
            {
                waiting.push_back(job);
            }
            if stop.is_cancelled() {
                for job in waiting.drain(..) {
                    let _ = job.reply.send(Err(InferenceError::Stopping));
                }
                continue;
            }
            self.serve_next(&mut waiting);
        }
    }
}

impl Generic {
    /// Runs the first request that waits, with those behind it that fit.
    fn serve_next(&mut self, waiting: &mut VecDeque<GenericJob>) {
        let mut joined: Option<Joined> = None;
        let mut replies = Vec::new();
        while let Some(job) = waiting.front() {
            if job.reply.is_closed() {
                waiting.pop_front();
                continue;
            }
            let rows = match check(&self.graph, &job.inputs) {
                Ok(rows) => rows,
                Err(error) => {
                    if let Some(job) = waiting.pop_front() {
                        let _ = job.reply.send(Err(error));
                    }
                    continue;
                }
            };
            let is_taken = match (&mut joined, rows) {
                (none @ None, rows) => {
                    *none = Some(Joined::of(job.inputs.clone(), rows.unwrap_or(0)));
                    true
                }
                (Some(joined), Some(rows)) => joined.try_add(&self.graph, &job.inputs, rows),
                (Some(_), None) => false,
            };
            if !is_taken {
                break;
            }
            if let Some(job) = waiting.pop_front() {
                replies.push(job.reply);
            }
            if rows.is_none() {
                break;
            }
        }
        let Some(joined) = joined else {
            return;
        };
        match self.run(&joined.inputs) {
            // Nobody else's: it need not be cut.
            Ok(outputs) if replies.len() == 1 => {
                for reply in replies {
                    let _ = reply.send(Ok(outputs.clone()));
                }
            }
            Ok(outputs) => {
                for (reply, (at, rows)) in replies.into_iter().zip(joined.parts()) {
                    let _ = reply.send(part_of(&outputs, at, rows));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(same(&error)));
                }
            }
        }
    }

    /// Runs the graph on inputs that were checked.
    fn run(&mut self, inputs: &Arrays) -> Result<Arrays, InferenceError> {
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, array) in inputs {
            values.push((name.as_str(), array.value()?));
        }
        let outputs = self.session.run(values)?;
        let mut all = Arrays::new();
        for name in self.graph.outputs.keys() {
            let array = match outputs.get(name) {
                Some(value) => Array::of(value)?,
                None => None,
            };
            let array = array.ok_or_else(|| InferenceError::Outputs {
                what: format!("it gave no output {name:?} of a type that is known"),
            })?;
            all.insert(name.clone(), array);
        }
        Ok(all)
    }
}

/// The error of a run, for one more of those who shared it.
fn same(error: &InferenceError) -> InferenceError {
    match error {
        InferenceError::Run { source } => InferenceError::Run {
            source: source.clone(),
        },
        InferenceError::Outputs { what } => InferenceError::Outputs { what: what.clone() },
        other => InferenceError::Outputs {
            what: other.to_string(),
        },
    }
}

/// Requests that are run as one.
struct Joined {
    inputs: Arrays,
    rows: Vec<usize>,
}

impl Joined {
    fn of(inputs: Arrays, rows: usize) -> Self {
        Self {
            inputs,
            rows: vec![rows],
        }
    }

    /// Takes another one in, if it has the same dimensions but the first, and there is room for its rows.
    fn try_add(&mut self, graph: &TensorsGraph, inputs: &Arrays, rows: usize) -> bool {
        let held: usize = self.rows.iter().sum();
        let is_alike = self.inputs.iter().all(|(name, array)| {
            inputs.get(name).is_some_and(|other| {
                array.shape.len() == other.shape.len()
                    && array.shape.get(1..) == other.shape.get(1..)
                    && array.values.element_type() == other.values.element_type()
            })
        });
        if held + rows > graph.rows_max() || !is_alike {
            return false;
        }
        for (name, array) in &mut self.inputs {
            let is_added = inputs.get(name).is_some_and(|other| array.append(other));
            debug_assert!(is_added, "it was compared before");
        }
        self.rows.push(rows);
        true
    }

    /// Where each one's rows begin, and how many they are.
    fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.rows.iter().scan(0, |at, &rows| {
            let begin = *at;
            *at += rows;
            Some((begin, rows))
        })
    }
}

/// One request's rows of all outputs.
fn part_of(outputs: &Arrays, at: usize, rows: usize) -> Result<Arrays, InferenceError> {
    let part = |(name, array): (&String, &Array)| {
        let part = array.rows(at, rows);
        let part = part.ok_or_else(|| InferenceError::Outputs {
            what: format!("its output {name:?} has not a row for each of the input's"),
        })?;
        Ok((name.clone(), part))
    };
    outputs.iter().map(part).collect()
}

/// Holds a request against what the bundle says, and returns how many rows it has if the first axis is a batch.
///
/// # Errors
/// [`InferenceError::Tensor`] for the first input that is absent, unknown, of another type, or of another shape; free dimensions of one name
/// must have one extent, within its limits.
fn check(graph: &TensorsGraph, inputs: &Arrays) -> Result<Option<usize>, InferenceError> {
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

/// The known answer.
pub(super) struct GenericProbe {
    pub(super) inputs: Arrays,
    outputs: Arrays,
    tolerance: f64,
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
    pub(super) fn of(bundle: &Bundle) -> Result<Self, LoadError> {
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
fn compare(expected: &Arrays, actual: &Arrays, tolerance: f64) -> Result<(), ProbeError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> TensorsGraph {
        toml::from_str(
            r#"
            file = "g.onnx"
            batch = "n"
            [dimensions]
            n = { max = 4 }
            t = { min = 2, max = 10 }
            [inputs]
            x = { type = "f32", shape = ["n", "t", 3] }
            mask = { type = "bool", shape = ["n", "t"] }
            [outputs]
            y = { type = "f32", shape = ["n", "t"] }
            "#,
        )
        .unwrap()
    }

    fn inputs(n: usize, t: usize) -> Arrays {
        Arrays::from([
            ("x".into(), Array::f32([n, t, 3], vec![0.5; n * t * 3])),
            (
                "mask".into(),
                Array {
                    shape: vec![n, t],
                    values: Values::Bool(vec![true; n * t]),
                },
            ),
        ])
    }

    #[test]
    fn a_request_that_does_not_fit_is_told_which_tensor_and_why() {
        let graph = graph();
        assert_eq!(check(&graph, &inputs(3, 5)).unwrap(), Some(3));
        let refused = |name: &str, array: Option<Array>| {
            let mut inputs = inputs(2, 4);
            match array {
                Some(array) => inputs.insert(name.into(), array),
                None => inputs.remove(name),
            };
            check(&graph, &inputs).unwrap_err().to_string()
        };
        for (name, array, part) in [
            ("x", None, "absent"),
            (
                "z",
                Some(Array::f32([1], vec![0.0])),
                "the inputs are mask, x",
            ),
            ("x", Some(Array::i64([2, 4, 3], vec![0; 24])), "i64"),
            ("x", Some(Array::f32([2, 4], vec![0.0; 8])), "[2, 4]"),
            ("x", Some(Array::f32([2, 4, 2], vec![0.0; 16])), "[2, 4, 2]"),
            (
                "x",
                Some(Array::f32([2, 4, 3], vec![0.0; 23])),
                "23 elements",
            ),
            (
                "x",
                Some(Array::f32([2, 11, 3], vec![0.0; 66])),
                "t from 2 to 10",
            ),
            (
                "x",
                Some(Array::f32([2, 5, 3], vec![0.0; 30])),
                "t = 4, as in another input",
            ),
            ("x", Some(Array::f32([0, 4, 3], vec![])), "n from 1 to 4"),
            (
                "x",
                Some(Array {
                    shape: vec![usize::MAX, 4, 3],
                    values: Values::F32(vec![]),
                }),
                "elements",
            ),
        ] {
            let said = refused(name, array);
            assert!(
                said.contains(&format!("{name:?}")) && said.contains(part),
                "{part}: {said}"
            );
        }
    }

    #[test]
    fn only_requests_of_the_same_dimensions_are_joined_and_never_more_rows_than_allowed() {
        let graph = graph();
        let mut joined = Joined::of(inputs(2, 4), 2);
        assert!(!joined.try_add(&graph, &inputs(1, 5), 1), "another t");
        assert!(joined.try_add(&graph, &inputs(1, 4), 1));
        assert!(!joined.try_add(&graph, &inputs(2, 4), 2), "five rows");
        assert!(joined.try_add(&graph, &inputs(1, 4), 1));
        assert_eq!(joined.parts().collect::<Vec<_>>(), [(0, 2), (2, 1), (3, 1)]);
        assert_eq!(joined.inputs["x"].shape, [4, 4, 3]);
        assert_eq!(joined.inputs["mask"].values.len(), 16);
    }

    #[test]
    fn a_nan_and_an_absent_output_never_pass_the_probe() {
        let expected = Arrays::from([("y".into(), Array::f32([1], vec![100.0]))]);
        let seen = |value: f32| Arrays::from([("y".into(), Array::f32([1], vec![value]))]);
        assert!(
            compare(&expected, &seen(100.5), 0.01).is_ok(),
            "a share of the largest element"
        );
        for wrong in [102.0, f32::NAN, f32::INFINITY] {
            assert!(compare(&expected, &seen(wrong), 0.01).is_err(), "{wrong}");
        }
        assert!(compare(&expected, &Arrays::new(), 0.01).is_err());
        assert!(
            compare(&Arrays::new(), &Arrays::new(), 0.01).is_err(),
            "a probe that says nothing"
        );
    }
}
