//! The command line of `autoglmctl`, as clap reads it. No behaviour.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

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

/// `chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// What to say; without it, one sentence a line from the terminal or from standard input
    pub text: Vec<String>,
    /// The conversation, which goes on where it was left: A-Z a-z 0-9 . _ -
    #[arg(
        long,
        env = "AUTOGLM_SESSION",
        default_value = "cli",
        value_name = "ID"
    )]
    pub session: String,
    /// Begin a conversation of its own
    #[arg(long)]
    pub new: bool,
    /// Show how each part was understood, where it was answered, and where the time went
    #[arg(long)]
    pub explain: bool,
    /// Who waits, and so whose turn comes first where the models are busy
    #[arg(long, value_enum, default_value_t)]
    pub class: Asking,
}

/// `transcribe`.
#[derive(Debug, Args)]
pub struct TranscribeArgs {
    /// The file; - reads standard input, which may be a pipe that somebody still speaks into
    pub file: PathBuf,
    /// Show when each part was said, and what is doubtful
    #[arg(long)]
    pub times: bool,
    /// The file has no header: 16-bit little-endian samples, 16 kHz, mono
    #[arg(long)]
    pub raw: bool,
    /// The language spoken (en)
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// Who waits, and so whose turn comes first where the model is busy
    #[arg(long, value_enum, default_value_t)]
    pub class: Asking,
}

/// `speak`.
#[derive(Debug, Args)]
pub struct SpeakArgs {
    /// What to say; without it, standard input to its end
    pub text: Vec<String>,
    /// Write a WAV file, there when it is whole; - is standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How fast, 0.25 to 4; 1 is as recorded
    #[arg(long, value_name = "FACTOR")]
    pub speed: Option<f64>,
    /// Which speaker, from 0, of a voice that has several
    #[arg(long, value_name = "NUMBER")]
    pub speaker: Option<u32>,
    /// Who waits, and so whose turn comes first where the voice is busy
    #[arg(long, value_enum, default_value_t)]
    pub class: Asking,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Asking {
    /// Somebody who speaks and listens: goes before all else
    Voice,
    /// Somebody at this box
    #[default]
    Local,
    /// Nobody in particular: after all others
    Background,
}

impl Asking {
    /// As `Say` knows it.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Local => "local",
            Self::Background => "background",
        }
    }
}

/// `sessions`.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List them, the one that was active last first
    List,
    /// Show what was said
    Show {
        /// The conversation
        id: String,
        /// At most so many of the last turns
        #[arg(long, default_value_t = 100, value_name = "TURNS")]
        last: u32,
    },
    /// Delete one with everything that was said in it
    Delete {
        /// The conversation
        id: String,
    },
}

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

/// `models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List them: what each runs on, and why not on what was wanted
    List,
    /// List the execution providers that were found, with their devices
    Providers,
    /// Try a model's providers again; takes minutes where one compiles
    Probe {
        /// The bundle's name
        model: String,
    },
    /// Put a bundle where the daemon finds it: from a directory, or from a repository of the Hugging Face hub
    ///
    /// Every file is compared with the SHA-256 in the bundle's model.toml, and nothing is left behind when it does not succeed. Needs no
    /// daemon. HF_ENDPOINT names another hub, HF_TOKEN lets you in.
    Add(AddArgs),
    /// Check the files, load the model and run its probe; all bundles when none is named
    Verify {
        /// The bundle's name
        model: Option<String>,
    },
    /// Load a model by itself and measure it: time, memory, speed
    Benchmark {
        /// The bundle's name
        model: String,
    },
    /// Run a model of plain tensors (`inference.generic`) once
    ///
    /// The request and the answer are JSON as the Open Inference Protocol (KServe v2) has it:
    /// {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1]}]}
    Run {
        /// The bundle's name
        model: String,
        /// The file with the request; `-` is standard input
        #[arg(default_value = "-", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Delete a bundle
    Remove(RemoveArgs),
    /// Load a model anew from what is on disk now; answers under way are not disturbed
    Reload {
        /// The bundle's name; all models when left out
        model: Option<String>,
    },
}

/// `models add`.
#[derive(Debug, Clone, Args)]
pub struct AddArgs {
    /// A directory with a model.toml, or OWNER/REPOSITORY
    pub source: String,
    /// Where it goes; the last of the daemon's inference.model_dirs when left out
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
    /// A branch, tag or commit of the repository
    #[arg(long)]
    pub revision: Option<String>,
    /// Take the place of a bundle of the same name
    #[arg(long)]
    pub replace: bool,
}

/// `models remove`.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// The bundle's name
    pub model: String,
    /// Where it is; where the daemon finds it when left out
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
    /// Even if the daemon's configuration names it
    #[arg(long)]
    pub force: bool,
    /// Do not ask back
    #[arg(long, short)]
    pub yes: bool,
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

const SPEAK_HELP: &str = "\
Without --output the sound is played by aplay, paplay or pw-play where standard output is a terminal; a pipe or a file gets it as WAV:
  autoglmctl speak 'The door is open.'
  autoglmctl speak 'The door is open.' --output door.wav
  fortune | autoglmctl speak | aplay";

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units_and_are_above_zero() {
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["0", "-1", "soon", "inf", "nan", "-2m", ""] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_session_bus_has_two_spellings_and_the_default_is_the_system_bus() {
        let bus = |args: &[&str]| Cli::try_parse_from(args).unwrap().global.chosen_bus();
        assert_eq!(
            bus(&["autoglmctl", "status", "--session-bus"]),
            Bus::Session
        );
        assert_eq!(
            bus(&["autoglmctl", "--bus", "session", "status"]),
            Bus::Session
        );
        assert_eq!(
            bus(&["autoglmctl", "--bus", "system", "--session-bus", "status"]),
            Bus::Session
        );
    }

    #[test]
    fn negative_numbers_are_values_and_not_options() {
        let cli = Cli::try_parse_from(["autoglmctl", "write", "Heater", "offset", "-3.5"]).unwrap();
        let Command::Write { value, .. } = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(value, ["-3.5"]);
    }

    #[test]
    fn help_lists_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for exit in Exit::ALL {
            assert!(
                help.contains(&format!("{:>3}  {}", exit as u8, exit.meaning())),
                "{exit:?}\n{help}"
            );
        }
    }
}
