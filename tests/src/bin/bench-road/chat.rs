//! How soon the language model begins to speak, and how fast it goes on, through the whole box.
//!
//! Three states of the model's memory: nothing there (the daemon has just started), the frame of the conversation there (a new
//! session), and all but the last sentence there (a further turn).

use anyhow::{Result, ensure};
use autoglm_edge::inference::chat::{ChatMessage, Role};
use autoglm_tests::bench::bundles::{Bundles, CHAT, Tokens, rendered};
use autoglm_tests::bench::statistics::Sample;
use autoglm_tests::bench::table::{Table, number, spread};
use autoglm_tests::edge_box::EdgeBox;
use autoglm_tests::edge_box::door::Said;
use serde_json::Value;

use autoglm_edge::understanding::wording::Wording;

use crate::commands::us;
use crate::doors::Doors;

/// Tokens that the context is to have at the first turn.
const CONTEXT_TOKENS: usize = 200;

/// One state of the model's memory.
#[derive(Default)]
struct Row {
    context: Sample,
    comprehension: Sample,
    encode: Sample,
    prefill: Sample,
    first_text: Sample,
    rate: Sample,
}

/// What was measured.
#[derive(Default)]
pub(crate) struct Chats {
    started: Row,
    new_session: Row,
    further: Row,
}

/// So many chats of two turns, and so many starts of the daemon.
pub(crate) async fn measure(
    edge_box: &mut EdgeBox,
    bundles: &Bundles,
    doors: Doors,
    chats: usize,
    starts: usize,
) -> Result<Chats> {
    let tokens = bundles.tokens(CHAT)?;
    let mut measured = Chats::default();
    for number in 0..=chats {
        let session = format!("chat-{number}");
        let long = long_text(&tokens, &number.to_string())?;
        let first = converse(&doors, &session, &long).await?;
        let short = "Why do people like to hear such stories?";
        let second = converse(&doors, &session, short).await?;
        // The first is a warm-up: its frame may not be in the model's memory yet.
        if number > 0 {
            measured.new_session.add(&tokens, &[&long], &first)?;
            let said = [&long, first.text(), short];
            measured.further.add(&tokens, &said, &second)?;
        }
    }
    drop(doors);
    for number in 0..starts {
        edge_box.daemon()?.kill();
        edge_box.start_daemon()?;
        edge_box.is_understanding(2).await?;
        let doors = Doors::open(edge_box).await?;
        // The first sentence waits until the things' phrases are embedded; that is not the chat model's doing.
        doors.say("started", "turn on the desk lamp").await?;
        let long = long_text(&tokens, &format!("1{number}"))?;
        let said = converse(&doors, &format!("started-{number}"), &long).await?;
        measured.started.add(&tokens, &[&long], &said)?;
    }
    Ok(measured)
}

async fn converse(doors: &Doors, session: &str, text: &str) -> Result<Said> {
    let (said, _) = doors.say(session, text).await?;
    ensure!(
        said.kind() == "conversation",
        "{text:?} became a {}: {}",
        said.kind(),
        said.text()
    );
    Ok(said)
}

/// Says nothing that anything here could do, and fills the context to [`CONTEXT_TOKENS`].
fn long_text(tokens: &Tokens, number: &str) -> Result<String> {
    let mut text = format!("Story {number} is about an old sailor.");
    for more in [
        " He lived by the sea for sixty years and knew every rock of the coast.",
        " His brother was a baker in a small town behind the hills.",
        " They wrote long letters to each other every month.",
        " The sailor told of storms and whales, and the baker of bread and weddings.",
        " Nobody else ever read these letters.",
        " When they were old they met again under an apple tree.",
        " The sailor laughed and the baker wept.",
        " Their grandchildren tell this story even today.",
        " Some say that the letters lie in a wooden box in Norway.",
        " Others do not believe a word of it.",
    ] {
        if context(tokens, &[&text])? + 12 >= CONTEXT_TOKENS {
            break;
        }
        text += more;
    }
    Ok(text + " What do you think of this story?")
}

/// The tokens of the model's prompt when these were said in turn, first by the person.
fn context(tokens: &Tokens, said: &[&str]) -> Result<usize> {
    let message = |role, content: String| ChatMessage { role, content };
    // The frame that the daemon speaks in, with the things of the bench's box.
    let words = Wording::english().conversation;
    let things = words.things.replace("{things}", "Desk lamp, Thermometer");
    let mut messages = vec![message(Role::System, format!("{} {things}", words.frame))];
    for (number, text) in said.iter().enumerate() {
        let role = if number % 2 == 0 {
            Role::User
        } else {
            Role::Assistant
        };
        messages.push(message(role, (*text).to_owned()));
    }
    Ok(tokens.of_text(&rendered(&messages))?.len())
}

impl Row {
    fn add(&mut self, tokens: &Tokens, said: &[&str], answer: &Said) -> Result<()> {
        let timings: &Value = &answer.end()["timings_us"];
        self.context.push(context(tokens, said)? as f64);
        let comprehension: Result<f64> = ["queue", "encode", "infer", "decode"]
            .iter()
            .map(|name| us(timings, name))
            .sum();
        self.comprehension.push(comprehension?);
        self.encode
            .push(us(timings, "chat_queue")? + us(timings, "chat_encode")?);
        self.prefill.push(us(timings, "chat_prefill")?);
        self.first_text.push(us(timings, "first_text")?);
        let answered = tokens.of_text(answer.text())?.len();
        self.rate
            .push(answered as f64 * 1e3 / us(timings, "chat_decode")?);
        Ok(())
    }
}

impl Chats {
    pub(crate) fn print(&self) {
        let mut table = Table::new(&[
            "first text, ms",
            "chats",
            "context tokens",
            "p50",
            "p95",
            "max",
            "understanding",
            "chat encode",
            "prefill",
            "tokens/s",
        ]);
        for (name, row) in [
            ("daemon just started", &self.started),
            ("new session", &self.new_session),
            ("second turn", &self.further),
        ] {
            let [p50, p95, max] = spread(&row.first_text);
            let medians = [&row.comprehension, &row.encode, &row.prefill, &row.rate];
            let mut cells = vec![
                row.context.len().to_string(),
                number(row.context.p50()),
                p50,
                p95,
                max,
            ];
            cells.extend(medians.map(|sample| number(sample.p50())));
            table.row(name, cells);
        }
        print!("\n{table}");
    }
}
