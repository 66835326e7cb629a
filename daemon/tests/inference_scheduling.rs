//! Whose turn it is at the chat model, on the real ONNX Runtime with the shipped bundle.

mod bundles;

use std::{num::NonZeroUsize, time::Duration};

use autoglm_edge::inference::{
    Inference, InferenceConfig, InferenceHandle,
    chat::{ChatEvent, ChatMessage, ChatRequest, Form, Role, Speculation},
    class::Class,
    error::{InferenceError, Wait},
    manifest::Task,
};
use tokio::sync::mpsc::{Receiver, error::TryRecvError};

async fn chat_with(rows: usize) -> (tempfile::TempDir, Inference) {
    let dir = tempfile::tempdir().unwrap();
    let inference = Inference::start(InferenceConfig {
        chat_sessions: NonZeroUsize::new(rows).unwrap(),
        ..bundles::config_of(dir.path(), &[bundles::CHAT])
    });
    inference
        .handle()
        .wait_ready(Task::Chat, bundles::PATIENCE)
        .await
        .expect("the chat model loads");
    (dir, inference)
}

fn ask(class: Class, text: &str, max_tokens: usize) -> ChatRequest {
    let message = ChatMessage {
        role: Role::User,
        content: text.into(),
    };
    ChatRequest {
        class,
        ..ChatRequest::new(vec![message], max_tokens)
    }
}

/// An answer as it comes.
struct Stream {
    events: Receiver<ChatEvent>,
    text: String,
    pieces: usize,
    is_done: bool,
}

impl Stream {
    fn of(handle: &InferenceHandle, request: ChatRequest) -> Self {
        Self {
            events: handle.chat().generate(request).expect("accepted"),
            text: String::new(),
            pieces: 0,
            is_done: false,
        }
    }

    fn take(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Delta(piece) => {
                self.pieces += 1;
                self.text.push_str(&piece);
            }
            ChatEvent::Done { .. } => self.is_done = true,
            ChatEvent::Failed(error) => panic!("{error}"),
            ChatEvent::Started { .. } | ChatEvent::Choices(_) => {}
        }
    }

    /// Waits for so many pieces of text.
    async fn until(&mut self, pieces: usize) {
        while self.pieces < pieces {
            let event = self.events.recv().await.expect("it goes on");
            self.take(event);
            assert!(!self.is_done, "too short an answer: {:?}", self.text);
        }
    }

    /// What has come by now.
    fn drain(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.take(event),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    async fn end(mut self) -> String {
        while !self.is_done {
            let event = self.events.recv().await.expect("it ends with Done");
            self.take(event);
        }
        self.text
    }
}

const STORIES: [&str; 2] = [
    "Tell me a long story about the sea.",
    "List twenty animals, and repeat the list twice.",
];

/// One by itself and one with guesses, which are fed by another kernel.
fn stories(class: Class) -> [ChatRequest; 2] {
    let [plain, guessed] = STORIES.map(|text| ask(class, text, 100));
    let guessed = ChatRequest {
        speculation: Speculation::On,
        ..guessed
    };
    [plain, guessed]
}

#[tokio::test]
async fn a_voice_gets_its_turn_at_once_and_the_parked_answer_is_what_it_would_have_been() {
    let (_dir, inference) = chat_with(2).await;
    let handle = inference.handle();
    let mut alone = Vec::new();
    for request in stories(Class::Background) {
        alone.push(Stream::of(&handle, request).end().await);
    }
    let (_dir, inference) = chat_with(2).await;
    let handle = inference.handle();
    let mut told = stories(Class::Background).map(|request| Stream::of(&handle, request));
    for (round, question) in ["What is the capital of Peru?", "What is 2 plus 3?"]
        .into_iter()
        .enumerate()
    {
        for story in &mut told {
            story.until((round + 1) * 10).await;
        }
        let mut voice = Stream::of(&handle, ask(Class::Voice, question, 12));
        assert!(matches!(
            voice.events.recv().await,
            Some(ChatEvent::Started { .. })
        ));
        told.iter_mut().for_each(Stream::drain);
        let before: usize = told.iter().map(|story| story.pieces).sum();
        voice.until(1).await;
        told.iter_mut().for_each(Stream::drain);
        let meanwhile = told.iter().map(|story| story.pieces).sum::<usize>() - before;
        // One round in eight is for all, and one run may have been under way.
        assert!(
            meanwhile <= 2 * 9,
            "{meanwhile} pieces of the stories before the voice's first token"
        );
        voice.end().await;
    }
    let mut texts = Vec::new();
    for story in told {
        texts.push(story.end().await);
    }
    assert_eq!(texts, alone, "bit for bit as if nobody had spoken");
    let counters = handle.chat().counters();
    assert_eq!((counters.parked, counters.answered), (2, 4), "{counters:?}");
}

#[tokio::test]
async fn the_least_urgent_waits_and_nobody_takes_a_row_from_an_equal() {
    let (_dir, inference) = chat_with(1).await;
    let handle = inference.handle();
    let mut typed = Stream::of(&handle, ask(Class::Local, STORIES[0], 60));
    typed.until(3).await;
    let background = Stream::of(&handle, ask(Class::Background, "Name a colour.", 8));
    let fleet = Stream::of(&handle, ask(Class::Fleet, "Name a bird.", 8));
    let other = Stream::of(&handle, ask(Class::Local, "Name a river.", 8));
    let order = tokio::sync::Mutex::new(Vec::new());
    let ended = |name: &'static str, stream: Stream| {
        let order = &order;
        async move {
            stream.end().await;
            order.lock().await.push(name);
        }
    };
    tokio::join!(
        ended("background", background),
        ended("fleet", fleet),
        ended("other", other),
        ended("typed", typed),
    );
    assert_eq!(
        order.into_inner(),
        ["typed", "other", "fleet", "background"]
    );
    assert_eq!(handle.chat().counters().parked, 0);
}

#[tokio::test]
async fn what_cannot_end_in_time_is_refused_at_once_and_told_the_estimate() {
    let (_dir, inference) = chat_with(1).await;
    let handle = inference.handle();
    let within = |class, limit: Duration| ChatRequest {
        end_within: Some(limit),
        ..ask(class, "Name three rivers.", 30)
    };
    // Nothing is known yet, so nothing is refused.
    let short = Duration::from_millis(1);
    Stream::of(&handle, within(Class::Local, short)).end().await;
    let estimate = |class, limit| match handle.chat().generate(within(class, limit)) {
        Err(InferenceError::Overloaded {
            task: Task::Chat,
            class: told,
            wait: Wait::Estimated(wait),
            ..
        }) => {
            assert_eq!(told, class);
            Some(wait.as_millis())
        }
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    };
    let alone = estimate(Class::Background, short).expect("an answer takes longer than 1 ms");
    assert!(alone > 1, "{alone} ms");
    let mut typed = Stream::of(&handle, ask(Class::Local, STORIES[0], 200));
    typed.until(1).await;
    let behind = estimate(Class::Background, short).expect("and longer behind another");
    assert!(
        behind > alone,
        "{behind} ms, {alone} ms with nobody before it"
    );
    let voice = estimate(Class::Voice, short).expect("a voice does not wait for what is typed");
    assert!(voice < behind, "{voice} ms, {behind} ms in the background");
    assert_eq!(estimate(Class::Local, Duration::from_secs(3600)), None);
}

#[tokio::test]
async fn a_running_answer_goes_on_while_another_ones_form_is_compiled() {
    let (_dir, inference) = chat_with(2).await;
    let handle = inference.handle();
    let mut story = Stream::of(&handle, ask(Class::Local, STORIES[0], 400));
    story.until(3).await;
    // Thousands of alternatives, which take a while to compile and to mask.
    let words: Vec<String> = (0..6000)
        .map(|n| format!("item number {n} or (\\d+)"))
        .collect();
    let formed = ChatRequest {
        form: Some(Form::Regex(words.join("|"))),
        ..ask(Class::Local, "Name an item.", 4)
    };
    story.drain();
    let before = story.pieces;
    let mut formed = Stream::of(&handle, formed);
    let first = loop {
        tokio::select! {
            biased;
            event = story.events.recv() => story.take(event.expect("the story goes on")),
            event = formed.events.recv() => break event,
        }
    };
    assert!(
        matches!(first, Some(ChatEvent::Started { .. })),
        "{first:?}"
    );
    let meanwhile = story.pieces - before;
    println!("{meanwhile} pieces of the story while the form was compiled");
    assert!(meanwhile >= 3, "the story stood still: {meanwhile} pieces");
}
