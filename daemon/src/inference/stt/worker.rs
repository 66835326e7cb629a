//! The model on its thread: window after window, token after token, and more urgent requests in between.

use std::time::{Duration, Instant};

use ort::session::RunOptions;
use rand::{SeedableRng as _, rngs::StdRng};
use tokenizers::Tokenizer;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        admission::Spent,
        bundle::Bundle,
        class::Class,
        error::{InferenceError, LoadError, Wait},
        jobs::{Jobs, Taken},
        manifest::{Graph, Task, WhisperGraph},
        probe::{self, SttProbe},
        providers::Placement,
        runtime::Runtime,
        session::{self, Declared},
        slot::{Model, Setup},
        status::LoadStage,
    },
    Segment, SttDone, SttJob, SttRequest, SttTimings,
    decoder::{Cache, Decoder},
    guard::{self, Judgement, Measures},
    hearing::{Heard, Hearing},
    outlet::Outlet,
    overloaded,
    rules::{self, Rules},
    seek::{self, Piece, Scale, Text, Window},
};

/// What draws tokens when they are drawn. Fixed, so that the same sound gives the same text.
const SEED: u64 = 7;

/// The model, owned by its thread.
pub(in super::super) struct Stt {
    hearing: Hearing,
    decoder: Decoder,
    tokenizer: Tokenizer,
    rules: Rules,
    scale: Scale,
    graph: WhisperGraph,
}

impl Model for Stt {
    type Job = SttJob;
    const TASK: Task = Task::Stt;

    fn load(
        bundle: &Bundle,
        runtime: &Runtime,
        setup: &Setup,
        on_stage: &dyn Fn(LoadStage),
    ) -> Result<Self, LoadError> {
        let manifest = bundle.manifest();
        let (Graph::Whisper(graph), Some(facts)) = (&manifest.graph, &manifest.tokenizer) else {
            unreachable!(
                "Bundle::open checked that a bundle for speech has its graph and a tokenizer"
            );
        };
        on_stage(LoadStage::Graph);
        let interruptible =
            setup
                .interrupts
                .enter(RunOptions::new().map_err(|source| LoadError::Graph {
                    path: bundle.path(&graph.file),
                    source,
                })?);
        let first = session::open(bundle, runtime, setup.threads)?;
        let declared = Declared {
            file: &graph.decoder.file,
            layers: graph.layers,
            inputs: &graph.decoder.inputs,
            outputs: &graph.decoder.outputs,
        };
        let on_cpu = runtime.placed(Placement::cpu());
        let second = session::open_file(bundle, &on_cpu, setup.threads, &declared)?;
        let path = bundle.path(&facts.file);
        let tokenizer =
            Tokenizer::from_file(&path).map_err(|source| LoadError::Tokenizer { path, source })?;
        let mut stt = Self {
            hearing: Hearing::new(first, graph, interruptible.clone()),
            decoder: Decoder::new(second, graph, interruptible),
            tokenizer,
            rules: Rules::of(graph),
            scale: Scale {
                sample_rate_hz: graph.sample_rate_hz as usize,
                first_time: graph.tokens.first_timestamp,
                time_samples: graph.tokens.timestamp_samples,
            },
            graph: WhisperGraph::clone(graph),
        };
        on_stage(LoadStage::Probe);
        let probe: SttProbe = probe::read(bundle)?;
        let logits = stt.probed(&probe).map_err(LoadError::probe_run(bundle))?;
        probe.check(&logits)?;
        Ok(stt)
    }

    fn serve(mut self, jobs: &Jobs<SttJob>, stop: &CancellationToken) {
        while let Some(taken) = jobs.take(usize::MAX, |_| true) {
            let Taken {
                class,
                job,
                since,
                place,
                ..
            } = taken;
            drop(place);
            let desk = Desk {
                jobs,
                stop,
                class,
                since,
            };
            self.serve_one(job, &desk);
        }
    }
}

/// Who else wants the model, and whether it is to go on.
struct Desk<'a> {
    jobs: &'a Jobs<SttJob>,
    stop: &'a CancellationToken,
    /// Of the request that is served.
    class: Class,
    /// When it arrived.
    since: Instant,
}

impl Desk<'_> {
    /// A request that is more urgent than the one that is served, by what that has become by waiting.
    fn more_urgent(&self) -> Option<(Class, SttJob)> {
        let own = self.class.risen(self.since.elapsed());
        let above = Class::ALL.into_iter().filter(|class| *class < own);
        above
            .filter_map(|class| Some((class, self.jobs.try_recv(class)?)))
            .next()
    }
}

/// Why a request came to no end of its own.
enum Ended {
    /// Nobody listens.
    Cancelled,
    Failed(InferenceError),
}

impl<E: Into<InferenceError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A request under way.
struct Work {
    outlet: Outlet,
    cache: Cache,
    random: StdRng,
    windows: usize,
    tokens: usize,
    timings: SttTimings,
}

/// One reading of a window.
struct Read {
    /// Without the end of text.
    tokens: Vec<u32>,
    /// Whether there was one.
    is_ended: bool,
    measures: Measures,
}

impl Stt {
    /// The probe's logits, on the way that every window goes.
    fn probed(&mut self, probe: &SttProbe) -> Result<Vec<f32>, InferenceError> {
        let heard = self.hearing.listen(&probe.samples(), 1.0)?;
        let mut cache = self.decoder.cache()?;
        let mut reading = self.decoder.begin(&heard, &mut cache)?;
        let mut last = Vec::new();
        for &id in &probe.input_ids {
            last = self.decoder.feed(&mut reading, id)?.to_vec();
        }
        Ok(last)
    }

    fn serve_one(&mut self, job: SttJob, desk: &Desk<'_>) {
        let SttJob {
            request,
            events,
            since,
            load,
            ticket,
        } = job;
        let Some(outlet) = Outlet::new(events) else {
            return;
        };
        let begun = Instant::now();
        let length = request.millis();
        let result = match self.judge(&request, begun - since, &load, desk) {
            Ok(cache) => {
                let mut work = Work {
                    outlet,
                    cache,
                    random: StdRng::seed_from_u64(SEED),
                    windows: 0,
                    tokens: 0,
                    timings: SttTimings {
                        queue: begun - since,
                        ..SttTimings::default()
                    },
                };
                let result = self.transcribe(&request, &mut work, desk);
                (
                    work.outlet,
                    result.map(|()| (work.windows, work.tokens, work.timings)),
                )
            }
            Err(error) => (outlet, Err(Ended::Failed(error))),
        };
        drop(ticket);
        match result {
            (outlet, Ok((windows, tokens, timings))) => {
                load.report(&Spent {
                    bytes: length,
                    begin: begun.elapsed().saturating_sub(timings.gave_way),
                    decode: Duration::ZERO,
                    tokens: 0,
                });
                outlet.done(SttDone {
                    rest: Vec::new(),
                    sound: self.duration(request.samples.len()),
                    windows,
                    tokens,
                    timings,
                });
            }
            // A run that was ended from outside fails; that is not what it is told.
            (outlet, Err(Ended::Failed(_))) if desk.stop.is_cancelled() => {
                outlet.failed(InferenceError::Stopping);
            }
            (outlet, Err(Ended::Failed(error))) => outlet.failed(error),
            (_, Err(Ended::Cancelled)) => {}
        }
    }

    /// What can be judged before the first window.
    fn judge(
        &self,
        request: &SttRequest,
        waited: Duration,
        load: &super::Load,
        desk: &Desk<'_>,
    ) -> Result<Cache, InferenceError> {
        if desk.stop.is_cancelled() {
            return Err(InferenceError::Stopping);
        }
        if request.end_within.is_some_and(|limit| waited > limit) {
            let before = load.in_flight(desk.class);
            return Err(overloaded(desk.class, before, Wait::Passed(waited)));
        }
        let rate = self.graph.sample_rate_hz;
        if request.sample_rate_hz != rate {
            return Err(InferenceError::OutOfRange {
                what: "the sample rate",
                actual: format!("{} Hz", request.sample_rate_hz),
                allowed: format!("{rate} Hz"),
            });
        }
        if let Some(language) = &request.language
            && !self.graph.languages.contains(language)
        {
            return Err(InferenceError::OutOfRange {
                what: "the language",
                actual: format!("{language:?}"),
                allowed: self.graph.languages.join(", "),
            });
        }
        Ok(self.decoder.cache()?)
    }

    fn transcribe(
        &mut self,
        request: &SttRequest,
        work: &mut Work,
        desk: &Desk<'_>,
    ) -> Result<(), Ended> {
        let total = request.samples.len();
        let gain = guard::gain(&request.samples);
        let mut at = 0;
        while at < total {
            let window = Window {
                start: at,
                end: total.min(at.saturating_add(self.graph.window_samples)),
                total,
            };
            let samples = &request.samples[window.start..window.end];
            if guard::is_silent(samples) {
                at = window.end;
                continue;
            }
            self.give_way(work, desk)?;
            let begun = Instant::now();
            let heard = self.hearing.listen(samples, gain)?;
            work.windows += 1;
            work.timings.hear += begun.elapsed();
            let begun = (Instant::now(), work.timings.gave_way);
            let read = self.read(&heard, work, desk)?;
            let gave_way = work.timings.gave_way - begun.1;
            work.timings.read += begun.0.elapsed().saturating_sub(gave_way);
            at = match read {
                None => window.end,
                Some((read, is_doubtful)) => {
                    let cut = seek::cut(
                        &self.scale,
                        window,
                        Text {
                            tokens: &read.tokens,
                            is_ended: read.is_ended,
                        },
                    );
                    let pieces = cut.pieces.into_iter();
                    let segments = pieces
                        .map(|piece| self.segment(piece, &read, is_doubtful))
                        .collect::<Result<Vec<_>, _>>()?;
                    let said = segments.into_iter().filter(|one| !one.text.is_empty());
                    work.outlet.push(said.collect());
                    cut.next
                }
            };
        }
        Ok(())
    }

    /// Reads what was heard, again and again if need be; `None` where nobody spoke.
    fn read(
        &mut self,
        heard: &Heard,
        work: &mut Work,
        desk: &Desk<'_>,
    ) -> Result<Option<(Read, bool)>, Ended> {
        let mut best: Option<Read> = None;
        for temperature in guard::TEMPERATURES {
            let read = self.read_once(heard, temperature, work, desk)?;
            match read.measures.judge() {
                Judgement::Silence => return Ok(None),
                Judgement::Sound => return Ok(Some((read, false))),
                Judgement::Doubtful => {
                    let is_better = |best: &Read| read.measures.is_better_than(&best.measures);
                    if best.as_ref().is_none_or(is_better) {
                        best = Some(read);
                    }
                }
            }
        }
        Ok(best.map(|read| (read, true)))
    }

    fn read_once(
        &mut self,
        heard: &Heard,
        temperature: f32,
        work: &mut Work,
        desk: &Desk<'_>,
    ) -> Result<Read, Ended> {
        let tokens = &self.graph.tokens;
        let (start, no_speech) = (tokens.start.clone(), tokens.no_speech);
        let steps = self.graph.window_samples / self.scale.time_samples;
        let last_time = self.rules.first_time + u32::try_from(steps).unwrap_or(u32::MAX);
        // Half of the context, as the model was trained and is decoded by its authors; the other half is for what was said before.
        let most = (self.decoder.context_tokens / 2).max(start.len() + 1) - start.len();
        let mut reading = self.decoder.begin(heard, &mut work.cache)?;
        let mut logits: &[f32] = &[];
        let mut silence = 0.0;
        for (index, &id) in start.iter().enumerate() {
            self.give_way(work, desk)?;
            logits = self.decoder.feed(&mut reading, id)?;
            if index == 0 {
                silence = rules::probability(logits, no_speech);
            }
        }
        let mut chosen: Vec<u32> = Vec::new();
        let (mut sum, mut count) = (0.0, 0usize);
        let is_ended = loop {
            let allowed = self.rules.after(&chosen, last_time);
            let next = self
                .rules
                .choose(logits, &allowed, temperature, &mut work.random)
                .ok_or(InferenceError::NoToken)?;
            sum += next.log_probability;
            count += 1;
            work.tokens += 1;
            if next.id == self.rules.end {
                break true;
            }
            chosen.push(next.id);
            if chosen.len() >= most {
                break false;
            }
            self.give_way(work, desk)?;
            logits = self.decoder.feed(&mut reading, next.id)?;
        };
        let text = self.text(&chosen)?;
        Ok(Read {
            measures: Measures {
                no_speech: silence,
                mean_log_probability: sum / count.max(1) as f64,
                compression: guard::compression(text.trim()),
            },
            tokens: chosen,
            is_ended,
        })
    }

    /// Before each run of the model: whether to go on, and who goes first.
    fn give_way(&mut self, work: &mut Work, desk: &Desk<'_>) -> Result<(), Ended> {
        if desk.stop.is_cancelled() {
            return Err(InferenceError::Stopping.into());
        }
        if !work.outlet.is_wanted() {
            return Err(Ended::Cancelled);
        }
        while let Some((class, job)) = desk.more_urgent() {
            let begun = Instant::now();
            let since = job.since;
            // At most as deep as there are classes.
            self.serve_one(
                job,
                &Desk {
                    class,
                    since,
                    ..*desk
                },
            );
            work.timings.gave_way += begun.elapsed();
        }
        Ok(())
    }

    fn segment(
        &self,
        piece: Piece,
        read: &Read,
        is_doubtful: bool,
    ) -> Result<Segment, InferenceError> {
        let text = self.text(&read.tokens[piece.words])?;
        Ok(Segment {
            start: self.duration(piece.start),
            end: self.duration(piece.end),
            text: text.trim().to_owned(),
            probability: read.measures.mean_log_probability.exp() as f32,
            is_doubtful,
        })
    }

    /// The words among some tokens.
    fn text(&self, tokens: &[u32]) -> Result<String, InferenceError> {
        let words = tokens.iter().copied();
        let words: Vec<u32> = words.filter(|id| !self.rules.is_time(*id)).collect();
        let text = self.tokenizer.decode(&words, true);
        text.map_err(|source| InferenceError::Tokenize { source })
    }

    fn duration(&self, samples: usize) -> Duration {
        Duration::from_secs_f64(samples as f64 / self.scale.sample_rate_hz as f64)
    }
}
