//! `autoglmctl`: the command line, a client of the D-Bus API and of nothing else.
//!
//! It opens no store, no port and no model (though `models add` and `remove` move their files); whatever it shows of them came from the daemon, and whatever it judges (types of what was
//! typed, names that nearly match) the daemon judges again. In reading order:
//!
//! - [`args`]: the command line, with its help; [`daemon_args`]: that of `autoglm-edged`;
//! - [`exit`] and [`failure`]: the numbers that a run ends with, and what is told about it;
//! - [`bus`]: the daemon as calls and snapshots; [`target`]: names to things; [`input`]: typed text to JSON;
//! - [`output`], [`table`], [`text`]: standard output for data, standard error for the rest;
//! - one file for each family of commands: [`state`], [`models`] with [`bundles`] and [`examine`], [`things`], [`command`], [`chat`], [`transcribe`], [`sessions`], [`bluetooth`], [`key`], [`ports`],
//!   [`generate`].

pub mod args;
pub mod bluetooth;
pub mod bundles;
pub mod bus;
pub mod chat;
pub mod command;
pub mod daemon_args;
pub mod examine;
pub mod exit;
pub mod failure;
pub mod generate;
pub mod input;
pub mod key;
pub mod models;
pub mod output;
pub mod ports;
pub mod sessions;
pub mod speak;
pub mod state;
pub mod table;
pub mod target;
pub mod tensors;
pub mod text;
pub mod things;
pub mod transcribe;

use std::process::ExitCode;

use clap::Parser as _;

use self::args::models::ModelsCommand;
use self::args::{Cli, Command, Global};
use self::bus::Daemon;
use self::exit::Exit;
use self::failure::Failure;
use self::output::{Form, Output};

/// Runs `autoglmctl` with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let form = if cli.global.json {
        Form::Json
    } else {
        Form::Text
    };
    let mut output = Output::new(form, cli.global.color.into());
    let exit = match run(cli, &mut output) {
        Ok(exit) => exit,
        Err(failure) => {
            if failure.exit != Exit::Success {
                output.failure(&failure);
            }
            failure.exit
        }
    };
    exit.into()
}

fn run(cli: Cli, output: &mut Output) -> Result<Exit, Failure> {
    match cli.command {
        // These need neither the bus nor a runtime.
        Command::Completions { shell } => return generate::completions(shell, output),
        Command::Man { dir } => return generate::man(&dir),
        Command::Key { command } => return key::run(&command, output),
        Command::Ports => return ports::run(output),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, "cannot start").because(&error))?;
    let result = runtime.block_on(async {
        match cli.command {
            // A conversation does not end with the answer that Ctrl-C ends.
            Command::Chat(args) => chat::run(&cli.global, args, output).await,
            // What it has begun is taken back first.
            Command::Models {
                command: Some(ModelsCommand::Add(args)),
            } => bundles::add(&cli.global, args, output).await,
            command => tokio::select! {
                result = dispatch(&cli.global, command, output) => result,
                result = tokio::signal::ctrl_c() => match result {
                    Ok(()) => Err(Failure::interrupted()),
                    Err(error) => Err(Failure::new(Exit::Internal, "cannot listen for Ctrl-C").because(&error)),
                },
            },
        }
    });
    // A thread that still waits for standard input must not keep us.
    runtime.shutdown_background();
    result
}

async fn dispatch(global: &Global, command: Command, output: &mut Output) -> Result<Exit, Failure> {
    if let Command::Wait(args) = command {
        return state::wait::wait(global, &args, output).await;
    }
    if let Command::Models {
        command: Some(ModelsCommand::Remove(args)),
    } = command
    {
        return bundles::remove(global, args, output).await;
    }
    if let Command::Speak(args) = command {
        return speak::run(global, args, output).await;
    }
    let global = &patience(global, &command);
    let daemon = connect(global).await?;
    match command {
        Command::Status => state::status(&daemon, output).await,
        Command::Links => state::links(&daemon, output).await,
        Command::Models { command } => models::run(&daemon, command, output).await,
        Command::Things { thing: None } => things::list(&daemon, output).await,
        Command::Things { thing: Some(thing) } => things::show(&daemon, &thing, output).await,
        Command::Invoke {
            thing,
            action,
            input,
            id,
        } => command::invoke(&daemon, &thing, &action, &input, id.as_deref(), output).await,
        Command::Read { thing, property } => {
            command::read(&daemon, &thing, &property, output).await
        }
        Command::Write {
            thing,
            property,
            value,
            id,
        } => command::write(&daemon, &thing, &property, &value, id.as_deref(), output).await,
        Command::Bluetooth { command } => bluetooth::run(&daemon, command, output).await,
        Command::Transcribe(args) => transcribe::run(&daemon, args, output).await,
        Command::Sessions { command } => sessions::run(&daemon, command, output).await,
        Command::Chat(_)
        | Command::Wait(_)
        | Command::Speak(_)
        | Command::Key { .. }
        | Command::Ports
        | Command::Completions { .. }
        | Command::Man { .. } => Err(Failure::new(
            Exit::Internal,
            "this command has a road of its own",
        )),
    }
}

/// A proof takes as long as the daemon's limits on it allow, and is not given up before that; a model that is loaded anew may be
/// proved anew.
fn patience(global: &Global, command: &Command) -> Global {
    let is_probe = matches!(
        command,
        Command::Models {
            command: Some(
                ModelsCommand::Probe { .. }
                    | ModelsCommand::Reload { .. }
                    | ModelsCommand::Verify { .. }
                    | ModelsCommand::Benchmark { .. }
            )
        }
    );
    Global {
        timeout: global.timeout.or(is_probe.then_some(models::PATIENCE)),
        ..global.clone()
    }
}

async fn connect(global: &Global) -> Result<Daemon, Failure> {
    Daemon::connect(global.chosen_bus(), global.timeout).await
}
