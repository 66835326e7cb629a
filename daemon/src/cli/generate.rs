//! Completions and man pages, from the definitions that the command lines are read by.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Cli;
use super::daemon_args::DaemonArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;

/// Prints the completions of `autoglmctl` for a shell.
///
/// # Errors
/// [`Failure::output`]
pub fn completions(shell: Shell, output: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "autoglmctl", &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

/// Writes `autoglmctl.1`, a page for each of its commands, and `autoglm-edged.8` into a directory.
///
/// # Errors
/// [`Exit::Internal`], naming the directory.
pub fn man(dir: &Path) -> Result<Exit, Failure> {
    write_pages(dir).map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("cannot write man pages into {}", dir.display()),
        )
        .because(&error)
    })?;
    Ok(Exit::Success)
}

fn write_pages(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)?;
    let mut page = Vec::new();
    clap_mangen::Man::new(DaemonArgs::command())
        .section("8")
        .render(&mut page)?;
    fs::write(dir.join("autoglm-edged.8"), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_pages_name_options_and_exit_codes_of_both_programs() {
        let dir = tempfile::tempdir().unwrap();
        write_pages(dir.path()).unwrap();
        let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let ctl = page("autoglmctl.1");
        for exit in Exit::ALL {
            // roff breaks no line here, but escapes hyphens.
            let words = exit.meaning().split(['-', '(']).next().unwrap();
            assert!(ctl.contains(words), "{exit:?}");
        }
        assert!(page("autoglmctl-invoke.1").contains("NAME=VALUE"));
        assert!(page("autoglm-edged.8").contains("print\\-config"));
        assert!(
            !dir.path().join("autoglmctl-man.1").exists(),
            "a hidden command has a page"
        );
    }

    #[test]
    fn every_shell_gets_completions_that_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "autoglmctl", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(
                script.contains("invoke") && script.contains("session-bus"),
                "{shell}"
            );
        }
    }
}
