//! Sound to the probability that somebody speaks, chunk by chunk.
//!
//! The model has a memory. It travels with the request and back ([`VadState`]), so that one model serves any number of
//! microphones and forgets all of them. Bundle layout: `silero-v5` ([`VadGraph`]).

use ort::{
    session::{Session, SessionInputValue},
    value::Tensor,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    bundle::Bundle,
    class::Class,
    error::{InferenceError, LoadError},
    jobs::Jobs,
    manifest::{Graph, Task, VadGraph},
    probe::{self, VadProbe},
    runtime::Runtime,
    session,
    slot::{Door, Model, Setup},
    status::LoadStage,
};

/// Most chunks in one request: two seconds of sound at 16 kHz, some 10 ms of work.
const CHUNKS_MAX: usize = 64;

/// What the model remembers of one stream of sound. The default is silence before the beginning.
#[derive(Debug, Clone, Default)]
pub struct VadState {
    recurrent: Vec<f32>,
    context: Vec<f32>,
}

/// A cheap, clonable way to the voice activity model.
#[derive(Debug, Clone)]
pub struct VadHandle(Door<VadJob>);

impl VadHandle {
    pub(super) fn new(door: Door<VadJob>) -> Self {
        Self(door)
    }

    /// The probability of speech, 0 to 1, in each chunk of `samples`: f32, mono, -1..1, at the bundle's sample rate (16 kHz),
    /// a whole number of chunks (512 samples). `state` comes from the previous call on the same stream.
    ///
    /// # Errors
    /// At once: [`InferenceError::NotReady`], [`InferenceError::Overloaded`]. Later: [`InferenceError::OutOfRange`] for a number of
    /// samples that is no whole number of chunks, [`InferenceError::Run`], [`InferenceError::Stopping`].
    pub async fn score(
        &self,
        samples: Vec<f32>,
        state: VadState,
    ) -> Result<(Vec<f32>, VadState), InferenceError> {
        let (reply, answer) = oneshot::channel();
        let job = VadJob {
            samples,
            state,
            reply,
        };
        // Whoever sends sound has somebody who speaks.
        self.0.try_submit(Class::Voice, job)?;
        answer.await.map_err(|_| self.0.not_ready())?
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct VadJob {
    samples: Vec<f32>,
    state: VadState,
    reply: oneshot::Sender<Result<(Vec<f32>, VadState), InferenceError>>,
}

/// The model, owned by its thread.
pub(super) struct Vad {
    session: Session,
    graph: VadGraph,
}

impl Model for Vad {
    type Job = VadJob;
    const TASK: Task = Task::Vad;

    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError> {
        let Graph::Vad(graph) = &bundle.manifest().graph else {
            unreachable!("Bundle::open checked that the layout serves the task");
        };
        on_stage(LoadStage::Graph);
        let mut vad = Self {
            session: session::open(bundle, runtime, setup.threads)?,
            graph: graph.clone(),
        };
        on_stage(LoadStage::Probe);
        let probe: VadProbe = probe::read(bundle)?;
        let (probabilities, _) = vad
            .score(&probe.samples, VadState::default())
            .map_err(LoadError::probe_run(bundle))?;
        probe.check(&probabilities)?;
        Ok(vad)
    }

    fn serve(mut self, jobs: &Jobs<VadJob>, stop: &CancellationToken) {
        while let Some(VadJob {
            samples,
            state,
            reply,
        }) = jobs.blocking_recv()
        {
            let result = if stop.is_cancelled() {
                Err(InferenceError::Stopping)
            } else {
                self.score(&samples, state)
            };
            // A caller that has gone away in the meantime does not want it.
            let _ = reply.send(result);
        }
    }
}

impl Vad {
    fn score(
        &mut self,
        samples: &[f32],
        mut state: VadState,
    ) -> Result<(Vec<f32>, VadState), InferenceError> {
        let VadGraph {
            chunk_samples,
            context_samples,
            ref state_shape,
            sample_rate_hz,
            ..
        } = self.graph;
        let chunks = samples.chunks_exact(chunk_samples);
        if samples.is_empty() || !chunks.remainder().is_empty() || chunks.len() > CHUNKS_MAX {
            return Err(InferenceError::OutOfRange {
                what: "number of samples",
                actual: samples.len().to_string(),
                allowed: format!("1 to {CHUNKS_MAX} times {chunk_samples}"),
            });
        }
        let state_len = state_shape.iter().product();
        state.recurrent.resize(state_len, 0.0);
        state.context.resize(context_samples, 0.0);
        let mut probabilities = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let mut input = state.context.clone();
            input.extend_from_slice(chunk);
            state.context.copy_from_slice(&input[chunk_samples..]);
            let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![
                (
                    "input",
                    Tensor::from_array(([1, input.len()], input))?.into(),
                ),
                (
                    "state",
                    Tensor::from_array((
                        state_shape.as_slice(),
                        std::mem::take(&mut state.recurrent),
                    ))?
                    .into(),
                ),
            ];
            if self.graph.inputs.contains_key("sr") {
                let rate = Tensor::from_array(([0usize; 0], vec![i64::from(sample_rate_hz)]))?;
                inputs.push(("sr", rate.into()));
            }
            let outputs = self.session.run(inputs)?;
            let values = |name: &'static str, expected: usize| {
                let values = match outputs.get(name) {
                    Some(value) => value.try_extract_tensor::<f32>()?.1,
                    None => &[],
                };
                if values.len() == expected {
                    Ok(values)
                } else {
                    Err(InferenceError::Output {
                        name,
                        expected,
                        actual: values.len(),
                    })
                }
            };
            probabilities.push(values("output", 1)?[0]);
            state.recurrent = values("stateN", state_len)?.to_vec();
        }
        Ok((probabilities, state))
    }
}
