//! Tokens per second of prompts and of answers, one at a time, by the length of the context.

use std::time::Instant;

use anyhow::{Result, ensure};
use autoglm_edge::inference::chat::Speculation;
use autoglm_tests::bench::{
    peer::Timed,
    statistics::{Sample, ms},
    table::{Table, number},
};

use super::{Bench, beside, of};

const CONTEXTS: [usize; 3] = [64, 512, 1500];
const PREFILLS: [usize; 2] = [128, 512];

/// The rates of everything that takes its turn, of the same rounds.
#[derive(Default)]
struct Rates {
    engine: Sample,
    bare: Sample,
    genai: Sample,
    llama: Sample,
}

impl Rates {
    fn push(&mut self, engine: f64, bare: f64, tokens: usize, peers: [Option<Timed>; 2]) {
        self.engine.push(engine);
        self.bare.push(bare);
        for (sample, timed) in [&mut self.genai, &mut self.llama].into_iter().zip(peers) {
            if let Some(timed) = timed {
                sample.push(rate(tokens, timed.ms));
            }
        }
    }

    fn row(&self, table: &mut Table, name: &str) {
        let mut cells = vec![number(self.engine.p50())];
        for other in [&self.bare, &self.genai, &self.llama] {
            cells.extend(beside(&self.engine, other));
        }
        table.row(name, cells);
    }
}

impl Bench {
    pub(super) async fn rates(&mut self) -> Result<Table> {
        let mut table = Table::new(&[
            "tokens/s",
            "ours",
            "bare loop",
            "ratio",
            "genai",
            "ratio",
            "llama.cpp",
            "ratio",
        ]);
        for length in PREFILLS {
            self.prefill(&mut table, length).await?;
        }
        for context in CONTEXTS {
            self.decode(&mut table, context).await?;
        }
        Ok(table)
    }

    async fn prefill(&mut self, table: &mut Table, length: usize) -> Result<()> {
        let mut rates = Rates::default();
        let mut counted = 0;
        for round in 0..=self.options.rounds {
            let (messages, ids) = self.prompt(length)?;
            let answer = self.ask(messages, 1, Speculation::Off).await?;
            ensure!(answer.prompt_tokens == ids.len(), "both read the same");
            let begun = Instant::now();
            self.floor.feed(&ids, 0)?;
            let bare_ms = ms(begun.elapsed());
            let peers = [
                of(&mut self.genai, |peer| peer.prefill(&ids))?,
                of(&mut self.llama, |peer| peer.prefill(&ids))?,
            ];
            if round > 0 {
                counted = ids.len();
                let computed = answer.prompt_tokens - answer.reused_tokens;
                let (engine, bare) = (rate(computed, answer.first_ms), rate(counted, bare_ms));
                rates.push(engine, bare, counted, peers);
            }
        }
        rates.row(table, &format!("prompt of {counted}"));
        Ok(())
    }

    async fn decode(&mut self, table: &mut Table, context: usize) -> Result<()> {
        let mut rates = Rates::default();
        let tokens = self.options.tokens;
        for round in 0..=self.options.rounds {
            let (messages, ids) = self.prompt(context)?;
            let answer = self.ask(messages, tokens, Speculation::Off).await?;
            let token = self.floor.feed(&ids, 0)?;
            let begun = Instant::now();
            self.floor.decode(token, ids.len(), tokens - 1)?;
            let bare_ms = ms(begun.elapsed());
            let peers = [
                of(&mut self.genai, |peer| peer.decode(&ids, tokens - 1))?,
                of(&mut self.llama, |peer| peer.decode(&ids, tokens - 1))?,
            ];
            if round > 0 && answer.tokens > tokens / 2 {
                let bare = rate(tokens - 1, bare_ms);
                rates.push(answer.rate(), bare, tokens - 1, peers);
            }
        }
        rates.row(table, &format!("answer at {context}"));
        Ok(())
    }
}

fn rate(tokens: usize, ms: f64) -> f64 {
    tokens as f64 / ms * 1e3
}
