//! What a link costs: round trips and messages a second beside a bare echo on the same kind of line, and memory and processor with 1, 64 and 512 links.
//!
//! Every line is a real pseudo-terminal. The far ends live in processes of their own, and so do the boxes whose memory is read, so that each starts
//! clean. Echo and protocol take turns in blocks, and the ratio is that of the blocks. Read `host` for what a box does, `peer` for the devices,
//! `sustained` for a line at full speed.

mod host;
mod peer;
mod speed;
mod sustained;

use std::path::PathBuf;
use std::process::Command;

use autoglm_tests::bench::table::{Table, number};
use clap::{Parser, ValueEnum};

/// Devices in one process: each holds both ends of its pseudo-terminal, and a process may have 1,024 files.
const DEVICES_EACH: usize = 128;

#[derive(Debug, Parser)]
struct Options {
    /// Blocks of round trips, of which the median counts.
    #[arg(long, default_value_t = 30)]
    blocks: usize,
    /// Numbers of links.
    #[arg(long, value_delimiter = ',', default_value = "1,64,512")]
    links: Vec<usize>,
    /// Seconds of each measurement of the processor.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds in which all links are closed and opened again and again.
    #[arg(long, default_value_t = 20)]
    churn: u64,
    /// Seconds of a stream at full speed, each way.
    #[arg(long, default_value_t = 60)]
    stream: u64,
    /// Used by the bench itself: what this process is.
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// Used by the bench itself: where the pseudo-terminals are.
    #[arg(long, hide = true, default_value = ".")]
    directory: PathBuf,
    /// Used by the bench itself: the number of the first one.
    #[arg(long, hide = true, default_value_t = 0)]
    first: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Answers with the bytes that come.
    Echo,
    /// Devices that speak the protocol.
    Devices,
    /// A box with many links.
    Host,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let count = options.links.first().copied().unwrap_or(1);
    let Some(role) = options.role else {
        return measure(&options);
    };
    match role {
        Role::Echo => peer::run(&options.directory, options.first, count, peer::Kind::Echo),
        Role::Devices => peer::run(&options.directory, options.first, count, peer::Kind::Device),
        Role::Host => host::run(&options.directory, count, options.seconds, options.churn),
    }
}

fn measure(options: &Options) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let echo = peer::start(directory.path(), 0, 1, "echo")?;
    let device = peer::start(directory.path(), 1, 1, "devices")?;
    println!("{}", speed::measure(directory.path(), options.blocks)?);
    drop((echo, device));
    println!("{}", sustained::measure(directory.path(), options.stream)?);

    let mut table = Table::new(&[
        "links",
        "KiB each",
        "idle, % of a core",
        "a read a second each, % of a core",
        "links opened anew",
        "growth by that, KiB each",
    ]);
    let mut growths = Vec::new();
    for &links in &options.links {
        let place = directory.path().join(links.to_string());
        std::fs::create_dir(&place)?;
        let peers: anyhow::Result<Vec<_>> = (0..links)
            .step_by(DEVICES_EACH)
            .map(|first| peer::start(&place, first, DEVICES_EACH.min(links - first), "devices"))
            .collect();
        let peers = peers?;
        let output = Command::new(std::env::current_exe()?)
            .args(["--role", "host", "--directory"])
            .arg(&place)
            .args(["--links", &links.to_string()])
            .args(["--seconds", &options.seconds.to_string()])
            .args(["--churn", &options.churn.to_string()])
            .stderr(std::process::Stdio::inherit())
            .output()?;
        anyhow::ensure!(output.status.success(), "the box with {links} links failed");
        let line = String::from_utf8(output.stdout)?;
        let cost = host::Cost::parse(&line)?;
        let (opened, growth) = cost.growth.last().copied().unwrap_or_default();
        let cells = [cost.kib_each, cost.idle, cost.reading, opened, growth];
        table.row(&links.to_string(), cells.map(number));
        growths.push((links, cost.growth));
        drop(peers);
    }
    println!(
        "Resident memory above that of the process without links, after 20 reads on each; the links churn for {} s.\n\n{table}",
        options.churn
    );
    println!("\n{}", growth_table(&growths));
    Ok(())
}

/// Memory over the churn: what a leak adds it adds at every step, what an allocator keeps it adds once.
fn growth_table(growths: &[(usize, Vec<(f64, f64)>)]) -> Table {
    let steps = growths.iter().map(|(_, growth)| growth.len()).max();
    let heads: Vec<String> = (1..=steps.unwrap_or(0))
        .map(|step| format!("{} %", step * 100 / steps.unwrap_or(1)))
        .collect();
    let mut columns = vec!["growth while links churn, KiB each"];
    columns.extend(heads.iter().map(String::as_str));
    let mut table = Table::new(&columns);
    for (links, growth) in growths {
        let cells = growth.iter().map(|(_, kib)| number(*kib));
        table.row(&format!("{links} links"), cells);
    }
    table
}
