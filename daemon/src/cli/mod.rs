//! The command line.
pub mod daemon_args;
