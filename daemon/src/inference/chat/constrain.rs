//! Answers that must have a form: which tokens may come next, and which must.
//!
//! The work is llguidance's (an Earley parser over a lexer of regular-expression derivatives, one bit per token of the vocabulary).
//! Here it gets its vocabulary ([`Grammars`], once per model), its limits, and errors that are the caller's or ours. Nothing here
//! looks at a logit. Compiling a grammar takes 1 to some 100 ms and is done before a request comes to the model's thread; a mask takes
//! some 50 µs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use llguidance::{
    Matcher, ParserFactory,
    api::{ParserLimits, TopLevelGrammar},
    earley::SlicedBiasComputer,
    toktrie::{InferenceCapabilities, SimpleVob},
};
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use toktrie_hf_tokenizers::ByteTokenizer;

use super::super::error::InferenceError;

/// Longest grammar or schema, in bytes of its text.
const GRAMMAR_BYTES_MAX: usize = 256 << 10;

/// The form that an answer must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// JSON that satisfies this JSON Schema, written as `json.dumps` does: `, ` and `: ` and no other space outside strings.
    /// A keyword that cannot be enforced is an error, not ignored.
    JsonSchema(Value),
    /// Any JSON object, written in the same way.
    JsonObject,
    /// A context-free grammar in llguidance's dialect of Lark.
    Lark(String),
    /// A regular expression that the whole answer matches (syntax of the `regex` crate, without look-around).
    Regex(String),
}

/// What one model needs to hold its answers to a form.
pub(super) struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// `vocab_size` is the width of the logits, at least the tokenizer's.
    ///
    /// # Errors
    /// What the library says of a tokenizer whose tokens it cannot take apart into bytes.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        end_of_turn: &[u32],
    ) -> Result<Self, String> {
        let known: Vec<u32> = end_of_turn
            .iter()
            .copied()
            .filter(|id| tokenizer.id_to_token(*id).is_some())
            .collect();
        if known.is_empty() {
            return Err("the bundle names no token that ends an answer".into());
        }
        let build = || {
            let mut bytes = ByteTokenizer::from_tokenizer(tokenizer.clone())?;
            bytes.set_eos_tokens(&known);
            let env = bytes.into_tok_env(Some(vocab_size))?;
            let caps = InferenceCapabilities {
                ff_tokens: true,
                ..InferenceCapabilities::default()
            };
            let mut factory =
                ParserFactory::new(&env, caps, &SlicedBiasComputer::general_slices())?;
            factory.quiet();
            *factory.limits_mut() = ParserLimits {
                // 1 to 2 kB each: some 64 MB at most for one answer.
                max_lexer_states: 32_000,
                verbose_errors: false,
                ..ParserLimits::default()
            };
            anyhow::Ok(factory)
        };
        guarded(build).map(|factory| Self { factory })
    }

    /// Compiles the form for one answer.
    ///
    /// # Errors
    /// [`InferenceError::Form`]: it is not valid, cannot be enforced, or is too large.
    pub(super) fn compile(&self, form: &Form) -> Result<Guide, InferenceError> {
        let refuse = |reason: String| InferenceError::Form { reason };
        let bytes = match form {
            Form::JsonSchema(schema) => schema.to_string().len(),
            Form::JsonObject => 0,
            Form::Lark(text) | Form::Regex(text) => text.len(),
        };
        if bytes > GRAMMAR_BYTES_MAX {
            return Err(refuse(format!(
                "it has {bytes} bytes, at most {GRAMMAR_BYTES_MAX} are allowed"
            )));
        }
        let grammar = match form {
            Form::JsonSchema(schema) => written_plainly(schema.clone()).map_err(refuse)?,
            Form::JsonObject => written_plainly(json!({ "type": "object" })).map_err(refuse)?,
            Form::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
            Form::Regex(text) => TopLevelGrammar::from_regex(text),
        };
        let parser = guarded(|| self.factory.create_parser(grammar)).map_err(refuse)?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(reason) => Err(refuse(first_line(&reason))),
            None => Ok(Guide { matcher }),
        }
    }
}

/// Sets how JSON is written, in the schema itself, as the library reads it.
fn written_plainly(schema: Value) -> Result<TopLevelGrammar, String> {
    let mut object = match schema {
        Value::Object(object) => object,
        Value::Bool(true) => serde_json::Map::new(),
        other => return Err(format!("a JSON Schema is an object, this is {other}")),
    };
    object.insert(
        "x-guidance".into(),
        json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " }),
    );
    Ok(TopLevelGrammar::from_json_schema(Value::Object(object)))
}

/// Runs code of the library whose input came from outside: a panic in it is an error like its own.
fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(first_line(&format!("{error:#}"))),
        Err(_) => Err("the grammar library panicked on it".into()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Where one answer stands in its form.
pub(super) struct Guide {
    matcher: Matcher,
}

impl Guide {
    /// The tokens that may come next. Once the form is complete and nothing can follow, only the tokens that end an answer.
    ///
    /// # Errors
    /// [`InferenceError::Form`] when the form is too intricate at this point.
    pub(super) fn allowed(&mut self) -> Result<SimpleVob, InferenceError> {
        self.matcher
            .compute_mask_or_eos()
            .map_err(|error| InferenceError::Form {
                reason: first_line(&error.to_string()),
            })
    }

    /// Tokens that must come next, whatever the model says; they are not taken yet ([`take`](Self::take) does).
    pub(super) fn forced(&mut self) -> Vec<u32> {
        if self.is_complete() {
            return Vec::new();
        }
        self.matcher.compute_ff_tokens()
    }

    /// Goes on by these tokens.
    ///
    /// # Errors
    /// [`InferenceError::Form`] when one of them does not fit, which is a bug of who asked [`allowed`](Self::allowed).
    pub(super) fn take(&mut self, ids: &[u32]) -> Result<(), InferenceError> {
        self.matcher
            .consume_tokens(ids)
            .map_err(|error| InferenceError::Form {
                reason: first_line(&error.to_string()),
            })
    }

    /// How many of these tokens, from the first on, fit; nothing is taken.
    pub(super) fn fitting(&mut self, ids: &[u32]) -> usize {
        self.matcher.validate_tokens(ids).unwrap_or(0)
    }

    /// Whether the form is complete and nothing may follow.
    pub(super) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::{
        super::byte_tokenizer::{END, byte_tokenizer},
        *,
    };

    const VOCAB: usize = 260;

    fn grammars() -> (Tokenizer, Grammars) {
        let tokenizer = byte_tokenizer();
        let grammars = Grammars::new(&tokenizer, VOCAB, &[END]).unwrap();
        (tokenizer, grammars)
    }

    /// An answer of a model that knows nothing: any allowed token, the shorter way out preferred now and then.
    fn random_answer(tokenizer: &Tokenizer, guide: &mut Guide, rng: &mut StdRng) -> String {
        let mut ids = Vec::new();
        for step in 0..2000 {
            let forced = guide.forced();
            guide.take(&forced).unwrap();
            ids.extend(forced);
            let allowed: Vec<u32> = guide.allowed().unwrap().iter().collect();
            assert!(!allowed.is_empty(), "nothing may follow {ids:?}");
            assert!(
                allowed.iter().all(|&id| id <= END),
                "a token that nobody has"
            );
            let closing = allowed.iter().copied().filter(|&id| {
                id == END
                    || matches!(
                        tokenizer.id_to_token(id).as_deref(),
                        Some("\"" | "}" | "]" | "0")
                    )
            });
            let closing: Vec<u32> = closing.collect();
            let from = if step > 100 && !closing.is_empty() {
                &closing
            } else {
                &allowed
            };
            let id = from[rng.random_range(0..from.len())];
            if id == END {
                return tokenizer.decode(&ids, true).unwrap();
            }
            guide.take(&[id]).unwrap();
            ids.push(id);
        }
        panic!("no end after 2000 tokens: {ids:?}");
    }

    #[test]
    fn whatever_a_model_says_its_answer_satisfies_the_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "thing": { "enum": ["lamp", "fan"] },
                "level": { "type": "integer", "minimum": -20, "maximum": 100 },
                "name": { "type": "string", "maxLength": 8 },
                "tags": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 }
            },
            "required": ["thing", "level"],
            "additionalProperties": false
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        let (tokenizer, grammars) = grammars();
        for seed in 0..60 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut guide = grammars.compile(&Form::JsonSchema(schema.clone())).unwrap();
            let text = random_answer(&tokenizer, &mut guide, &mut rng);
            let value: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("seed {seed}: {text:?}: {error}"));
            assert!(validator.is_valid(&value), "seed {seed}: {text}");
        }
    }

    #[test]
    fn what_must_come_is_forced_and_what_is_complete_only_ends() {
        let (tokenizer, grammars) = grammars();
        let schema = json!({
            "type": "object", "properties": { "state": { "enum": ["on", "off"] } },
            "required": ["state"], "additionalProperties": false
        });
        let mut guide = grammars.compile(&Form::JsonSchema(schema)).unwrap();
        let forced = guide.forced();
        assert_eq!(tokenizer.decode(&forced, true).unwrap(), "{\"state\": \"o");
        guide.take(&forced).unwrap();
        let allowed: Vec<String> = guide
            .allowed()
            .unwrap()
            .iter()
            .filter_map(|id| tokenizer.id_to_token(id))
            .collect();
        assert_eq!(allowed, ["f", "n"]);
        let n = tokenizer.token_to_id("n").unwrap();
        assert_eq!(guide.fitting(&[n, n]), 1);
        guide.take(&[n]).unwrap();
        let forced = guide.forced();
        guide.take(&forced).unwrap();
        assert_eq!(guide.allowed().unwrap().iter().collect::<Vec<_>>(), [END]);
    }

    #[test]
    fn a_form_that_cannot_be_held_is_refused_with_its_reason() {
        let (_, grammars) = grammars();
        for (form, word) in [
            (
                Form::JsonSchema(json!({ "type": "object", "not": {} })),
                "not",
            ),
            (Form::JsonSchema(json!({ "type": "nothing" })), "nothing"),
            (Form::JsonSchema(json!({ "$ref": "#/nowhere" })), "nowhere"),
            (Form::JsonSchema(json!([1])), "object"),
            (Form::Lark("start: missing".into()), "missing"),
            (Form::Regex("(".into()), "("),
            (Form::Regex("a".repeat(GRAMMAR_BYTES_MAX + 1)), "262144"),
        ] {
            let Err(error) = grammars.compile(&form) else {
                panic!("{form:?} was accepted");
            };
            assert!(
                matches!(&error, InferenceError::Form { reason } if reason.contains(word)),
                "{form:?}: {error}"
            );
        }
    }

    #[test]
    fn a_form_that_explodes_is_refused_and_not_computed_for_ever() {
        let (_, grammars) = grammars();
        let form = Form::Regex("(a|b)*a(a|b){5000}(c|d){5000}".into());
        if let Ok(mut guide) = grammars.compile(&form) {
            let _ = guide.allowed();
        }
    }
}
