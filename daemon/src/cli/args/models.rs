//! `models`: the bundles that are there, and how they run.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
