//! How soon a conversation goes on: after its first turn, and after the process was killed.

use anyhow::Result;
use autoglm_edge::inference::chat::{Role, Speculation};
use autoglm_tests::bench::{
    bundles::rendered,
    statistics::Sample,
    table::{Table, number},
};

use super::{Bench, apart::Apart, say};

/// Tokens of the first prompt.
const LONG: usize = 1400;

impl Bench {
    pub(super) async fn turns(&mut self) -> Result<Table> {
        let (mut cold, mut warm, mut killed) =
            (Sample::default(), Sample::default(), Sample::default());
        let mut genai = Sample::default();
        let (mut reused, mut restored) = ((0, 0), (0, 0));
        let state = tempfile::tempdir()?;
        let threads = self.options.threads.get();
        for _ in 0..self.options.rounds.min(3) {
            let (mut messages, _) = self.prompt(LONG)?;
            let mut engine = Apart::start(state.path(), threads)?;
            let first = engine.ask(&messages, 32)?;
            cold.push(first.first_ms);
            messages.push(say(Role::Assistant, first.text));
            messages.push(say(Role::User, "And then?".into()));
            drop(engine);
            let mut engine = Apart::start(state.path(), threads)?;
            let second = engine.ask(&messages, 1)?;
            restored = (second.reused_tokens, second.prompt_tokens);
            killed.push(second.first_ms);

            // The same, never interrupted.
            let (mut messages, _) = self.prompt(LONG)?;
            let first = self.ask(messages.clone(), 32, Speculation::Off).await?;
            cold.push(first.first_ms);
            messages.push(say(Role::Assistant, first.text));
            messages.push(say(Role::User, "And then?".into()));
            let second = self.ask(messages.clone(), 1, Speculation::Off).await?;
            reused = (second.reused_tokens, second.prompt_tokens);
            warm.push(second.first_ms);
            if let Some(peer) = &mut self.genai {
                let whole = self.tokens.of_text(&rendered(&messages))?;
                let (kept, more) = whole.split_at(second.reused_tokens);
                genai.push(peer.second(kept, more)?.ms);
            }
        }
        let mut table = Table::new(&[
            "ms to the first token",
            "ours",
            "cold to it",
            "genai",
            "remark",
        ]);
        let mut row = |name: &str, ours: &Sample, genai: &Sample, remark: String| {
            let peer = match genai.is_empty() {
                true => String::new(),
                false => number(genai.p50()),
            };
            let sooner = number(cold.p50() / ours.p50());
            table.row(name, [number(ours.p50()), sooner, peer, remark]);
        };
        let none = Sample::default();
        row(
            &format!("a prompt of {LONG}, cold"),
            &cold,
            &none,
            String::new(),
        );
        let remark = |(reused, of): (usize, usize)| format!("{reused} of {of} tokens reused");
        row("its second turn", &warm, &genai, remark(reused));
        row(
            "its second turn, after kill -9",
            &killed,
            &none,
            remark(restored),
        );
        Ok(table)
    }

    /// Loading, and the most memory, each in a process of its own that has answered a long prompt.
    pub(super) fn alone(&mut self) -> Result<Table> {
        let state = tempfile::tempdir()?;
        let (messages, ids) = self.prompt(LONG)?;
        let mut engine = Apart::start(state.path(), self.options.threads.get())?;
        let told = engine.ask(&messages, 32)?;
        let mut table = Table::new(&["in a process of its own", "ours", "genai, with its Python"]);
        let peer = match &mut self.genai {
            Some(peer) => {
                peer.decode(&ids, 31)?;
                (number(peer.load_ms), number(peer.peak_kb as f64 / 1024.0))
            }
            None => (String::new(), String::new()),
        };
        table.row("ms to load the model", [number(engine.load_ms), peer.0]);
        table.row(
            "peak memory, MiB",
            [number(told.peak_kb as f64 / 1024.0), peer.1],
        );
        Ok(table)
    }
}
