//! All benches, one after the other, with the machine named: what `make bench` runs.
//!
//! Prints Markdown for the README. Fails only when something could not be measured: speed is printed, never asserted.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context as _;
use autoglm_tests::bench::{bundles::Bundles, machine};
use autoglm_tests::process::program;
use clap::Parser;

/// A program, what it measures, and its arguments in a short run.
const BENCHES: [(&str, &str, &[&str]); 9] = [
    (
        "bench-road",
        "From words to a device",
        &["--sentences", "48", "--chats", "3", "--starts", "1"],
    ),
    (
        "bench-understanding",
        "Labelled sentences: right, wrong, asked back",
        &[],
    ),
    (
        "bench-inference",
        "The inference engine above the bare graphs",
        &["--rounds", "2"],
    ),
    ("bench-voice", "The voice", &["--rounds", "2"]),
    (
        "bench-llm",
        "The language model: tokens per second",
        &["--rounds", "1", "--tokens", "16"],
    ),
    ("bench-speech", "Speech to text", &["--rounds", "2"]),
    (
        "bench-links",
        "What a link costs",
        &[
            "--blocks",
            "6",
            "--links",
            "1,64",
            "--seconds",
            "2",
            "--churn",
            "2",
            "--stream",
            "3",
        ],
    ),
    (
        "bench-store",
        "What an acknowledgement costs",
        &["--rounds", "3", "--acknowledgements", "128"],
    ),
    (
        "bench-courier",
        "From the outbox to the broker",
        &["--rounds", "2", "--messages", "400"],
    ),
];

/// Measures everything and prints tables for the README.
#[derive(Parser)]
struct Options {
    /// Fewer rounds: under a minute, for a first look or continuous integration
    #[arg(long)]
    short: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let bundles = Bundles::find()?;
    println!("## Measured\n\n{}\n", machine::description(&bundles));
    let mut failed = Vec::new();
    for (name, title, short) in BENCHES {
        println!("### {title}\n");
        let begun = Instant::now();
        let arguments = if options.short { short } else { &[] };
        let status = Command::new(program(name)?)
            .args(arguments)
            // ONNX Runtime's official builds report to their maker unless this is there.
            .env("ORT_DISABLE_TELEMETRY", "1")
            .status()
            .with_context(|| format!("cannot start {name}"))?;
        if !status.success() {
            failed.push(format!("{name} ({status})"));
        }
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "- `{name}`: {seconds:.0} s, load average then {}\n",
            machine::load()
        );
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("not measured: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
