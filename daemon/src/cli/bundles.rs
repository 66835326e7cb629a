//! `models add` and `models remove`: bundles into and out of a directory, by this process and with its caller's rights.
//!
//! The daemon does not do it: it may write its own state alone, and does not change what it runs. It is asked where it looks for bundles and which
//! it uses; without a daemon, `--dir` says where. The work itself is [`crate::install`]'s.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Map, Value as Json, json};

use super::args::Global;
use super::args::models::{AddArgs, RemoveArgs};
use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use super::text::plain;
use crate::install::{self, Added, Existing, HubError, InstallError, Source, Task, Watch};

/// Where the site's own bundles are, if no daemon says otherwise.
const SITE_DIR: &str = "/var/lib/autoglm-edge/models";

/// After Ctrl-C, a transfer that hangs is left to itself after so long.
const CLEAN_UP: Duration = Duration::from_secs(3);

/// What the daemon says about bundles; empty without one.
#[derive(Debug, Default)]
struct Told {
    dirs: Vec<PathBuf>,
    /// Names of the models that it is configured for.
    used: Vec<String>,
}

impl Told {
    /// Asks, briefly: bundles can be added before the daemon ever runs.
    async fn ask(global: &Global) -> Result<Self, Failure> {
        let daemon = Daemon::connect(global.chosen_bus(), global.timeout).await?;
        let status = daemon.status().await?;
        let dirs = status.get("model_dirs").and_then(Json::as_array);
        let dirs = dirs.into_iter().flatten().filter_map(Json::as_str);
        let models = status.get("models").and_then(Json::as_array);
        let names = models.into_iter().flatten();
        Ok(Self {
            dirs: dirs.map(PathBuf::from).collect(),
            used: names
                .filter_map(|model| model.get("name")?.as_str().map(str::to_owned))
                .collect(),
        })
    }
}

/// Runs `models add`. Ctrl-C is waited for here, so that nothing half-done stays.
///
/// # Errors
/// [`Failure`]
pub async fn add(global: &Global, args: AddArgs, output: &mut Output) -> Result<Exit, Failure> {
    let source = Source::of(&args.source, args.revision.as_deref());
    let source = source.map_err(|error| failure(&error))?;
    let told = Told::ask(global).await.unwrap_or_default();
    let dir = match (args.dir, told.dirs.last()) {
        (Some(dir), _) => dir,
        // The last one is the site's own; those before it are packages'.
        (None, Some(last)) => last.clone(),
        (None, None) => PathBuf::from(SITE_DIR),
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let watch = Progress {
        bar: bar(output),
        cancel: Arc::clone(&cancel),
    };
    let existing = match args.replace {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let at = dir.clone();
    let mut work = tokio::task::spawn_blocking(move || {
        let mut watch = watch;
        let result = install::add(&source, &at, existing, &mut watch);
        watch.bar.finish_and_clear();
        result
    });
    let result = tokio::select! {
        result = &mut work => result,
        _ = tokio::signal::ctrl_c() => {
            cancel.store(true, Ordering::Relaxed);
            if let Ok(result) = tokio::time::timeout(CLEAN_UP, &mut work).await {
                result
            } else {
                install::sweep(&dir);
                return Err(Failure::interrupted());
            }
        }
    };
    let added = result
        .map_err(|error| Failure::new(Exit::Internal, "adding broke down").because(&error))?
        .map_err(|error| failure(&error))?;
    report(&added, &told, &dir, output)?;
    Ok(Exit::Success)
}

fn report(added: &Added, told: &Told, dir: &Path, output: &mut Output) -> Result<(), Failure> {
    let Added {
        name,
        task,
        files,
        bytes,
        has_replaced,
        ..
    } = added;
    match output.form {
        Form::Json => output.json(
            "added",
            &json!({"name": name, "task": task.as_str(), "dir": added.dir, "files": files, "bytes": bytes, "has_replaced": has_replaced}),
        )?,
        Form::Text => output.text(&format!(
            "{name}: {task}, {files} files, {}, in {}{}\n",
            HumanBytes(*bytes),
            plain(&dir.display().to_string()),
            if *has_replaced { " (in place of the one before)" } else { "" }
        ))?,
    }
    let shadow = told
        .dirs
        .iter()
        .take_while(|before| before.as_path() != dir)
        .find(|before| before.join(name).exists());
    if let Some(before) = shadow {
        output.note(&format!(
            "the daemon does not see it: {} comes first",
            before.join(name).display()
        ));
    } else if !told.dirs.is_empty() && !told.dirs.iter().any(|it| it == dir) {
        output.note(&format!(
            "the daemon does not look there: add {} to inference.model_dirs",
            dir.display()
        ));
    } else if !told.used.contains(name) {
        let value = match task {
            Task::Generic => format!("[{name:?}]"),
            _ => format!("{name:?}"),
        };
        output.note(&format!(
            "the daemon uses it when the configuration says so: inference.{task} = {value}"
        ));
    }
    Ok(())
}

/// Runs `models remove`.
///
/// # Errors
/// [`Failure`]
pub async fn remove(
    global: &Global,
    args: RemoveArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let RemoveArgs {
        model,
        dir,
        force,
        yes,
    } = args;
    install::check_name(&model).map_err(|error| failure(&error))?;
    let told = match Told::ask(global).await {
        Ok(told) => told,
        Err(error) if dir.is_none() => {
            return Err(error.hint("without a daemon, `--dir` says where the bundle is"));
        }
        // Nobody runs it, as far as can be seen from here.
        Err(_) => Told::default(),
    };
    if told.used.contains(&model) && !force {
        return Err(Failure::new(
            Exit::Unavailable,
            format!("{model} is in use: the daemon's configuration names it"),
        )
        .hint("name another model in the configuration first; `--force` removes it all the same"));
    }
    let dir = dir.unwrap_or_else(|| {
        let holder = told.dirs.iter().find(|dir| dir.join(&model).exists());
        let first = holder.or(told.dirs.last());
        first.map_or_else(|| PathBuf::from(SITE_DIR), Clone::clone)
    });
    let bundle = dir.join(&model);
    if !yes && fs::symlink_metadata(&bundle).is_ok() {
        confirm(&bundle, output).await?;
    }
    let removed = tokio::task::spawn_blocking(move || install::remove(&model, &dir)).await;
    let removed = removed
        .map_err(|error| Failure::new(Exit::Internal, "removing broke down").because(&error))?
        .map_err(|error| failure(&error))?;
    match output.form {
        Form::Json => output.json("removed", &json!({"dir": removed.dir}))?,
        Form::Text => output.text(&format!(
            "removed {}\n",
            plain(&removed.dir.display().to_string())
        ))?,
    }
    Ok(Exit::Success)
}

/// Asks back, where there is somebody to ask.
async fn confirm(bundle: &Path, output: &mut Output) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{} is removed only when that is confirmed",
                bundle.display()
            ),
        )
        .hint("`--yes` confirms it where nobody can be asked"));
    }
    output.note(&format!("Remove {}? [y/N]", bundle.display()));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    })
    .await;
    match answer {
        Ok(Ok(line)) if ["y", "yes"].contains(&line.trim().to_lowercase().as_str()) => Ok(()),
        _ => Err(Failure::new(Exit::Interrupted, "nothing was removed")),
    }
}

struct Progress {
    bar: ProgressBar,
    cancel: Arc<AtomicBool>,
}

impl Watch for Progress {
    fn begin(&mut self, name: &str, bytes: u64) {
        self.bar.set_length(bytes);
        self.bar.set_message(name.to_owned());
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// A bar without colours on a terminal, nothing elsewhere.
fn bar(output: &Output) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    );
    match style {
        Ok(style) if output.form == Form::Text && io::stderr().is_terminal() => {
            ProgressBar::new(0).with_style(style.progress_chars("=> "))
        }
        _ => ProgressBar::hidden(),
    }
}

/// What a person is told.
fn failure(error: &InstallError) -> Failure {
    let exit = match error {
        _ if error.is_denied() => Exit::Denied,
        InstallError::Source { .. } | InstallError::Name { .. } => Exit::Usage,
        InstallError::Hub(HubError::Endpoint { .. } | HubError::Revision { .. }) => Exit::Usage,
        InstallError::Absent { .. } | InstallError::Hub(HubError::NoRepository { .. }) => {
            Exit::Unknown
        }
        InstallError::Hub(HubError::Unreachable { .. } | HubError::Status { .. }) => {
            Exit::Unreachable
        }
        InstallError::Exists { .. } | InstallError::Busy { .. } | InstallError::NoRoom { .. } => {
            Exit::Unavailable
        }
        InstallError::Cancelled => Exit::Interrupted,
        InstallError::Io { .. } => Exit::Internal,
        InstallError::NoManifest { .. }
        | InstallError::Bundle(_)
        | InstallError::NotPlain { .. }
        | InstallError::Content { .. }
        | InstallError::Hub(_) => Exit::Unsound,
    };
    let hint = match error {
        _ if error.is_denied() => {
            Some("`sudo` adds and removes the box's bundles; `--dir` names a directory of your own")
        }
        InstallError::Source { .. } => {
            Some("a directory is given with its path (./NAME), a repository as OWNER/NAME")
        }
        InstallError::NoManifest { origin } if is_piper_voice(Path::new(origin)) => Some(
            "this is a voice of Piper: what its .onnx.json says goes into a model.toml, with a probe and digests (models/README.md, \"A Piper voice\")",
        ),
        InstallError::NoManifest { .. } => Some(
            "a bundle's model.toml names each file with its SHA-256, the graph's layout and a probe; models/README.md says how one is made. \
             Nothing is guessed from the names of files",
        ),
        InstallError::Exists { .. } => Some("`--replace` puts the new one in its place"),
        InstallError::Hub(HubError::NoRepository { .. }) => {
            Some("HF_TOKEN lets you in where the repository is private or wants consent")
        }
        InstallError::Hub(HubError::Unreachable { .. }) => {
            Some("HF_ENDPOINT names another hub; HTTPS_PROXY the way out")
        }
        InstallError::Content { .. } => Some("nothing was added; another copy may be whole"),
        InstallError::NotPlain { .. } => {
            Some("copy the files that links lead to, for example by `cp -rL`")
        }
        _ => None,
    };
    let mut causes = Failure::new(exit, error.to_string());
    if let Some(source) = std::error::Error::source(error) {
        causes = causes.because(source);
    }
    match hint {
        Some(hint) => causes.hint(hint),
        None => causes,
    }
}

/// Whether a directory holds a voice as Piper publishes it: `NAME.onnx` and `NAME.onnx.json`.
fn is_piper_voice(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.path());
    names.any(|path| {
        let name = path.to_string_lossy();
        name.strip_suffix(".json")
            .is_some_and(|graph| graph.ends_with(".onnx") && Path::new(graph).is_file())
    })
}

/// The names of all bundles that the daemon finds.
pub(super) fn names(bundles: &[Map<String, Json>]) -> Vec<String> {
    let name = |bundle: &Map<String, Json>| bundle.get("name")?.as_str().map(str::to_owned);
    bundles.iter().filter_map(name).collect()
}
