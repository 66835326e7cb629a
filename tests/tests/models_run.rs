//! `autoglmctl models run`: tensors through the bus to a model in the real daemon, and its answer back.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use autoglm_tests::edge_box::EdgeBox;
use autoglm_tests::process::program;
use serde_json::{Value, json};

/// A box whose daemon serves the small graph `rows`: for each of `n` rows of `t` triples, `y` is the sum of a triple where `mask` has
/// true, and `count` how many those are.
async fn edge_box() -> EdgeBox {
    let mut edge_box = EdgeBox::new().unwrap();
    edge_box.start_bus().unwrap();
    edge_box.write_config("").unwrap();
    let models = edge_box.cache().join("models");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/tests/fixtures");
    edge_box
        .edit_config(|text| {
            text.replace(
                &format!("model_dirs = [{models:?}]"),
                &format!("model_dirs = [{models:?}, {fixtures:?}]\ngeneric = [\"rows\"]"),
            )
        })
        .unwrap();
    edge_box.start_daemon().unwrap();
    let is_ready = |status: &Value| {
        let models = status["models"].as_array().into_iter().flatten();
        models
            .filter(|model| model["name"] == "rows")
            .any(|model| model["state"] == "ready")
    };
    edge_box
        .wait_for_status("rows to be ready", is_ready)
        .await
        .unwrap();
    edge_box
}

fn run(edge_box: &EdgeBox, arguments: &[&str], request: &str) -> Output {
    let mut process = Command::new(program("autoglmctl").unwrap())
        .args(["--bus", &edge_box.bus_address(), "models", "run"])
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    // One that does not read it to its end is judged by its own words.
    let _ = input.write_all(request.as_bytes());
    drop(input);
    process.wait_with_output().unwrap()
}

fn request(rows: usize) -> Value {
    let x: Vec<_> = (0..rows)
        .map(|row| json!([[row, 1, 2], [3, 4, 0.5]]))
        .collect();
    let mask: Vec<_> = (0..rows).map(|row| json!([true, row % 2 == 0])).collect();
    json!({"inputs": [
        {"name": "x", "shape": [rows, 2, 3], "datatype": "FP32", "data": x},
        {"name": "mask", "shape": [rows, 2], "datatype": "BOOL", "data": mask},
    ]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_plain_tensors_is_run_by_its_name_and_wrong_requests_are_told_the_tensor() {
    let edge_box = edge_box().await;
    let output = run(&edge_box, &["rows"], &request(2).to_string());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        answer,
        json!({"model_name": "rows", "outputs": [
            {"name": "count", "shape": [2], "datatype": "INT64", "data": [2, 1]},
            {"name": "y", "shape": [2, 2], "datatype": "FP32", "data": [3.0, 7.5, 4.0, 0.0]},
        ]})
    );

    let mut renamed = request(1);
    renamed["inputs"][0]["name"] = json!("z");
    let mut typed = request(1);
    typed["inputs"][0]["datatype"] = json!("FP64");
    for (arguments, text, code, part) in [
        (&["rows"][..], renamed.to_string(), 2, "\"z\""),
        (&["rows"], typed.to_string(), 2, "\"x\""),
        (&["rows"], request(100).to_string(), 2, "n from 1 to"),
        (&["columns"], request(1).to_string(), 4, "\"columns\""),
        (&["rows"], "nonsense".to_owned(), 5, "inputs"),
        (&["rows", "/nonexistent"], String::new(), 2, "/nonexistent"),
    ] {
        let output = run(&edge_box, arguments, &text);
        let said = String::from_utf8_lossy(&output.stderr);
        eprintln!(
            "{arguments:?} {text:.60}: {:?} {said}",
            output.status.code()
        );
        assert!(output.stdout.is_empty());
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(part), "{part}: {said}");
    }
}
