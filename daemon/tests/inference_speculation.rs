//! Speculation gives the reference's answer, token for token, on the real ONNX Runtime.

mod bundles;

use autoglm_edge::inference::{
    Inference,
    chat::{ChatEvent, ChatMessage, ChatRequest, Role, Sampling, Speculation},
    manifest::Task,
};

/// Prompts whose answers repeat them, and prompts whose answers do not.
fn prompts() -> Vec<String> {
    let listing = "{\"name\": \"Desk lamp\", \"brightness\": 40, \"on\": true}, {\"name\": \"Hall lamp\", \"brightness\": 15, \"on\": false}";
    let rhyme = "The cat sat on the mat. The cat saw the rat. The rat ran off the mat.";
    let mut prompts: Vec<String> = [
        "What is the capital of France?",
        "Write a haiku about the sea.",
        "Count from one to twenty.",
        "Say the word lamp ten times.",
        "List the days of the week, then list them again.",
        "What is 12 plus 30?",
        "Why is the sky blue?",
        "Name three colours and say why you like each of them.",
    ]
    .map(str::to_owned)
    .into();
    prompts.extend([
        format!("Repeat this exactly: {rhyme}"),
        format!("Repeat this twice: {rhyme}"),
        format!("Here is a list: [{listing}]. Write the same list again."),
        format!("Here is a list: [{listing}]. Which lamps are on?"),
        format!("{rhyme} Tell the same story of a dog."),
        format!("Correct the spelling: {}", rhyme.replace("cat", "katt")),
    ]);
    for (thing, value) in [("lamp", 3), ("fan", 5), ("heater", 7), ("blind", 9)] {
        prompts.push(format!(
            "The {thing} in room {value} is on. The {thing} in room {} is off. Which {thing} is on, and which {thing} is off?",
            value + 1
        ));
    }
    prompts
}

async fn answer(inference: &Inference, prompt: &str, speculation: Speculation) -> String {
    let request = ChatRequest {
        speculation,
        sampling: Sampling::default(),
        ..ChatRequest::new(
            vec![ChatMessage {
                role: Role::User,
                content: prompt.into(),
            }],
            64,
        )
    };
    let mut stream = inference.handle().chat().generate(request).unwrap();
    let mut text = String::new();
    while let Some(event) = stream.recv().await {
        match event {
            ChatEvent::Delta(piece) => text.push_str(&piece),
            ChatEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    text
}

#[tokio::test]
async fn speculation_gives_the_references_answer() {
    let dir = tempfile::tempdir().unwrap();
    let inference = Inference::start(bundles::config_of(dir.path(), &[bundles::CHAT]));
    let handle = inference.handle();
    handle
        .wait_ready(Task::Chat, bundles::PATIENCE)
        .await
        .unwrap();
    let (mut drawn, mut taken, mut same_as_off) = (0, 0, 0);
    let prompts = prompts();
    for prompt in &prompts {
        let reference = answer(&inference, prompt, Speculation::Reference).await;
        let before = handle.chat().counters();
        let guessed = answer(&inference, prompt, Speculation::On).await;
        let after = handle.chat().counters();
        drawn += after.drawn_tokens - before.drawn_tokens;
        taken += after.taken_tokens - before.taken_tokens;
        assert_eq!(guessed, reference, "{prompt}");
        let off = answer(&inference, prompt, Speculation::Off).await;
        same_as_off += usize::from(off == reference);
    }
    println!(
        "{taken} of {drawn} tokens were guessed right; {same_as_off} of {} answers are those without speculation",
        prompts.len()
    );
    assert!(
        taken * 10 > drawn,
        "{taken} of {drawn} tokens were guessed right"
    );
}
