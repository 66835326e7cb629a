//! `models run`: tensors from a file or standard input to a model, and what it answers to standard output.
//!
//! Both are JSON as the Open Inference Protocol (KServe v2, "REST inference request") has it, so what is written for one server serves
//! for the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal as _, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::bus::Daemon;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Form, Output};
use crate::control::dbus::client::Tensor;
use crate::control::dbus::tensor;

/// The protocol's names of element types, and ours.
const DATATYPES: [(&str, &str); 9] = [
    ("FP32", "f32"),
    ("FP64", "f64"),
    ("FP16", "f16"),
    ("INT64", "i64"),
    ("INT32", "i32"),
    ("INT16", "i16"),
    ("INT8", "i8"),
    ("UINT8", "u8"),
    ("BOOL", "bool"),
];
/// The longest request that is read. Numbers as text take some ten times the 64 MiB that the daemon takes of them.
const REQUEST_BYTES_MAX: u64 = 640 << 20;

#[derive(Deserialize)]
struct Request {
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    /// A list of the elements, or lists in lists as the shape has it.
    data: Vec<Json>,
}

/// Runs `models run`.
///
/// # Errors
/// [`Failure`]: [`Exit::Usage`] for a file that cannot be read, [`Exit::InvalidValue`] for one that is no such request.
pub async fn run(
    daemon: &Daemon,
    model: &str,
    file: &Path,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let inputs = request(&read(file, output)?)?;
    let outputs = daemon.run_model(model, &inputs).await?;
    let answer = answer(model, &outputs)?;
    match output.form {
        Form::Json => output.json("run", &answer)?,
        Form::Text => output.text(&format!("{answer}\n"))?,
    }
    Ok(Exit::Success)
}

fn read(file: &Path, output: &mut Output) -> Result<Vec<u8>, Failure> {
    let unread = |error: &std::io::Error| {
        Failure::new(Exit::Usage, format!("cannot read {}", file.display())).because(error)
    };
    let source: Box<dyn Read> = if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            output.note("reading the request from the terminal; Ctrl-D ends it");
        }
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(file).map_err(|error| unread(&error))?)
    };
    let mut text = Vec::new();
    source
        .take(REQUEST_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| unread(&error))?;
    if text.len() as u64 > REQUEST_BYTES_MAX {
        let message = format!(
            "{} is longer than {} MiB",
            file.display(),
            REQUEST_BYTES_MAX >> 20
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(text)
}

fn request(text: &[u8]) -> Result<BTreeMap<String, Tensor>, Failure> {
    let request: Request = serde_json::from_slice(text).map_err(|error| {
        Failure::new(Exit::InvalidValue, "the request cannot be used")
            .because(&error)
            .hint(r#"it looks like {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1]}]}"#)
    })?;
    let mut inputs = BTreeMap::new();
    for Input {
        name,
        shape,
        datatype,
        data,
    } in request.inputs
    {
        let wrong =
            |why: String| Failure::new(Exit::InvalidValue, format!("input {name:?}: {why}"));
        let Some((_, kind)) = DATATYPES.iter().find(|(theirs, _)| *theirs == datatype) else {
            let known: Vec<&str> = DATATYPES.iter().map(|(theirs, _)| *theirs).collect();
            return Err(wrong(format!("the datatype {datatype:?} is not known"))
                .hint(format!("known are {}", known.join(", "))));
        };
        let mut flat = Vec::new();
        flatten(data, shape.len(), &mut flat);
        let tensor = tensor::from_json(kind, &shape, &flat).ok_or_else(|| {
            let count = flat.len();
            wrong(format!(
                "its data ({count} elements) are not {datatype} of the shape {shape:?}"
            ))
        })?;
        if inputs.insert(name.clone(), tensor).is_some() {
            return Err(wrong("it is there twice".to_owned()));
        }
    }
    Ok(inputs)
}

/// Lists in lists, as deep as there are dimensions; what is not a list is an element at any depth.
fn flatten(data: Vec<Json>, depth: usize, flat: &mut Vec<Json>) {
    for item in data {
        match item {
            Json::Array(inner) if depth > 1 => flatten(inner, depth - 1, flat),
            element => flat.push(element),
        }
    }
}

fn answer(model: &str, outputs: &BTreeMap<String, Tensor>) -> Result<Json, Failure> {
    let list = outputs
        .iter()
        .map(|(name, output)| {
            let data = tensor::to_json(output).map_err(|error| {
                Failure::new(Exit::Internal, format!("output {name:?} is not understood"))
                    .because(&error)
            })?;
            let (kind, extents, _) = output;
            let datatype = DATATYPES.iter().find(|(_, ours)| ours == kind);
            Ok(json!({
                "name": name,
                "shape": extents,
                "datatype": datatype.map_or(kind.as_str(), |(theirs, _)| theirs),
                "data": data,
            }))
        })
        .collect::<Result<Vec<Json>, Failure>>()?;
    Ok(json!({"model_name": model, "outputs": list}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_lists_and_flat_lists_are_the_same_tensor() {
        let flat = br#"{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT32", "data": [1, 2, 3, 4]}]}"#;
        let nested = br#"{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "INT32", "data": [[1, 2], [3, 4]]}]}"#;
        let (flat, nested) = (request(flat).unwrap(), request(nested).unwrap());
        assert_eq!(flat, nested);
        assert_eq!(flat["x"].1, [2, 2]);
        assert_eq!(flat["x"].2.len(), 16);
    }

    #[test]
    fn a_request_that_cannot_be_used_names_the_input_and_what_would_do() {
        for (text, part) in [
            (r#"{"inputs": 1}"#, "cannot be used"),
            (
                r#"{"inputs": [{"name": "x", "shape": [2], "datatype": "F32", "data": [1, 2]}]}"#,
                "\"F32\" is not known",
            ),
            (
                r#"{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2]}]}"#,
                "shape [3]",
            ),
            (
                r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "UINT8", "data": [256]}]}"#,
                "not UINT8",
            ),
            (
                r#"{"inputs": [{"name": "x", "shape": [0], "datatype": "FP32", "data": []}, {"name": "x", "shape": [0], "datatype": "FP32", "data": []}]}"#,
                "twice",
            ),
        ] {
            let failure = request(text.as_bytes()).unwrap_err();
            assert_eq!(failure.exit, Exit::InvalidValue, "{text}");
            assert!(
                failure.message.contains(part),
                "{part}: {}",
                failure.message
            );
        }
    }
}
