//! How soon a conversation goes on: after its first turn, and after the process was killed.

use anyhow::Result;
use autoglm_edge::inference::chat::{ChatMessage, Role, Speculation};
use autoglm_tests::bench::{
    bundles::{Tokens, rendered},
    peer::{Llama, Peer},
    statistics::Sample,
    table::{Table, number},
};

use super::{Bench, apart::Apart, of, say};

/// Tokens of the first prompt.
const LONG: usize = 1400;

/// A conversation of two turns, in tokens.
struct Turns {
    /// The first prompt.
    first: usize,
    /// With the answer, as the second turn repeats them: what a cache can hold.
    answered: usize,
    /// The whole prompt of the second turn.
    ids: Vec<i64>,
}

impl Turns {
    /// Ends the first turn with this answer and begins the second.
    fn new(messages: &mut Vec<ChatMessage>, answer: String, tokens: &Tokens) -> Result<Self> {
        let first = rendered(messages);
        let said = [tokens.of_text(&first)?, tokens.of_text(&(first + &answer))?];
        messages.push(say(Role::Assistant, answer));
        messages.push(say(Role::User, "And then?".into()));
        let ids = tokens.of_text(&rendered(messages))?;
        let same = |said: &Vec<i64>| said.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let [first, answered] = [same(&said[0]), same(&said[1])];
        Ok(Self {
            first,
            answered,
            ids,
        })
    }
}

impl Bench {
    pub(super) async fn turns(&mut self) -> Result<Table> {
        let [mut cold, mut warm, mut killed] = [(); 3].map(|()| Times::default());
        let state = tempfile::tempdir()?;
        let slot = tempfile::tempdir()?;
        for _ in 0..self.options.rounds.min(3) {
            let (mut messages, _) = self.prompt(LONG)?;
            let mut engine = Apart::start(state.path(), &self.options)?;
            let first = engine.ask(&messages, 32)?;
            cold.ours.push(first.first_ms);
            let turns = Turns::new(&mut messages, first.text, &self.tokens)?;
            drop(engine);
            let mut engine = Apart::start(state.path(), &self.options)?;
            let second = engine.ask(&messages, 1)?;
            drop(engine);
            killed.of = turns.ids.len();
            killed.reused = second.reused_tokens;
            killed.ours.push(second.first_ms);
            if let Some(mut peer) = self.llama_with(&slot)? {
                let (prompt, answer) = turns.ids[..turns.answered].split_at(turns.first);
                cold.llama.push(peer.save(prompt, answer)?.ms);
            }
            // The first one was dropped, which kills it.
            if let Some(mut peer) = self.llama_with(&slot)? {
                let restored = peer.restore(&turns.ids)?;
                killed.llama_reused = restored.tokens;
                killed.llama.push(restored.ms);
            }

            // The same, never interrupted.
            let (mut messages, _) = self.prompt(LONG)?;
            let first = self.ask(messages.clone(), 32, Speculation::Off).await?;
            cold.ours.push(first.first_ms);
            let turns = Turns::new(&mut messages, first.text, &self.tokens)?;
            let second = self.ask(messages.clone(), 1, Speculation::Off).await?;
            warm.of = turns.ids.len();
            warm.reused = second.reused_tokens;
            warm.ours.push(second.first_ms);
            let (kept, more) = turns.ids.split_at(second.reused_tokens);
            if let Some(timed) = of(&mut self.genai, |peer| peer.second(kept, more))? {
                warm.genai.push(timed.ms);
            }
            let (kept, more) = turns.ids.split_at(turns.answered);
            if let Some(timed) = of(&mut self.llama, |peer| peer.second(kept, more))? {
                warm.llama_reused = timed.tokens;
                warm.llama.push(timed.ms);
            }
        }
        let mut table = Table::new(&[
            "ms to the first token",
            "ours",
            "cold to it",
            "genai",
            "llama.cpp",
            "cold to it",
            "there before",
        ]);
        for (name, times) in [
            (format!("a prompt of {LONG}, cold"), &cold),
            ("its second turn".to_owned(), &warm),
            ("its second turn, after kill -9".to_owned(), &killed),
        ] {
            table.row(&name, times.cells(&cold));
        }
        Ok(table)
    }

    /// llama.cpp in a process of its own that keeps its only slot in this directory.
    fn llama_with(&self, slot: &tempfile::TempDir) -> Result<Option<Peer>> {
        Peer::llama(&Llama {
            state: Some(slot.path()),
            ..self.options.llama()
        })
    }

    /// Loading, and the most memory, each in a process of its own that has answered a long prompt.
    pub(super) fn alone(&mut self) -> Result<Table> {
        let state = tempfile::tempdir()?;
        let (messages, ids) = self.prompt(LONG)?;
        let mut engine = Apart::start(state.path(), &self.options)?;
        let told = engine.ask(&messages, 32)?;
        let load_ms = engine.load_ms;
        drop(engine);
        let mut cells = [vec![number(load_ms)], vec![mib(told.peak_kb)]];
        // genai has one process for all that it is asked, llama.cpp like ours a fresh one.
        let mut llama = self.llama_with(&state)?;
        for peer in [&mut self.genai, &mut llama] {
            let measured = of(peer, |peer| {
                peer.decode(&ids, 31)?;
                Ok([number(peer.load_ms), mib(peer.peak_kb)])
            })?;
            for (row, cell) in cells.iter_mut().zip(measured.unwrap_or_default()) {
                row.push(cell);
            }
        }
        let mut table = Table::new(&[
            "in a process of its own",
            "ours",
            "genai, with its Python",
            "llama.cpp, with its Python",
        ]);
        let [load, peak] = cells;
        table.row("ms to load the model", load);
        table.row("peak memory, MiB", peak);
        Ok(table)
    }
}

/// How long until the first token, and how many of the prompt's tokens were there before, of the last round.
#[derive(Default)]
struct Times {
    ours: Sample,
    genai: Sample,
    llama: Sample,
    of: usize,
    reused: usize,
    llama_reused: usize,
}

impl Times {
    fn cells(&self, cold: &Self) -> Vec<String> {
        let middle = |sample: &Sample| match sample.is_empty() {
            true => String::new(),
            false => number(sample.p50()),
        };
        let sooner = |cold: &Sample, sample: &Sample| match sample.is_empty() {
            true => String::new(),
            false => number(cold.p50() / sample.p50()),
        };
        let remark = match (self.reused, self.llama_reused) {
            (0, _) => String::new(),
            (ours, 0) => format!("{ours} of {} tokens", self.of),
            (ours, llama) => format!("{ours}, llama.cpp {llama} of {} tokens", self.of),
        };
        vec![
            middle(&self.ours),
            sooner(&cold.ours, &self.ours),
            middle(&self.genai),
            middle(&self.llama),
            sooner(&cold.llama, &self.llama),
            remark,
        ]
    }
}

fn mib(kb: u64) -> String {
    number(kb as f64 / 1024.0)
}
