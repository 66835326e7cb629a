//! How fast a loaded model is: the figures of `models benchmark`, by its task.
//!
//! Never compares: what is shown are medians on a box that does its other work meanwhile.

use std::{
    cell::Cell,
    error::Error,
    time::{Duration, Instant},
};

use super::{
    super::{
        InferenceHandle,
        bundle::Bundle,
        chat::{ChatEvent, ChatMessage, ChatRequest, Role, Usage},
        class::Class,
        error::InferenceError,
        generic::GenericProbe,
        manifest::Graph,
        probe::{self, EmbeddingProbe, SttProbe, VadProbe},
        stt::SttRequest,
        tts::{SpeakRequest, TtsProbe},
        vad::VadState,
    },
    Figure, millis,
};

/// How long each figure is measured at most, and how often at most.
const MEASURE_MAX: Duration = Duration::from_secs(5);
const ROUNDS: usize = 200;

/// Tokens of an answer that is measured.
const ANSWER_TOKENS: usize = 48;

/// Sentences that are embedded together.
const SENTENCES: usize = 8;

/// The figures of a bundle by its task: each with what serves it in the daemon, the handles.
pub(super) async fn measure(
    bundle: &Bundle,
    handle: &InferenceHandle,
) -> Result<Vec<Figure>, Box<dyn Error>> {
    match &bundle.manifest().graph {
        Graph::Embedding(_) => {
            let probe: EmbeddingProbe = probe::read(bundle)?;
            let one = repeat(async || {
                let embedded = handle
                    .embedder()
                    .embed_timed(vec![probe.text.clone()])
                    .await?;
                Ok(millis(embedded.timings.tokenize + embedded.timings.infer))
            })
            .await?;
            let many = repeat(async || {
                let texts = vec![probe.text.clone(); SENTENCES];
                let embedded = handle.embedder().embed_timed(texts).await?;
                let time = embedded.timings.tokenize + embedded.timings.infer;
                Ok(SENTENCES as f64 / time.as_secs_f64())
            })
            .await?;
            Ok(vec![
                one.figure("the probe's sentence by itself", "ms"),
                many.figure("the same eight times together", "sentences/s"),
            ])
        }
        Graph::Vad(graph) => {
            let probe: VadProbe = probe::read(bundle)?;
            let chunk = probe.samples.get(..graph.chunk_samples);
            let chunk = chunk.ok_or("the probe holds no whole chunk")?.to_vec();
            let times = repeat(async || {
                let begun = Instant::now();
                handle
                    .vad()
                    .score(chunk.clone(), VadState::default())
                    .await?;
                Ok(millis(begun.elapsed()))
            })
            .await?;
            let length = graph.chunk_samples as f64 / f64::from(graph.sample_rate_hz) * 1000.0;
            let what = format!("a chunk of {length:.0} ms of sound");
            Ok(vec![times.figure(&what, "ms")])
        }
        Graph::Whisper(graph) => {
            // A second of sound takes as long as a whole window, but for its words.
            let probe: SttProbe = probe::read(bundle)?;
            let stt = handle.stt().ok_or("the model was not started")?;
            let (mut hear, mut read) = (Rates::default(), Rates::default());
            let all = repeat(async || {
                let begun = Instant::now();
                let request = SttRequest::new(probe.samples(), graph.sample_rate_hz);
                let done = stt.transcribe(request).await?.done;
                hear.0.push(millis(done.timings.hear));
                read.note(done.tokens as f64, done.timings.read);
                Ok(millis(begun.elapsed()))
            })
            .await?;
            let window = graph.window_samples as f64 / f64::from(graph.sample_rate_hz);
            let what = format!("hearing a window of up to {window:.0} s of sound");
            Ok(vec![
                hear.figure(&what, "ms"),
                read.figure("reading what was heard", "tokens/s"),
                all.figure("the probe's sound, all in all", "ms"),
            ])
        }
        Graph::Tts(_) => {
            let probe: TtsProbe = probe::read(bundle)?;
            let tts = handle.tts().ok_or("the model was not started")?;
            let seconds = Cell::new(0.0);
            let times = repeat(async || {
                let begun = Instant::now();
                let mut speech = tts.speak(SpeakRequest::new(probe.text.clone()))?;
                let mut samples = 0.0;
                while let Some(spoken) = speech.next().await {
                    let spoken = spoken?;
                    samples += spoken.samples.len() as f64 / f64::from(spoken.sample_rate_hz);
                }
                seconds.set(samples);
                Ok(millis(begun.elapsed()))
            })
            .await?;
            let length = seconds.get();
            let factor = Rates(times.0.iter().map(|ms| ms / 1000.0 / length).collect());
            Ok(vec![
                times.figure(&format!("{length:.1} s of speech"), "ms"),
                factor.figure("the same, as a part of its length", "of real time"),
            ])
        }
        Graph::Tensors(_) => {
            let inputs = GenericProbe::of(bundle)?.inputs;
            let generic = handle.generic(&bundle.manifest().name);
            let generic = generic.ok_or("the model was not started")?;
            let times = repeat(async || {
                let begun = Instant::now();
                generic.run(inputs.clone(), Class::default()).await?;
                Ok(millis(begun.elapsed()))
            })
            .await?;
            Ok(vec![times.figure("the probe's inputs", "ms")])
        }
        Graph::Chat(_) | Graph::Optimum(_) => chat(handle).await,
    }
}

async fn chat(handle: &InferenceHandle) -> Result<Vec<Figure>, Box<dyn Error>> {
    let (mut prefill, mut decode) = (Rates::default(), Rates::default());
    let begun = Instant::now();
    let mut length = 0;
    for round in 0..ROUNDS {
        if round > 1 && begun.elapsed() > MEASURE_MAX {
            break;
        }
        // A beginning of its own each time, so that no cache of an earlier one serves.
        let text = format!(
            "{round} is the number of this letter. {}Sum it up.",
            "The boat left the harbour at dawn, and nobody on the pier waved. ".repeat(12)
        );
        let message = ChatMessage {
            role: Role::User,
            content: text,
        };
        let mut events = handle
            .chat()
            .generate(ChatRequest::new(vec![message], ANSWER_TOKENS))?;
        loop {
            match events.recv().await {
                Some(ChatEvent::Done { usage, timings, .. }) => {
                    let Usage {
                        prompt_tokens,
                        reused_tokens,
                        answer_tokens,
                        ..
                    } = usage;
                    length = prompt_tokens;
                    prefill.note((prompt_tokens - reused_tokens) as f64, timings.prefill);
                    decode.note(answer_tokens.saturating_sub(1) as f64, timings.decode);
                    break;
                }
                Some(ChatEvent::Failed(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err("the model's thread broke down".into()),
            }
        }
    }
    Ok(vec![
        prefill.figure(&format!("reading a prompt of {length} tokens"), "tokens/s"),
        decode.figure("answering after it, one conversation", "tokens/s"),
    ])
}

/// Measures until there are [`ROUNDS`] or [`MEASURE_MAX`] is over. The first is for warming up.
async fn repeat<F>(mut measure: F) -> Result<Rates, Box<dyn Error>>
where
    F: AsyncFnMut() -> Result<f64, InferenceError>,
{
    let mut rates = Rates::default();
    measure().await?;
    let begun = Instant::now();
    while rates.0.is_empty() || (rates.0.len() < ROUNDS && begun.elapsed() < MEASURE_MAX) {
        rates.0.push(measure().await?);
    }
    Ok(rates)
}

#[derive(Default)]
struct Rates(Vec<f64>);

impl Rates {
    fn note(&mut self, count: f64, time: Duration) {
        if count > 0.0 && !time.is_zero() {
            self.0.push(count / time.as_secs_f64());
        }
    }

    fn figure(mut self, what: &str, unit: &str) -> Figure {
        self.0.sort_by(f64::total_cmp);
        Figure {
            what: what.to_owned(),
            value: self.0.get(self.0.len() / 2).copied().unwrap_or(0.0),
            unit: unit.to_owned(),
            rounds: self.0.len(),
        }
    }
}
