//! Requests and answers of the Open Inference Protocol (KServe v2), REST. Pure.
//!
//! `generate_stream` is its API for text generation (`generate_rest.yaml`): one text in, events with pieces of text out, of which the last
//! says `done`. Engines from before that field end the body instead, which is taken for the end as well, since they say nothing
//! more. `infer` is the API for tensors: the text is one element of a tensor of bytes, and so is the answer. MLServer streams tensors, too, by the name
//! `generate_stream` (its `infer_stream`): such a request, and events with a piece of text in a tensor each; the body's end is the answer's.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::chat::{ChatRequest, Choice, Finish},
    openai,
    reader::{Heard, ReadError, Told, excerpt},
};
use crate::config::upstream::{KServeEndpoint, TextTensors};

/// Path below the base. The model's name is one segment of it.
pub(super) fn path(model: &str, endpoint: &KServeEndpoint) -> String {
    let verb = match endpoint {
        KServeEndpoint::GenerateStream | KServeEndpoint::InferStream(_) => "generate_stream",
        KServeEndpoint::Infer(_) => "infer",
    };
    let mut name = String::new();
    for byte in model.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("/v2/models/{name}/{verb}")
}

/// The request's body, with the conversation as one text; `Err` says what cannot be asked for.
pub(super) fn body(
    request: &ChatRequest,
    prompt: &str,
    endpoint: &KServeEndpoint,
) -> Result<String, &'static str> {
    if !request.tools.is_empty() {
        return Err("tools");
    }
    if request.logprobs.is_some() {
        return Err("log-probabilities");
    }
    if request.form.is_some() {
        return Err("a form of the answer");
    }
    let mut parameters = json!({"max_tokens": request.max_tokens});
    match request.sampling.choice {
        Choice::Greedy => parameters["temperature"] = json!(0),
        Choice::Random {
            temperature, top_p, ..
        } => {
            parameters["temperature"] = json!(temperature);
            parameters["top_p"] = json!(top_p);
        }
    }
    if request.sampling.frequency_penalty != 0.0 {
        parameters["frequency_penalty"] = json!(request.sampling.frequency_penalty);
    }
    if !request.stop.is_empty() {
        parameters["stop"] = json!(request.stop);
    }
    let body = match endpoint {
        KServeEndpoint::GenerateStream => json!({"text_input": prompt, "parameters": parameters}),
        KServeEndpoint::Infer(TextTensors { input, output })
        | KServeEndpoint::InferStream(TextTensors { input, output }) => {
            // Lists are no parameters of a tensor request.
            if let Some(parameters) = parameters.as_object_mut() {
                parameters.remove("stop");
            }
            json!({
                "inputs": [{"name": input, "shape": [1], "datatype": "BYTES", "data": [prompt]}],
                "outputs": [{"name": output}],
                "parameters": parameters,
            })
        }
    };
    Ok(body.to_string())
}

#[derive(Deserialize)]
struct Chunk {
    text_output: Option<String>,
    #[serde(default)]
    done: bool,
    error: Option<Value>,
}

/// Reads the events of `generate_stream`.
#[derive(Debug, Default)]
pub(super) struct Reader {
    told: Told,
    /// The tensor that brings the text, where events are tensors.
    output: Option<String>,
}

impl Reader {
    pub(super) fn new(endpoint: &KServeEndpoint) -> Self {
        let output = match endpoint {
            KServeEndpoint::InferStream(tensors) => Some(tensors.output.clone()),
            KServeEndpoint::GenerateStream | KServeEndpoint::Infer(_) => None,
        };
        Self {
            told: Told::default(),
            output,
        }
    }

    pub(super) fn read(&mut self, data: &str) -> Result<Heard, ReadError> {
        let nonsense = |why: &str| ReadError::Nonsense(format!("{why} in {}", excerpt(data)));
        let chunk: Chunk =
            serde_json::from_str(data).map_err(|error| nonsense(&error.to_string()))?;
        if let Some(error) = chunk.error {
            return Err(ReadError::Engine(openai::message_of(&error)));
        }
        let text = match &self.output {
            Some(output) => answer(data.as_bytes(), output).map_err(ReadError::Nonsense)?,
            None => chunk
                .text_output
                .ok_or_else(|| nonsense("no text_output"))?,
        };
        if chunk.done {
            self.told.finish = Some(Finish::EndOfTurn);
        }
        Ok(match text.is_empty() {
            true if chunk.done => Heard::End,
            true => Heard::Nothing,
            false => Heard::Text(text),
        })
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }
}

#[derive(Deserialize)]
struct InferResponse {
    #[serde(default)]
    outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    #[serde(default)]
    datatype: String,
    #[serde(default)]
    data: Value,
}

/// The answer in the response of `infer`.
pub(super) fn answer(body: &[u8], output: &str) -> Result<String, String> {
    let response: InferResponse =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let names: Vec<&str> = response.outputs.iter().map(|it| it.name.as_str()).collect();
    let Some(tensor) = response.outputs.iter().find(|it| it.name == output) else {
        return Err(format!(
            "no output {output:?} (kserve.output), but {}",
            excerpt(&names.join(", "))
        ));
    };
    // One element; nested as deep as the tensor has dimensions.
    let mut element = &tensor.data;
    while let Some(list) = element.as_array() {
        element = match list.as_slice() {
            [one] => one,
            _ => return Err(format!("the output {output:?} has {} elements", list.len())),
        };
    }
    match element.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!(
            "the output {output:?} is {}, not text",
            excerpt(&tensor.datatype)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::chat::{ChatMessage, Role},
        *,
    };

    #[test]
    fn the_prompt_goes_as_text_or_as_a_tensor() {
        let message = ChatMessage {
            role: Role::User,
            content: "Hi".to_owned(),
        };
        let mut request = ChatRequest::new(vec![message], 7);
        request.stop = vec!["\n".to_owned()];
        let read = |endpoint: &KServeEndpoint| -> Value {
            serde_json::from_str(&body(&request, "P", endpoint).unwrap()).unwrap()
        };
        assert_eq!(
            read(&KServeEndpoint::GenerateStream),
            json!({"text_input": "P", "parameters": {"max_tokens": 7, "temperature": 0, "stop": ["\n"]}})
        );
        let tensors = TextTensors {
            input: "in".to_owned(),
            output: "out".to_owned(),
        };
        let endpoint = KServeEndpoint::Infer(tensors.clone());
        assert_eq!(
            read(&endpoint),
            json!({"inputs": [{"name": "in", "shape": [1], "datatype": "BYTES", "data": ["P"]}], "outputs": [{"name": "out"}],
                "parameters": {"max_tokens": 7, "temperature": 0}})
        );
        assert_eq!(path("a/b c", &endpoint), "/v2/models/a%2Fb%20c/infer");
        let streamed = KServeEndpoint::InferStream(tensors);
        assert_eq!(read(&streamed), read(&endpoint));
        assert_eq!(path("m", &streamed), "/v2/models/m/generate_stream");
    }

    #[test]
    fn events_are_read_up_to_the_one_that_is_done() {
        let mut reader = Reader::default();
        assert_eq!(
            reader.read(r#"{"text_output":"Hel","model_name":"m","done":false}"#),
            Ok(Heard::Text("Hel".to_owned()))
        );
        assert_eq!(reader.told().finish, None);
        assert_eq!(
            reader.read(r#"{"text_output":"","model_name":"m","done":true}"#),
            Ok(Heard::End)
        );
        assert_eq!(reader.told().finish, Some(Finish::EndOfTurn));
        assert_eq!(
            reader.read(r#"{"error":"no room"}"#),
            Err(ReadError::Engine("no room".to_owned()))
        );
        assert!(matches!(reader.read("{}"), Err(ReadError::Nonsense(_))));
    }

    #[test]
    fn events_of_tensors_are_read_by_their_outputs_name() {
        let tensors = TextTensors {
            input: "in".to_owned(),
            output: "out".to_owned(),
        };
        let mut reader = Reader::new(&KServeEndpoint::InferStream(tensors));
        let event = |text: &str| {
            json!({"outputs": [{"name": "out", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]})
                .to_string()
        };
        assert_eq!(
            reader.read(&event("Hel")),
            Ok(Heard::Text("Hel".to_owned()))
        );
        assert_eq!(reader.read(&event("")), Ok(Heard::Nothing));
        assert_eq!(
            reader.read(r#"{"error":"no room"}"#),
            Err(ReadError::Engine("no room".to_owned()))
        );
        assert!(matches!(
            reader.read(r#"{"text_output":"Hel"}"#),
            Err(ReadError::Nonsense(_))
        ));
    }

    #[test]
    fn an_answer_is_the_one_element_of_its_tensor() {
        let body = |data: &str| {
            let text = format!(
                r#"{{"model_name":"m","outputs":[{{"name":"out","shape":[1],"datatype":"BYTES","data":{data}}}]}}"#
            );
            answer(text.as_bytes(), "out")
        };
        assert_eq!(body("[\"Hi\"]").as_deref(), Ok("Hi"));
        assert_eq!(body("[[\"Hi\"]]").as_deref(), Ok("Hi"));
        assert!(body("[\"a\",\"b\"]").unwrap_err().contains("2 elements"));
        assert!(body("[1.5]").unwrap_err().contains("not text"));
        assert!(
            answer(br#"{"outputs":[]}"#, "out")
                .unwrap_err()
                .contains("kserve.output")
        );
        assert!(answer(b"<html>", "out").is_err());
    }
}
