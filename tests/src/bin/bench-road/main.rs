//! The whole road: from a typed sentence to the frame on the wire and the device's answer, and to the language model's first
//! word, on a whole box of real processes.
//!
//! The same commands go by D-Bus and MQTT, so that the cost of understanding is seen, and in turn with them the floors.
//! Run: `cargo build --release --workspace --bins`, then `cargo run --release -p autoglm-tests --bin bench-road`.

use anyhow::Result;
use autoglm_tests::bench::bundles::Bundles;
use autoglm_tests::edge_box::EdgeBox;
use clap::Parser;

mod chat;
mod commands;
mod doors;
mod sentences;

#[derive(Parser)]
struct Options {
    /// Command sentences
    #[arg(long, default_value_t = 240)]
    sentences: usize,
    /// Chats of two turns
    #[arg(long, default_value_t = 20)]
    chats: usize,
    /// Starts of the daemon, each with one chat that finds nothing in the model's memory
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Seed of the choice of sentences
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let bundles = Bundles::find()?;
    let sentences = sentences::sample(options.sentences, options.seed)?;
    let mut edge_box = EdgeBox::running().await?;
    let mut doors = doors::Doors::open(&edge_box).await?;
    println!("- seed {}", options.seed);
    commands::measure(&edge_box, &bundles, &mut doors, &sentences)
        .await?
        .print();
    chat::measure(
        &mut edge_box,
        &bundles,
        doors,
        options.chats,
        options.starts,
    )
    .await?
    .print();
    Ok(())
}
