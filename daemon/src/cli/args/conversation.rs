//! What is said and heard: `chat`, `transcribe`, `speak`, and `sessions`, the conversations that are kept.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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

pub(super) const SPEAK_HELP: &str = "\
Without --output the sound is played by aplay, paplay or pw-play where standard output is a terminal; a pipe or a file gets it as WAV:
  autoglmctl speak 'The door is open.'
  autoglmctl speak 'The door is open.' --output door.wav
  fortune | autoglmctl speak | aplay";
