//! What shapes an answer besides the model: forms, stop strings, tools, and what is told of each token. On the real ONNX Runtime.

mod bundles;

use autoglm_edge::inference::{
    Inference,
    chat::{
        ChatEvent, ChatMessage, ChatRequest, Finish, Form, Role, Speculation, TokenChoice, Usage,
    },
    error::InferenceError,
    manifest::Task,
};
use serde_json::{Value, json};

async fn chat_only() -> (tempfile::TempDir, Inference) {
    let dir = tempfile::tempdir().unwrap();
    let inference = Inference::start(bundles::config_of(dir.path(), &[bundles::CHAT]));
    inference
        .handle()
        .wait_ready(Task::Chat, bundles::PATIENCE)
        .await
        .expect("the chat model loads");
    (dir, inference)
}

fn ask(text: &str, tokens: usize) -> ChatRequest {
    let message = ChatMessage {
        role: Role::User,
        content: text.into(),
    };
    ChatRequest::new(vec![message], tokens)
}

#[derive(Debug)]
struct Answer {
    text: String,
    finish: Finish,
    usage: Usage,
    choices: Vec<TokenChoice>,
}

async fn answer(inference: &Inference, request: ChatRequest) -> Result<Answer, InferenceError> {
    let mut stream = inference.handle().chat().generate(request).unwrap();
    let (mut text, mut choices) = (String::new(), Vec::new());
    loop {
        match stream.recv().await.expect("Done or Failed comes last") {
            ChatEvent::Started { .. } => {}
            ChatEvent::Delta(piece) => text.push_str(&piece),
            ChatEvent::Choices(more) => choices.extend(more),
            ChatEvent::Done { finish, usage, .. } => {
                return Ok(Answer {
                    text,
                    finish,
                    usage,
                    choices,
                });
            }
            ChatEvent::Failed(error) => return Err(error),
        }
    }
}

fn lamp_call() -> Form {
    Form::JsonSchema(json!({
        "type": "object",
        "properties": {
            "thing": { "enum": ["desk lamp", "hall lamp"] },
            "action": { "const": "set_brightness" },
            "level": { "type": "integer", "minimum": 0, "maximum": 100 },
        },
        "required": ["thing", "action", "level"],
        "additionalProperties": false,
    }))
}

#[tokio::test]
async fn an_answer_has_its_form_and_what_is_forced_is_not_drawn_one_by_one() {
    let (_dir, inference) = chat_only().await;
    let request = |speculation| ChatRequest {
        form: Some(lamp_call()),
        speculation,
        ..ask(
            "Set the desk lamp to 40 percent. Answer with a JSON call.",
            64,
        )
    };
    let told = answer(&inference, request(Speculation::Off)).await.unwrap();
    let value: Value =
        serde_json::from_str(&told.text).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    assert_eq!(value["action"], "set_brightness");
    assert!(
        value["level"].as_u64().is_some_and(|level| level <= 100),
        "{value}"
    );
    assert_eq!(told.finish, Finish::EndOfTurn);
    assert!(
        told.usage.forced_tokens * 2 > told.usage.answer_tokens,
        "{:?}",
        told.usage
    );
    let reference = answer(&inference, request(Speculation::Reference))
        .await
        .unwrap();
    let guessed = answer(&inference, request(Speculation::On)).await.unwrap();
    assert_eq!(guessed.text, reference.text);

    // Who wants the probabilities gets every token chosen, and the same form.
    let counted = ChatRequest {
        logprobs: Some(2),
        ..request(Speculation::Off)
    };
    let counted = answer(&inference, counted).await.unwrap();
    serde_json::from_str::<Value>(&counted.text).expect("the form holds");
    assert_eq!(counted.usage.forced_tokens, 0);
    assert_eq!(counted.choices.len(), counted.usage.answer_tokens);
}

#[tokio::test]
async fn a_form_that_cannot_be_used_is_refused_and_the_next_is_served() {
    let (_dir, inference) = chat_only().await;
    let request = ChatRequest {
        form: Some(Form::Regex("(".into())),
        ..ask("Hi", 4)
    };
    let error = answer(&inference, request).await.unwrap_err();
    assert!(matches!(error, InferenceError::Form { .. }), "{error}");
    answer(&inference, ask("Hi", 4)).await.unwrap();
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_no_part_of_it() {
    let (_dir, inference) = chat_only().await;
    let whole = answer(&inference, ask("Count from one to ten.", 48))
        .await
        .unwrap();
    let middle = whole
        .text
        .char_indices()
        .nth(whole.text.chars().count() / 2)
        .unwrap()
        .0;
    let stop: String = whole.text[middle..].chars().take(4).collect();
    let at = whole.text.find(&stop).unwrap();
    let request = ChatRequest {
        stop: vec!["never said".into(), stop],
        ..ask("Count from one to ten.", 48)
    };
    let told = answer(&inference, request).await.unwrap();
    assert_eq!(told.text, whole.text[..at]);
    assert_eq!(told.finish, Finish::StopString);
    assert!(told.usage.answer_tokens <= whole.usage.answer_tokens);
}

#[tokio::test]
async fn of_each_token_is_told_how_likely_it_was() {
    let (_dir, inference) = chat_only().await;
    let request = ChatRequest {
        logprobs: Some(3),
        ..ask("What is the capital of Japan?", 12)
    };
    let told = answer(&inference, request).await.unwrap();
    assert_eq!(told.choices.len(), told.usage.answer_tokens);
    for choice in &told.choices {
        assert_eq!(choice.top.len(), 3);
        assert_eq!(choice.top[0], choice.chosen, "greedy takes the likeliest");
        assert!(choice.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
        assert!(choice.chosen.logprob <= 0.0);
    }
    let named: String = told
        .choices
        .iter()
        .map(|choice| choice.chosen.text.as_str())
        .collect();
    assert_eq!(named.trim(), told.text.trim());
}

#[tokio::test]
async fn what_is_out_of_range_is_refused_at_once() {
    let (_dir, inference) = chat_only().await;
    for request in [
        ChatRequest {
            stop: vec![String::new()],
            ..ask("Hi", 4)
        },
        ChatRequest {
            stop: vec!["x".into(); 99],
            ..ask("Hi", 4)
        },
        ChatRequest {
            stop: vec!["x".repeat(999)],
            ..ask("Hi", 4)
        },
        ChatRequest {
            logprobs: Some(21),
            ..ask("Hi", 4)
        },
    ] {
        let error = inference.handle().chat().generate(request).unwrap_err();
        assert!(
            matches!(error, InferenceError::OutOfRange { .. }),
            "{error}"
        );
    }
}
