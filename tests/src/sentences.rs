//! The labelled sentences: reading them, saying them to a catalogue, and judging what comes out.
//!
//! `tests/sentences/README.md` tells the format. The embedding model is the real one; its
//! vectors are kept by text, so that a run embeds each phrase once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use autoglm_edge::inference::embedder::EmbedderHandle;
use autoglm_edge::things::description::{ThingDescription, ThingId};
use autoglm_edge::understanding::catalogue::Catalogue;
use autoglm_edge::understanding::wording::Wording;
use autoglm_edge::understanding::{Call, Focus, Operation, Resolution, Understanding};
use serde::Deserialize;
use serde_json::Value;

/// Which sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// For building and deriving thresholds.
    Tuning,
    /// For judging only.
    Report,
}

impl Part {
    /// Its name, as in its file's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tuning => "tuning",
            Self::Report => "report",
        }
    }
}

/// What else a sentence may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// A question.
    Ask,
    /// A refusal.
    Refuse,
    /// Nothing to do.
    Conversation,
}

/// One labelled sentence.
#[derive(Debug, Clone)]
pub struct Sentence {
    /// Which scene it is said in.
    pub scene: String,
    /// What is said.
    pub say: String,
    /// What was said before.
    pub before: Vec<String>,
    /// What it must come to, sorted; empty where only `accept` is right.
    pub calls: Vec<Call>,
    /// What is right, too.
    pub accept: Vec<Accept>,
}

/// How a sentence was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As labelled.
    Right,
    /// Asked, where calls were wanted. Nothing wrong was done.
    AskedBack,
    /// Nothing was done where calls were wanted, or it was refused for asking.
    Missed,
    /// A call was made that was not wanted: the dangerous kind.
    WrongCall,
}

#[derive(Deserialize)]
struct RawFile {
    group: Vec<RawGroup>,
}

#[derive(Deserialize)]
struct RawGroup {
    scene: String,
    sentences: Vec<RawSentence>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSentence {
    say: String,
    #[serde(default)]
    before: Vec<String>,
    #[serde(default)]
    calls: Vec<String>,
    #[serde(default)]
    accept: Vec<Accept>,
}

#[derive(Deserialize)]
struct RawScene {
    things: Vec<String>,
    #[serde(default)]
    state: BTreeMap<String, BTreeMap<String, Value>>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// One of the descriptions in `tests/things/`, by file name.
///
/// # Errors
/// It is not there, or no description.
pub fn thing(slug: &str) -> Result<ThingDescription> {
    let path = folder("things").join(format!("{slug}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ThingDescription::from_json(&text).with_context(|| path.display().to_string())
}

/// Reads the sentences of a part.
///
/// # Errors
/// A file is not there or not of the form that the README tells.
pub fn sentences(part: Part) -> Result<Vec<Sentence>> {
    let path = folder("sentences").join(format!("{}.toml", part.name()));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let file: RawFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut sentences = Vec::new();
    for group in file.group {
        for raw in group.sentences {
            let context = || format!("{}: {:?}", path.display(), raw.say);
            let mut calls = raw
                .calls
                .iter()
                .map(|call| parse_call(call))
                .collect::<Result<Vec<_>>>()
                .with_context(context)?;
            sort(&mut calls);
            ensure!(!calls.is_empty() || !raw.accept.is_empty(), context());
            sentences.push(Sentence {
                scene: group.scene.clone(),
                say: raw.say,
                before: raw.before,
                calls,
                accept: raw.accept,
            });
        }
    }
    Ok(sentences)
}

/// `desk-lamp turn_on`, `desk-lamp set_brightness {"level": 40}`, `thermostat ?temperature`,
/// `thermostat target_temperature = 21`.
fn parse_call(text: &str) -> Result<Call> {
    let (slug, rest) = text.split_once(' ').context("a thing and what to do")?;
    let operation = if let Some(property) = rest.strip_prefix('?') {
        Operation::Read {
            property: property.to_owned(),
        }
    } else if let Some((property, value)) = rest.split_once(" = ") {
        Operation::Write {
            property: property.to_owned(),
            value: serde_json::from_str(value)?,
        }
    } else {
        let (action, input) = match rest.split_once(' ') {
            Some((action, input)) => (action, Some(serde_json::from_str(input)?)),
            None => (rest, None),
        };
        Operation::Invoke {
            action: action.to_owned(),
            input,
        }
    };
    Ok(Call {
        thing: thing(slug)?.id,
        operation,
    })
}

fn sort(calls: &mut [Call]) {
    calls.sort_by_cached_key(|call| format!("{call:?}"));
}

/// The real embedding model with a memory.
pub struct Embeddings {
    embedder: EmbedderHandle,
    known: Mutex<HashMap<String, Vec<f32>>>,
}

impl Embeddings {
    /// Around a model that is ready.
    pub fn new(embedder: EmbedderHandle) -> Self {
        Self {
            embedder,
            known: Mutex::default(),
        }
    }

    /// The vectors of these texts; each text is embedded alone, as a sentence is, because the
    /// quantised model's result depends a little on what else is in a batch.
    ///
    /// # Errors
    /// The model's.
    pub async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for text in texts {
            let known = self
                .known
                .lock()
                .expect("no panic while held")
                .get(text)
                .cloned();
            let vector = match known {
                Some(vector) => vector,
                None => {
                    let vector = self.embed_anew(std::slice::from_ref(text)).await?.remove(0);
                    let mut known = self.known.lock().expect("no panic while held");
                    known.insert(text.clone(), vector.clone());
                    vector
                }
            };
            vectors.push(vector);
        }
        Ok(vectors)
    }

    /// As [`Self::embed`], in one batch and without looking into the memory: for timing.
    ///
    /// # Errors
    /// The model's.
    pub async fn embed_anew(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let embedded = self.embedder.embed(texts.to_vec()).await?;
        Ok(embedded
            .iter()
            .map(|vector| vector.as_slice().to_vec())
            .collect())
    }
}

/// The things of a scene and the state that they start in.
pub struct Scene {
    /// With all things in.
    pub catalogue: Catalogue,
    state: BTreeMap<(ThingId, String), Value>,
}

impl Scene {
    /// Reads all scenes and embeds their phrases.
    ///
    /// # Errors
    /// A file is wrong, or the model fails.
    pub async fn all(embeddings: &Embeddings, wording: &Wording) -> Result<BTreeMap<String, Self>> {
        let path = folder("sentences/scenes.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let raw: BTreeMap<String, RawScene> = toml::from_str(&text)?;
        let mut scenes = BTreeMap::new();
        for (name, raw) in raw {
            scenes.insert(name, Self::new(raw, embeddings, wording).await?);
        }
        Ok(scenes)
    }

    async fn new(raw: RawScene, embeddings: &Embeddings, wording: &Wording) -> Result<Self> {
        let mut catalogue = Catalogue::new(wording.clone());
        let mut state = BTreeMap::new();
        for slug in &raw.things {
            let description = thing(slug)?;
            let phrases = catalogue.phrases_for(&description);
            let texts: Vec<String> = phrases.iter().map(|phrase| phrase.text.clone()).collect();
            let vectors = embeddings.embed(&texts).await?;
            catalogue.insert(&description, phrases, vectors)?;
            for (property, value) in raw.state.get(slug).into_iter().flatten() {
                ensure!(
                    description.properties.contains_key(property),
                    "{slug}: {property}"
                );
                state.insert((description.id.clone(), property.clone()), value.clone());
            }
        }
        Ok(Self { catalogue, state })
    }

    /// Says a sentence after those before it; calls are taken to succeed.
    ///
    /// # Errors
    /// The model's.
    pub async fn say(&self, sentence: &Sentence, embeddings: &Embeddings) -> Result<Said> {
        let mut focus = Focus::default();
        let mut state = self.state.clone();
        for before in &sentence.before {
            let said = self.one(before, &focus, &state, embeddings).await?;
            if let Understanding::Calls(calls) = &said.resolution.understanding {
                self.apply(calls, &mut state);
            }
            focus = said.resolution.focus;
        }
        self.one(&sentence.say, &focus, &state, embeddings).await
    }

    async fn one(
        &self,
        text: &str,
        focus: &Focus,
        state: &BTreeMap<(ThingId, String), Value>,
        embeddings: &Embeddings,
    ) -> Result<Said> {
        let begun = Instant::now();
        let prepared = self.catalogue.prepare(text, focus);
        let prepare = begun.elapsed();
        let vectors = embeddings.embed(prepared.texts()).await?;
        let state = |thing: &ThingId, property: &str| {
            state.get(&(thing.clone(), property.to_owned())).cloned()
        };
        let begun = Instant::now();
        let resolution = self.catalogue.resolve(&prepared, &vectors, focus, &state);
        Ok(Said {
            texts: prepared.texts().to_vec(),
            rest: prepare + begun.elapsed(),
            resolution,
        })
    }

    fn apply(&self, calls: &[Call], state: &mut BTreeMap<(ThingId, String), Value>) {
        for call in calls {
            let (property, value) = match &call.operation {
                Operation::Write { property, value } => (property.clone(), value.clone()),
                Operation::Invoke {
                    action,
                    input: Some(Value::Object(input)),
                } => {
                    let description = self.catalogue.description(&call.thing);
                    let action = description.and_then(|known| known.actions.get(action));
                    let Some(sets) = action.and_then(|action| action.sets.clone()) else {
                        continue;
                    };
                    let Some(value) = input.values().next() else {
                        continue;
                    };
                    (sets, value.clone())
                }
                _ => continue,
            };
            state.insert((call.thing.clone(), property), value);
        }
    }
}

/// What came of a sentence.
#[derive(Debug)]
pub struct Said {
    /// What it came to.
    pub resolution: Resolution,
    /// What was embedded.
    pub texts: Vec<String>,
    /// Time of everything but the embedding.
    pub rest: Duration,
}

/// Whether an understanding is as labelled.
pub fn judge(sentence: &Sentence, understanding: &Understanding) -> Verdict {
    let accepts = |accept| sentence.accept.contains(&accept);
    match understanding {
        Understanding::Calls(calls) => {
            let mut calls = calls.clone();
            sort(&mut calls);
            if !calls.is_empty() && calls == sentence.calls {
                Verdict::Right
            } else {
                Verdict::WrongCall
            }
        }
        Understanding::Ask { .. } if accepts(Accept::Ask) => Verdict::Right,
        Understanding::Refuse { .. } if accepts(Accept::Refuse) => Verdict::Right,
        Understanding::Conversation | Understanding::Cancelled if accepts(Accept::Conversation) => {
            Verdict::Right
        }
        Understanding::Ask { .. } => Verdict::AskedBack,
        _ => Verdict::Missed,
    }
}

/// The peer: the nearest phrase decides if it is like enough, whatever the words say; the last number of
/// the sentence is the value. This is what the first prototype did.
///
/// # Errors
/// The model's.
pub async fn nearest_phrase(
    scene: &Scene,
    sentence: &Sentence,
    embeddings: &Embeddings,
) -> Result<Understanding> {
    const THRESHOLD: f32 = 0.45;
    let mut numbers = Vec::new();
    let mut text = String::new();
    for word in sentence
        .say
        .to_lowercase()
        .replace('%', " percent ")
        .split_whitespace()
    {
        let number = word.trim_matches(|c: char| !c.is_ascii_digit());
        let plain = match number.parse::<f64>() {
            Ok(value) => {
                numbers.push(value);
                "#"
            }
            Err(_) => word,
        };
        text.push_str(plain);
        text.push(' ');
    }
    let vector = embeddings.embed(&[text.trim().to_owned()]).await?.remove(0);
    let Some(nearest) = scene.catalogue.nearest(&vector) else {
        bail!("a scene without phrases");
    };
    let Some(call) = nearest.call.filter(|_| nearest.similarity >= THRESHOLD) else {
        return Ok(Understanding::Conversation);
    };
    let Some(description) = scene.catalogue.description(&call.thing) else {
        bail!("a phrase of no thing");
    };
    let filled = with_value(&call, description, numbers.last().copied(), &nearest.phrase);
    Ok(Understanding::Calls(vec![filled]))
}

fn with_value(
    call: &Call,
    description: &ThingDescription,
    number: Option<f64>,
    phrase: &str,
) -> Call {
    let value = |schema: &autoglm_edge::things::description::DataSchema| {
        let named = schema.choices.iter().find(|choice| {
            let title = choice.title.clone().map(|title| title.to_lowercase());
            let text = choice.value.as_str().map(str::to_owned);
            let said = title
                .into_iter()
                .chain(text)
                .chain(choice.aliases.iter().cloned());
            said.into_iter()
                .any(|said| format!(" {phrase} ").contains(&format!(" {said} ")))
        });
        match (named, number) {
            (Some(choice), _) => choice.value.clone(),
            (None, Some(number)) if number.fract() == 0.0 => Value::from(number as i64),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::Null,
        }
    };
    let operation = match &call.operation {
        Operation::Invoke {
            action,
            input: None,
        } => {
            let schema = description
                .actions
                .get(action)
                .and_then(|action| action.input.as_ref());
            let input = schema.map(|schema| match schema.members.iter().next() {
                Some((name, member)) => serde_json::json!({ name: value(member) }),
                None => value(schema),
            });
            Operation::Invoke {
                action: action.clone(),
                input,
            }
        }
        Operation::Write {
            property,
            value: Value::Null,
        } => {
            let schema = description
                .properties
                .get(property)
                .map(|property| &property.schema);
            Operation::Write {
                property: property.clone(),
                value: schema.map_or(Value::Null, value),
            }
        }
        other => other.clone(),
    };
    Call {
        thing: call.thing.clone(),
        operation,
    }
}
