//! `key`: makes the keys that box and devices share. It touches nothing but the file that is named.

use std::error::Error as _;

use serde_json::json;

use super::args::pairing::KeyCommand;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use crate::config::key::{KeyError, KeyKind, KeySource, create};

/// Makes or shows a key. What is secret is in the file alone.
///
/// # Errors
/// [`Exit::Usage`] for a file that exists, cannot be written, or is no key.
pub fn run(command: &KeyCommand, output: &mut Output) -> Result<Exit, Failure> {
    let failure = |error: KeyError| {
        let failure = Failure::new(Exit::Usage, error.to_string());
        match error.source() {
            Some(source) => failure.because(source),
            None => failure,
        }
    };
    let (file, public) = match command {
        KeyCommand::New { file } => {
            create(file, KeyKind::PreShared).map_err(failure)?;
            (file, None)
        }
        KeyCommand::Pair { file } => {
            let key = create(file, KeyKind::Private).map_err(failure)?;
            (file, Some(hex::encode(key.to_public())))
        }
        KeyCommand::Public { file } => {
            let key = KeySource::File(file.clone())
                .load(KeyKind::Private)
                .map_err(failure)?;
            (file, Some(hex::encode(key.to_public())))
        }
    };
    let place = file.display().to_string();
    match (output.form, public) {
        (Form::Json, public) => output.json("key", &json!({"file": place, "public": public}))?,
        (Form::Text, Some(public)) => output.text(&format!("{public}\n"))?,
        (Form::Text, None) => output.note(&format!(
            "{place}: a new key; the daemon's user must own it, and the device needs the same"
        )),
    }
    Ok(Exit::Success)
}
