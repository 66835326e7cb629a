//! Answers side by side: tokens per second of all of them, against one alone.

use std::time::Instant;

use anyhow::Result;
use autoglm_edge::inference::chat::Speculation;
use autoglm_tests::bench::{
    peer::{Llama, Peer},
    statistics::{Sample, ms},
    table::{Table, number},
};

use super::{Bench, beside, of};

impl Bench {
    pub(super) async fn together(&mut self) -> Result<Table> {
        let (mut engine, mut alone) = (Sample::default(), Sample::default());
        let (mut llama, mut llama_alone) = (Sample::default(), Sample::default());
        let (tokens, sessions) = (self.options.tokens, self.options.sessions.get());
        // In a process of its own: so many slots make one answer of llama.cpp no faster, and take memory.
        let mut slots = Peer::llama(&Llama {
            slots: sessions,
            ..self.options.llama()
        })?;
        for _ in 0..self.options.rounds {
            let (messages, ids) = self.prompt(64)?;
            let one = self.ask(messages, tokens, Speculation::Off).await?;
            alone.push(one.rate());
            if let Some(timed) = of(&mut self.llama, |peer| peer.decode(&ids, tokens - 1))? {
                llama_alone.push((tokens - 1) as f64 / timed.ms * 1e3);
            }
            // Once to have the prompts in the caches: this is about answers.
            let mut prompts = Vec::new();
            let mut prompts_ids = Vec::new();
            for _ in 0..sessions {
                let (messages, ids) = self.prompt(64)?;
                self.ask(messages.clone(), 1, Speculation::Off).await?;
                prompts.push(messages);
                prompts_ids.push(ids);
            }
            let begun = Instant::now();
            let answers = prompts
                .into_iter()
                .map(|prompt| self.ask(prompt, tokens, Speculation::Off));
            let answers = futures_util::future::try_join_all(answers).await?;
            let drawn: usize = answers.iter().map(|answer| answer.tokens).sum();
            engine.push(drawn as f64 / ms(begun.elapsed()) * 1e3);
            if let Some(timed) = of(&mut slots, |peer| peer.together(&prompts_ids, tokens))? {
                llama.push(timed.tokens as f64 / timed.ms * 1e3);
            }
        }
        let mut table = Table::new(&["tokens/s", "ours", "llama.cpp", "ratio"]);
        let mut row = |name: &str, ours: &Sample, theirs: &Sample| {
            let mut cells = vec![number(ours.p50())];
            cells.extend(beside(ours, theirs));
            table.row(name, cells);
        };
        row("one answer", &alone, &llama_alone);
        let name = format!("{sessions} answers together, of all");
        row(&name, &engine, &llama);
        let mut times = vec![number(engine.over(&alone).p50())];
        if !llama.is_empty() {
            times.push(number(llama.over(&llama_alone).p50()));
        }
        table.row("together to one", times);
        Ok(table)
    }
}
