//! Answers of which much is known before: those that repeat their prompt, and calls of tools under a schema.

use std::time::Instant;

use anyhow::{Context as _, Result};
use autoglm_edge::inference::chat::{ChatRequest, Form, Role, Speculation};
use autoglm_tests::bench::{
    bundles::rendered,
    statistics::Sample,
    table::{Table, number},
};

use super::{Bench, answer, say};

impl Bench {
    pub(super) async fn speculation(&mut self, table: &mut Table) -> Result<()> {
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
        Ok(())
    }

    /// A call of a tool under its schema. Both are asked the same and may space their JSON differently, so tokens are counted of each.
    pub(super) async fn form(&mut self, table: &mut Table) -> Result<()> {
        let schema = serde_json::json!({
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
        });
        let (mut engine, mut genai) = (Sample::default(), Sample::default());
        let (mut engine_ms, mut genai_ms) = (Sample::default(), Sample::default());
        let mut tokens = (0, 0);
        for round in 0..=self.options.rounds {
            let messages = vec![say(
                Role::User,
                format!(
                    "{round}: Dim the desk lamp in the living room to 40 percent over 5 seconds. Answer in JSON."
                ),
            )];
            let request = ChatRequest {
                form: Some(Form::JsonSchema(schema.clone())),
                ..ChatRequest::new(messages.clone(), 96)
            };
            let begun = Instant::now();
            let answer = answer(&self.handle, request, begun).await?;
            serde_json::from_str::<serde_json::Value>(&answer.text)
                .with_context(|| format!("not JSON: {}", answer.text))?;
            let ids = self.tokens.of_text(&rendered(&messages))?;
            let peer = self.genai.as_mut().map(|peer| peer.form(&ids, &schema, 96));
            let peer = peer.transpose()?;
            if round == 0 {
                continue;
            }
            engine.push(answer.tokens as f64 / answer.all_ms * 1e3);
            engine_ms.push(answer.all_ms);
            tokens.0 = answer.tokens;
            if let Some(timed) = peer {
                genai.push(timed.tokens as f64 / timed.ms * 1e3);
                genai_ms.push(timed.ms);
                tokens.1 = timed.tokens;
            }
        }
        let remark = format!(
            "{} and {} tokens with the prompt's time; {} and {} ms a call",
            tokens.0,
            tokens.1,
            number(engine_ms.p50()),
            number(genai_ms.p50())
        );
        let ratio = number(engine.over(&genai).p50());
        let cells = [number(engine.p50()), number(genai.p50()), ratio, remark];
        table.row("a call of a tool under its schema", cells);
        Ok(())
    }
}
