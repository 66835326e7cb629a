//! Any graph of named tensors in and out, as its bundle describes it: layout `tensors` ([`TensorsGraph`]).
//!
//! What comes in is held against types, dimensions and limits before ONNX Runtime sees it, so that a wrong request is told which tensor and which
//! dimension is at fault, and costs nothing. Where the bundle says that the first axis is a batch, requests that wait are run together, as many rows as
//! it allows, if all their other dimensions are the same; that rows do not touch each other is the bundle's word, and its probe is run beside
//! another request at load to hold it to that.
//!
//! Each bundle has a slot and a thread of its own. Read [`mod@check`] for the limits, [`joined`] for the batches, [`probe`] for the known answer.

use std::collections::VecDeque;

use ort::session::{Session, SessionInputValue};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::{
    check::check,
    joined::{Joined, part_of},
    probe::compare,
};
use super::{
    arrays::{Array, Arrays, Values},
    bundle::Bundle,
    class::Class,
    error::{InferenceError, LoadError},
    jobs::Jobs,
    manifest::{Graph, Task, TensorsGraph},
    runtime::Runtime,
    session,
    slot::{Door, Model, Setup},
    status::LoadStage,
};

pub(super) use self::probe::GenericProbe;

mod check;
mod joined;
mod probe;

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
    pub async fn run(&self, inputs: Arrays, class: Class) -> Result<Arrays, InferenceError> {
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
        self.0.try_submit(class, GenericJob { inputs, reply })?;
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
        let failed = LoadError::probe_run(bundle);
        let rows = check(graph, &inputs).map_err(&failed)?;
        let seen = generic.run(&inputs).map_err(&failed)?;
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
                    let seen = generic.run(&joined.inputs).map_err(&failed)?;
                    let part = part_of(&seen, at, rows).map_err(&failed)?;
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
            } else if let Some(urgent) = jobs.try_recv_before(served) {
                // One run of it between two of those that did not go along: neither waits for more than one.
                self.serve_next(&mut VecDeque::from([urgent]));
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

#[cfg(test)]
mod tests;
