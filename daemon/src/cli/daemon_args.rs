//! Arguments of the daemon.

use std::path::PathBuf;

use clap::Parser;

use crate::config;
use crate::logging::LogFormat;

/// Arguments of `autoglm-edged`.
#[derive(Debug, Parser)]
#[command(name = "autoglm-edged", version)]
pub struct DaemonArgs {
    /// Configuration file.
    #[arg(long, default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Check the configuration and exit.
    #[arg(long)]
    pub check: bool,
    /// Print the effective configuration, defaults included, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// Where and how log lines go.
    #[arg(long, value_enum, default_value = "auto")]
    pub log_format: LogFormat,
}
