//! The voice, owned by its thread.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ort::{
    session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue},
    value::Tensor,
};
use tokio_util::sync::CancellationToken;

use super::{
    SpeakRequest, SpeakTimings, Spoken, TtsJob,
    espeak::{Espeak, EspeakError, fingerprint},
    phonemes::phonemes,
    probe::TtsProbe,
    sound::pcm,
};
use crate::inference::{
    bundle::Bundle,
    error::{InferenceError, LoadError, Wait},
    jobs::Jobs,
    manifest::{Graph, Task, TtsGraph},
    probe,
    runtime::Runtime,
    session,
    slot::{Model, Setup},
    status::LoadStage,
};

/// The graph and the program that makes its phonemes.
pub(in super::super) struct Tts {
    session: Session,
    graph: TtsGraph,
    espeak: Espeak,
    options: Arc<RunOptions<NoSelectedOutputs>>,
}

impl Model for Tts {
    type Job = TtsJob;
    const TASK: Task = Task::Tts;

    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError> {
        let Graph::Tts(graph) = &bundle.manifest().graph else {
            unreachable!("Bundle::open checked that the layout serves the task");
        };
        let probe: TtsProbe = probe::read(bundle)?;
        // First, since it takes milliseconds: without phonemes the graph is of no use.
        let espeak = Espeak::new(&setup.espeak_ng, &graph.espeak_voice);
        speak_phonemes(&espeak, graph, &probe.text, &|| false)
            .map_err(|source| LoadError::Phonemes { source })?;
        on_stage(LoadStage::Graph);
        let path = || bundle.path(&graph.file);
        let options = run_options(runtime).map_err(|source| LoadError::Graph {
            path: path(),
            source,
        })?;
        let mut tts = Self {
            session: session::open(bundle, runtime, setup.threads)?,
            graph: graph.clone(),
            espeak,
            options: setup.interrupts.enter(options),
        };
        on_stage(LoadStage::Probe);
        let still = SpeakRequest {
            variation: 0.0,
            ..SpeakRequest::new("")
        };
        let sound = tts
            .run(&probe.ids, &still)
            .map_err(LoadError::probe_run(bundle))?;
        probe.check(&sound, graph.hop_samples)?;
        Ok(tts)
    }

    fn serve(mut self, jobs: &Jobs<TtsJob>, stop: &CancellationToken) {
        loop {
            let late = |job: &TtsJob, since: Instant| {
                let patience = job.request.begin_within;
                patience.is_some_and(|patience| since.elapsed() > patience)
            };
            for job in jobs.extract(late) {
                let class = job.request.class;
                let error = InferenceError::Overloaded {
                    task: Task::Tts,
                    class,
                    queued: jobs.queued(class),
                    capacity: class.places(),
                    wait: Wait::Passed(job.since.elapsed()),
                };
                let _ = job.reply.send(Err(error));
            }
            let Some(job) = jobs.blocking_recv() else {
                return;
            };
            // Whoever no longer listens wants no more of it.
            if job.reply.is_closed() {
                continue;
            }
            let result = match stop.is_cancelled() {
                true => Err(InferenceError::Stopping),
                false => self.speak(job.request, job.since, stop),
            };
            let result = match stop.is_cancelled() {
                // The run was ended for that.
                true => result.map_err(|_| InferenceError::Stopping),
                false => result,
            };
            let _ = job.reply.send(result);
        }
    }

    fn surroundings(setup: &Setup) -> Option<(u64, std::time::SystemTime)> {
        fingerprint(Path::new(&setup.espeak_ng))
    }
}

/// A run takes up to 200 MB, and a box speaks seldom: what it took is given back after it, for a twentieth of its time.
fn run_options(runtime: &Runtime) -> ort::Result<RunOptions<NoSelectedOutputs>> {
    let mut options = RunOptions::new()?;
    if runtime.placement().candidate.is_cpu() {
        options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    }
    Ok(options)
}

/// The ids of a piece of text, in runs.
fn speak_phonemes(
    espeak: &Espeak,
    graph: &TtsGraph,
    text: &str,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Vec<Vec<i64>>, EspeakError> {
    let printed = espeak.run(text, is_stopped)?;
    let made = phonemes(text, &printed, graph);
    if made.is_foreign() {
        return Err(EspeakError::Foreign {
            program: espeak.program().to_owned(),
            unknown: made.unknown,
            all: made.all,
        });
    }
    Ok(made.runs)
}

impl Tts {
    fn speak(
        &mut self,
        request: SpeakRequest,
        since: Instant,
        stop: &CancellationToken,
    ) -> Result<Spoken, InferenceError> {
        if request.speaker >= self.graph.speakers {
            return Err(InferenceError::OutOfRange {
                what: "speaker",
                actual: request.speaker.to_string(),
                allowed: format!("0 to {}", self.graph.speakers - 1),
            });
        }
        let begun = Instant::now();
        let is_stopped = || stop.is_cancelled();
        let runs = speak_phonemes(&self.espeak, &self.graph, &request.text, &is_stopped)?;
        let phonemes = begun.elapsed();
        let mut sound = Vec::new();
        for ids in &runs {
            sound.extend(self.run(ids, &request)?);
        }
        let samples = pcm(&sound).ok_or_else(|| InferenceError::Outputs {
            what: "its sound has samples that are no numbers".into(),
        })?;
        Ok(Spoken {
            text: request.text,
            samples,
            sample_rate_hz: self.graph.sample_rate_hz,
            timings: SpeakTimings {
                queue: begun.saturating_duration_since(since),
                phonemes,
                infer: begun.elapsed().saturating_sub(phonemes).max(Duration::ZERO),
            },
        })
    }

    /// The sound of some phonemes.
    fn run(&mut self, ids: &[i64], request: &SpeakRequest) -> Result<Vec<f32>, InferenceError> {
        let scales = self.graph.scales;
        let count = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let scales = vec![
            scales.noise * request.variation,
            scales.length / request.speed,
            scales.noise_width * request.variation,
        ];
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![
            (
                "input",
                Tensor::from_array(([1, ids.len()], ids.to_vec()))?.into(),
            ),
            (
                "input_lengths",
                Tensor::from_array(([1usize], vec![count]))?.into(),
            ),
            ("scales", Tensor::from_array(([3usize], scales))?.into()),
        ];
        if self.graph.speakers > 1 {
            let speaker = vec![i64::from(request.speaker)];
            inputs.push(("sid", Tensor::from_array(([1usize], speaker))?.into()));
        }
        let outputs = self.session.run_with_options(inputs, &self.options)?;
        let sound = match outputs.get("output") {
            Some(value) => value.try_extract_tensor::<f32>()?.1,
            None => &[],
        };
        let hop = self.graph.hop_samples;
        if sound.is_empty() || sound.len() % hop != 0 {
            return Err(InferenceError::Outputs {
                what: format!(
                    "its sound has {} samples, which is no multiple of {hop}",
                    sound.len()
                ),
            });
        }
        Ok(sound.to_vec())
    }
}
