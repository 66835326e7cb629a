//! Whom the box trusts: `bluetooth`, who is paired, and `key`, what is shared with a device.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::duration;

/// `bluetooth`.
#[derive(Debug, Subcommand)]
pub enum BluetoothCommand {
    /// Listen for a while and list who was heard, the nearest first
    Scan {
        /// How long: seconds, or 500ms, 1m; 8 s when left out
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        time: Option<Duration>,
        /// The adapter, by its name (hci0) or its address; any when left out
        #[arg(long)]
        adapter: Option<String>,
    },
    /// Pair with a device, and trust it from then on; what it asks is asked here
    ///
    /// Without a terminal, and without --passkey or --pin, only devices are paired that compare nothing.
    Pair {
        /// Its address, as `scan` shows it
        address: String,
        /// The six digits that the device shows, or has on its label
        #[arg(long, value_parser = clap::value_parser!(u32).range(..=999_999), conflicts_with = "pin")]
        passkey: Option<u32>,
        /// The PIN of an old device, 1 to 16 characters
        #[arg(long)]
        pin: Option<String>,
        /// The adapter, by its name (hci0) or its address; any when left out
        #[arg(long)]
        adapter: Option<String>,
    },
    /// Forget a device: its pairing, its cached services, and where the counter of a sensor stood (after a new battery)
    Forget {
        /// Its address
        address: String,
        /// The adapter, by its name (hci0) or its address; any when left out
        #[arg(long)]
        adapter: Option<String>,
    },
}

/// `key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key for a device and this box to share (key = { file = "FILE" } under its `[[device]]`)
    New {
        /// Where to write it, for its owner's eyes only; an existing file is never overwritten
        file: PathBuf,
    },
    /// Make a static pair, and print its public half; FILE keeps the private one (identity = { file = "FILE" })
    Pair {
        /// Where to write it, for its owner's eyes only; an existing file is never overwritten
        file: PathBuf,
    },
    /// Print the public half of a static pair, for `peer` at the other end
    Public {
        /// The file of the private half
        file: PathBuf,
    },
}
