//! Answers of which much is known before: those that repeat their prompt, and calls of tools under a schema.

use std::time::Instant;

use anyhow::{Context as _, Result};
use autoglm_edge::inference::chat::{ChatRequest, Form, Role, Speculation};
use autoglm_tests::bench::{
    bundles::rendered,
    peer::Peer,
    statistics::Sample,
    table::{Table, number},
};
use serde_json::{Value, json};

use super::{Bench, answer, beside, of, say};

/// Twice what a call has.
const TOKENS_MAX: usize = 96;

impl Bench {
    pub(super) async fn speculation(&mut self) -> Result<Table> {
        let mut table = Table::new(&["tokens/s", "with guesses", "without", "ratio", "remark"]);
        let lamps = "{\"name\": \"Desk lamp\", \"brightness\": 40, \"on\": true}, {\"name\": \"Hall lamp\", \"brightness\": 15, \"on\": false}, {\"name\": \"Bed lamp\", \"brightness\": 5, \"on\": true}";
        let (mut with, mut without) = (Sample::default(), Sample::default());
        let before = self.handle.chat().counters();
        for round in 0..self.options.rounds {
            let messages = vec![
                say(Role::System, format!("{round} lamps are broken.")),
                say(
                    Role::User,
                    format!("Here is a list: [{lamps}]. Write the same list again."),
                ),
            ];
            let one = self.ask(messages.clone(), 96, Speculation::Off).await?;
            let other = self.ask(messages, 96, Speculation::On).await?;
            without.push(one.rate());
            with.push(other.rate());
        }
        let after = self.handle.chat().counters();
        let remark = format!(
            "{} of {} guesses right",
            after.taken_tokens - before.taken_tokens,
            after.drafted_tokens - before.drafted_tokens
        );
        let ratio = number(with.over(&without).p50());
        table.row(
            "an answer that repeats its prompt",
            [number(with.p50()), number(without.p50()), ratio, remark],
        );
        Ok(table)
    }

    /// A call of a tool under its schema, from the question to the last token of the answer.
    pub(super) async fn form(&mut self) -> Result<Table> {
        let schema = schema();
        let peers_schema = spaced(schema.clone());
        let mut seen: [Call; 3] = Default::default();
        for round in 0..=self.options.rounds {
            let messages = vec![say(
                Role::User,
                format!(
                    "{round}: Dim the desk lamp in the living room to 40 percent over 5 seconds. Answer in JSON."
                ),
            )];
            let request = ChatRequest {
                form: Some(Form::JsonSchema(schema.clone())),
                ..ChatRequest::new(messages.clone(), TOKENS_MAX)
            };
            let answer = answer(&self.handle, request, Instant::now()).await?;
            let ids = self.tokens.of_text(&rendered(&messages))?;
            let ask = |peer: &mut Peer| peer.form(&ids, &peers_schema, TOKENS_MAX);
            let genai = of(&mut self.genai, ask)?.map(|told| (told.text, told.tokens, told.ms));
            let llama = of(&mut self.llama, ask)?.map(|told| (told.text, told.tokens, told.ms));
            let ours = Some((answer.text, answer.tokens, answer.all_ms));
            for (call, told) in seen.iter_mut().zip([ours, genai, llama]) {
                let Some((text, tokens, ms)) = told else {
                    continue;
                };
                serde_json::from_str::<Value>(&text)
                    .with_context(|| format!("not JSON: {text}"))?;
                if round > 0 {
                    call.tokens.push(tokens as f64);
                    call.ms.push(ms);
                    call.rate.push(tokens as f64 / ms * 1e3);
                }
            }
        }
        let head = "a call of a tool under its schema";
        let mut table = Table::new(&[head, "ours", "genai", "ratio", "llama.cpp", "ratio"]);
        let mut row = |name: &str, of: fn(&Call) -> &Sample| {
            let [ours, genai, llama] = [0, 1, 2].map(|at: usize| of(&seen[at]));
            let mut cells = vec![number(ours.p50())];
            cells.extend(beside(ours, genai));
            cells.extend(beside(ours, llama));
            table.row(name, cells);
        };
        row("tokens/s, with the prompt's time", |call| &call.rate);
        row("ms", |call| &call.ms);
        row("tokens", |call| &call.tokens);
        Ok(table)
    }
}

/// The calls of one engine.
#[derive(Default)]
struct Call {
    rate: Sample,
    ms: Sample,
    tokens: Sample,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "tool": { "enum": ["set_brightness_of_lamp", "set_speed_of_fan"] },
            "arguments": {
                "type": "object",
                "properties": {
                    "thing": { "enum": ["living room desk lamp", "bedroom ceiling fan"] },
                    "level_in_percent": { "type": "integer", "minimum": 0, "maximum": 100 },
                    "transition_in_seconds": { "type": "integer", "minimum": 0, "maximum": 60 }
                },
                "required": ["thing", "level_in_percent", "transition_in_seconds"],
                "additionalProperties": false
            }
        },
        "required": ["tool", "arguments"],
        "additionalProperties": false
    })
}

/// With the spaces of our own answers. Both peers have their forms from llguidance too, which by default leaves the spaces to the model:
/// this one then writes empty lines until it may write no more.
fn spaced(mut schema: Value) -> Value {
    schema["x-guidance"] =
        json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
    schema
}
