//! `autoglm-edged`: the edge daemon. Reads its configuration, starts logging, and runs [`autoglm_edge::app`] until told to stop.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::Context as _;
use autoglm_edge::cli::daemon_args::DaemonArgs;
use autoglm_edge::config::{self, Config, ConfigError};
use autoglm_edge::foreign::files::FileError;
use autoglm_edge::inference::providers::trial;
use autoglm_edge::{app, foreign, logging};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// ONNX Runtime's official builds report to their maker as soon as the library is loaded, unless this stands in the environment.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// sysexits(3): the configuration is wrong. The unit does not restart the daemon after it, since that cannot help.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == trial::ARGUMENT)
    {
        return trial::child::main();
    }
    let arguments = DaemonArgs::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autoglm-edged: {error:#}");
            if error.is::<ConfigError>() || error.is::<FileError>() {
                ExitCode::from(EX_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn start(arguments: &DaemonArgs) -> anyhow::Result<()> {
    if arguments.print_config {
        print!("{}", config::effective(&arguments.config)?);
        return Ok(());
    }
    if arguments.check {
        let config = config::check(&arguments.config)?;
        let (things, wrong): (Vec<_>, Vec<_>) = foreign::files::load(&config.foreign)
            .into_iter()
            .partition(Result::is_ok);
        let mut wrong = wrong.into_iter().filter_map(Result::err);
        if let Some(first) = wrong.next() {
            wrong.for_each(|error| eprintln!("autoglm-edged: {error}"));
            return Err(first.into());
        }
        println!(
            "{}: good ({} devices, {} described things, fleet {})",
            arguments.config.display(),
            config.devices.len(),
            things.len(),
            if config.fleet.is_some() { "on" } else { "off" }
        );
        return Ok(());
    }
    let config = Config::load(&arguments.config)?;
    if std::env::var_os(NO_TELEMETRY).is_none() {
        // A running process cannot change its environment safely once it has threads, so it starts over with the right one.
        let error = std::process::Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(NO_TELEMETRY, "1")
            .exec();
        return Err(error).context("cannot start over with ONNX Runtime's telemetry switched off");
    }
    logging::start(&config.log_filter, arguments.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let stopper = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopper.cancel();
        });
        let own_uid =
            std::fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me))?;
        app::run(config, own_uid, stop).await
    })
}
