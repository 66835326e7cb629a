//! The command line of `autoglmctl`, as clap reads it. No behaviour.
//!
//! Here is what holds for every command, and the list of commands; those with commands or many options of their own are in
//! [`conversation`], [`models`] and [`pairing`].

pub mod conversation;
pub mod models;
pub mod pairing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use self::conversation::{ChatArgs, SPEAK_HELP, SessionsCommand, SpeakArgs, TranscribeArgs};
use self::models::ModelsCommand;
use self::pairing::{BluetoothCommand, KeyCommand};
use super::bus::Bus;
use super::exit::Exit;

/// Talks to the edge daemon: what is connected, what it can do, and what you want done.
#[derive(Debug, Parser)]
#[command(name = "autoglmctl", version, max_term_width = 100, after_long_help = after_help())]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print JSON: one object with "version":1; `chat` prints one a line
    #[arg(long, global = true)]
    pub json: bool,

    /// The bus that the daemon is on: system, session or a D-Bus address
    #[arg(
        long,
        global = true,
        env = "AUTOGLM_BUS",
        default_value = "system",
        value_name = "BUS"
    )]
    pub bus: Bus,

    /// The same as --bus session
    #[arg(long, global = true, overrides_with = "bus")]
    pub session_bus: bool,

    /// Longest wait for an answer: seconds, or 500ms, 2m; a command's deadline goes to the device
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// Colours; auto is: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

impl Global {
    /// The bus, whichever way it was given.
    #[must_use]
    pub fn chosen_bus(&self) -> Bus {
        if self.session_bus {
            Bus::Session
        } else {
            self.bus.clone()
        }
    }
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how everything stands: store, strain and why, models, links, things, fleet
    Status,

    /// List the things, or show one: its values, properties, actions and events
    Things {
        /// Its id, or its title
        thing: Option<String>,
    },

    /// List the links to devices
    Links,

    /// List the serial ports of this machine, with the address to configure and who uses them; needs no daemon
    Ports,

    /// List the models and what they run on; add, check, measure and remove bundles
    Models {
        /// What to do; `list` when left out
        #[command(subcommand)]
        command: Option<ModelsCommand>,
    },

    /// Have a thing do something, and print what it answers
    #[command(after_help = INPUT_HELP)]
    Invoke {
        /// Its id, or its title
        thing: String,
        /// The action's name, or its title
        action: String,
        /// What the action takes: JSON, NAME=VALUE pairs, or a single value
        #[arg(allow_negative_numbers = true)]
        input: Vec<String>,
        /// Identity of this command: the same one twice is carried out once
        #[arg(long)]
        id: Option<String>,
    },

    /// Ask a thing for the value of a property
    Read {
        /// Its id, or its title
        thing: String,
        /// The property's name, or its title
        property: String,
    },

    /// Write a property of a thing
    Write {
        /// Its id, or its title
        thing: String,
        /// The property's name, or its title
        property: String,
        /// The value: as for `invoke`
        #[arg(required = true, allow_negative_numbers = true)]
        value: Vec<String>,
        /// Identity of this command: the same one twice is carried out once
        #[arg(long)]
        id: Option<String>,
    },

    /// Talk to the box: TEXT once, or line by line without it
    Chat(ChatArgs),

    /// Write down what is said in a sound file
    ///
    /// The daemon reads WAV of 16, 24 or 32 bits or floats, 8 to 192 kHz, up to eight channels and ten minutes.
    Transcribe(TranscribeArgs),

    /// Speak TEXT, or what comes on standard input: played, or written as WAV
    #[command(after_help = SPEAK_HELP)]
    Speak(SpeakArgs),

    /// List, show and delete conversations
    Sessions {
        /// What to do; `list` when left out
        #[command(subcommand)]
        command: Option<SessionsCommand>,
    },

    /// Wait until the daemon answers and its models are ready; for scripts
    Wait(WaitArgs),

    /// Look for Bluetooth devices, pair and forget them
    Bluetooth {
        /// What to do
        #[command(subcommand)]
        command: BluetoothCommand,
    },

    /// Make and show the keys that devices and this box share; needs no daemon
    Key {
        /// What to do
        #[command(subcommand)]
        command: KeyCommand,
    },

    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Write the man pages of autoglmctl and autoglm-edged into a directory
    #[command(hide = true)]
    Man {
        /// The directory, which must exist
        dir: PathBuf,
    },
}

/// `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Only this model (by name or task) must be ready, not all; may be given several times
    #[arg(long = "model", value_name = "MODEL", conflicts_with = "no_models")]
    pub models: Vec<String>,
    /// No model need be ready
    #[arg(long)]
    pub no_models: bool,
    /// This thing (by id or title) must be online, too; may be given several times
    #[arg(long = "thing", value_name = "THING")]
    pub things: Vec<String>,
}

const INPUT_HELP: &str = "\
Input is read by the action's schema:
  autoglmctl invoke 'Desk lamp' set_brightness level=40
  autoglmctl invoke 'Desk lamp' set_brightness '{\"level\": 40}'
  autoglmctl invoke 'Desk lamp' set_brightness 40     (where the input has one member only)
Booleans are true, false, on or off; choices go by value or title; text is taken as it is.";

fn after_help() -> String {
    format!(
        "Exit codes:\n{}
JSON (--json):
  Standard output gets one object with \"version\": 1 and one member named after what it is:
  status, things, thing, links, ports, models, providers, probe, reload, added, removed, verified, benchmark, result, sessions, turns, deleted, spoken, key
  or ready. `chat` prints one object a line: version, session and the event (understood, executed, delta, done,
  failed) with its members. A failure goes to standard error as \"error\": code, message,
  causes, hint. Members may be added within a version; none is renamed or removed.

Environment:
  AUTOGLM_BUS      the default for --bus
  AUTOGLM_SESSION  the default for chat --session
  HF_ENDPOINT      the hub of models add; HF_TOKEN lets you in
  NO_COLOR         no colours",
        Exit::help()
    )
}

/// A number of seconds, or a number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or("a time is a number of seconds, or a number with a unit: 500ms, 30s, 2m")?,
    };
    if duration.is_zero() {
        return Err("must be above zero".to_owned());
    }
    Ok(duration)
}
