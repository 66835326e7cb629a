//! The command line of `autoglm-edged`, as clap reads it. Here and not beside the daemon's `main`, so that the man pages
//! are written from the same definition.

use std::path::PathBuf;

use clap::Parser;

use crate::config;
use crate::logging::LogFormat;

/// Owns this box's devices and models: devices as Things, words to commands, doors for people, programs and fleets.
#[derive(Debug, Parser)]
#[command(
    name = "autoglm-edged",
    version,
    max_term_width = 100,
    after_long_help = "Signals: SIGTERM and SIGINT stop in order, within 5 seconds unless the disk is slow.\n\
        `autoglmctl status` shows how a running daemon stands."
)]
pub struct DaemonArgs {
    /// The configuration
    #[arg(long, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,

    /// Check the configuration and the certificates, keys and passwords that it names, say what is wrong, and exit
    #[arg(long)]
    pub check: bool,

    /// Print the configuration as it takes effect, defaults included, and exit
    #[arg(long)]
    pub print_config: bool,

    /// How to log; auto is: to the journal under systemd, else text on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_needs_nothing() {
        DaemonArgs::command().debug_assert();
        let args = DaemonArgs::try_parse_from(["autoglm-edged"]).unwrap();
        assert_eq!(args.config, PathBuf::from("/etc/autoglm-edge/config.toml"));
        assert!(!args.check && !args.print_config);
        assert_eq!(args.log_format, LogFormat::Auto);
    }

    #[test]
    fn all_options_are_taken() {
        let args = [
            "autoglm-edged",
            "--config",
            "a.toml",
            "--check",
            "--print-config",
            "--log-format",
            "json",
        ];
        let args = DaemonArgs::try_parse_from(args).unwrap();
        assert!(args.check && args.print_config);
        assert_eq!(
            (args.config.to_str(), args.log_format),
            (Some("a.toml"), LogFormat::Json)
        );
    }
}
