//! Logging: structured, to the journal where systemd connects us to it, to stderr otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Where and how log lines go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// The journal under systemd, text otherwise.
    #[default]
    Auto,
    /// JSON lines on stderr.
    Json,
    /// Text lines on stderr.
    Text,
}

/// Starts logging. `filter` was checked by the configuration.
///
/// # Errors
/// When the filter does not parse or another logger is installed.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let registry = tracing_subscriber::registry().with(EnvFilter::try_new(filter)?);
    let text = || {
        let colour = std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(colour)
    };
    match format {
        LogFormat::Json => {
            registry
                .with(
                    tracing_subscriber::fmt::layer()
                        .json()
                        .with_writer(std::io::stderr),
                )
                .try_init()?;
        }
        LogFormat::Text => registry.with(text()).try_init()?,
        // systemd sets JOURNAL_STREAM for services whose stderr goes to the journal (sd-daemon(3)).
        LogFormat::Auto => {
            match std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok()) {
                Some(journal) => registry.with(journal).try_init()?,
                None => registry.with(text()).try_init()?,
            }
        }
    }
    Ok(())
}
