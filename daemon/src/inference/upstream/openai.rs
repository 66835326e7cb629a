//! Requests and events of `/v1/chat/completions` with `stream` (OpenAI's API, as vLLM, SGLang and llama-server have it too). Pure.
//!
//! Only members that the API's own reference has are sent: the repetition penalty, top-k and min-p of a request are not in it, and are
//! left to the engine's defaults.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::chat::{ChatRequest, Choice, Finish, Form, Usage},
    reader::{Heard, ReadError, Told, excerpt},
};

/// Below the base.
pub(super) const PATH: &str = "/v1/chat/completions";

/// The event that ends the stream.
const END: &str = "[DONE]";

/// The request's body; `Err` says what cannot be asked for.
pub(super) fn body(request: &ChatRequest, model: &str) -> Result<String, &'static str> {
    if !request.tools.is_empty() {
        return Err("tools");
    }
    if request.logprobs.is_some() {
        return Err("log-probabilities");
    }
    let messages: Vec<Value> = request
        .messages
        .iter()
        .map(|message| json!({"role": message.role.as_str(), "content": message.content}))
        .collect();
    let mut body = json!({
        "model": model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    match request.sampling.choice {
        Choice::Greedy => body["temperature"] = json!(0),
        Choice::Random {
            temperature,
            top_p,
            seed,
            ..
        } => {
            body["temperature"] = json!(temperature);
            body["top_p"] = json!(top_p);
            // The API's seeds are signed.
            body["seed"] = json!(seed >> 1);
        }
    }
    for (name, penalty) in [
        ("frequency_penalty", request.sampling.frequency_penalty),
        ("presence_penalty", request.sampling.presence_penalty),
    ] {
        if penalty != 0.0 {
            body[name] = json!(penalty);
        }
    }
    if !request.stop.is_empty() {
        body["stop"] = json!(request.stop);
    }
    match &request.form {
        None => {}
        Some(Form::JsonObject) => body["response_format"] = json!({"type": "json_object"}),
        Some(Form::JsonSchema(schema)) => {
            body["response_format"] = json!({"type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": true}});
        }
        Some(Form::Lark(_) | Form::Regex(_)) => return Err("a grammar"),
    }
    Ok(body.to_string())
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<ChunkChoice>,
    usage: Option<ChunkUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    #[serde(default)]
    index: u64,
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct ChunkUsage {
    #[serde(default)]
    prompt_tokens: usize,
    #[serde(default)]
    completion_tokens: usize,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<usize>,
}

/// Reads the stream's events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    told: Told,
}

impl Reader {
    /// The next event's data.
    pub(super) fn read(&mut self, data: &str) -> Result<Heard, ReadError> {
        if data.trim() == END {
            return Ok(Heard::End);
        }
        let chunk: Chunk = serde_json::from_str(data)
            .map_err(|error| ReadError::Nonsense(format!("{error} in {}", excerpt(data))))?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(ReadError::Engine(message_of(&error)));
        }
        if let Some(usage) = chunk.usage {
            let cached = usage.prompt_tokens_details.and_then(|it| it.cached_tokens);
            self.told.usage = Usage {
                prompt_tokens: usage.prompt_tokens,
                reused_tokens: cached.unwrap_or(0),
                answer_tokens: usage.completion_tokens,
                ..Usage::default()
            };
        }
        let Some(choice) = chunk.choices.into_iter().find(|choice| choice.index == 0) else {
            return Ok(Heard::Nothing);
        };
        if let Some(reason) = choice.finish_reason {
            self.told.finish = Some(match reason.as_str() {
                "stop" => Finish::EndOfTurn,
                "length" => Finish::MaxTokens,
                "content_filter" => {
                    return Err(ReadError::Engine(
                        "its content filter ended the answer".to_owned(),
                    ));
                }
                other => {
                    return Err(ReadError::Nonsense(format!(
                        "the finish reason {}",
                        excerpt(other)
                    )));
                }
            });
        }
        Ok(match choice.delta.content {
            Some(text) if !text.is_empty() => Heard::Text(text),
            _ => Heard::Nothing,
        })
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }
}

/// The message in an error object: OpenAI's `{"error": {"message": …}}`, or a string.
pub(super) fn message_of(error: &Value) -> String {
    let text = error["message"].as_str().or(error.as_str());
    excerpt(text.unwrap_or(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::chat::{ChatMessage, Role, Sampling},
        *,
    };

    fn request() -> ChatRequest {
        let said = |role, content: &str| ChatMessage {
            role,
            content: content.to_owned(),
        };
        ChatRequest::new(
            vec![said(Role::System, "Be brief."), said(Role::User, "Hi")],
            9,
        )
    }

    #[test]
    fn a_request_is_what_the_api_s_reference_has() {
        let mut request = request();
        request.stop = vec!["\n".to_owned()];
        request.sampling = Sampling {
            presence_penalty: 0.5,
            repetition_penalty: 1.3,
            ..Sampling::default()
        };
        request.form = Some(Form::JsonSchema(json!({"type": "object"})));
        let body: Value = serde_json::from_str(&body(&request, "m/1").unwrap()).unwrap();
        assert_eq!(
            body,
            json!({"model": "m/1", "max_tokens": 9, "stream": true, "stream_options": {"include_usage": true},
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
                "temperature": 0, "presence_penalty": 0.5, "stop": ["\n"],
                "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": true}}})
        );
    }

    #[test]
    fn what_the_api_cannot_do_is_not_left_out_silently() {
        let with = |change: fn(&mut ChatRequest)| {
            let mut request = request();
            change(&mut request);
            body(&request, "m")
        };
        assert!(with(|it| it.form = Some(Form::Lark("start: \"a\"".to_owned()))).is_err());
        assert!(with(|it| it.logprobs = Some(1)).is_err());
        assert!(with(|it| it.tools = vec![json!({})]).is_err());
    }

    #[test]
    fn text_finish_and_usage_are_read_as_engines_send_them() {
        let mut reader = Reader::default();
        let mut text = String::new();
        for data in [
            r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"Gr\u00fc"},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":1,"delta":{"content":"another"}},{"index":0,"delta":{"content":"\u00df Gott"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8}}}"#,
        ] {
            if let Heard::Text(piece) = reader.read(data).unwrap() {
                text.push_str(&piece);
            }
        }
        assert!(matches!(reader.read("[DONE]"), Ok(Heard::End)));
        let usage = Usage {
            prompt_tokens: 12,
            reused_tokens: 8,
            answer_tokens: 5,
            ..Usage::default()
        };
        let told = reader.told();
        assert_eq!(text, "Grüß Gott");
        assert_eq!((told.finish, told.usage), (Some(Finish::MaxTokens), usage));
    }

    #[test]
    fn what_an_engine_says_of_itself_is_told_from_what_makes_no_sense() {
        let read = |data: &str| Reader::default().read(data).unwrap_err();
        let ReadError::Engine(message) =
            read(r#"{"error":{"message":"out of memory","code":500}}"#)
        else {
            panic!("it said so")
        };
        assert_eq!(message, "out of memory");
        for garbage in [
            "{\"choices\":[{",
            "<html>",
            "[1]",
            r#"{"choices":[{"finish_reason":"bored"}]}"#,
        ] {
            assert!(matches!(read(garbage), ReadError::Nonsense(_)), "{garbage}");
        }
    }
}
