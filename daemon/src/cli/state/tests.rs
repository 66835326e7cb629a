use serde_json::{Value as Json, json};

use super::links_text;
use super::report::{outbox_text, status_text, strain_text};
use super::wait::models_ready;
use crate::cli::exit::Exit;

fn models() -> Vec<Json> {
    vec![
        json!({"name": "minilm", "task": "embedding", "state": "ready", "detail": "on the CPU"}),
        json!({"name": "smol", "task": "chat", "state": "loading", "detail": "hashing"}),
    ]
}

#[test]
fn all_models_must_be_ready_unless_some_are_named() {
    let failure = models_ready(&models(), &[]).unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert_eq!(failure.message, "the model smol is loading: hashing");
    assert!(models_ready(&models(), &["embedding".to_owned()]).is_ok());
    assert!(models_ready(&models(), &["smol".to_owned()]).is_err());
    assert_eq!(
        models_ready(&models(), &["smoll".to_owned()])
            .unwrap_err()
            .exit,
        Exit::Unknown
    );
    assert!(models_ready(&[], &[]).is_ok());
}

#[test]
fn outbox_says_what_waits_and_what_was_lost() {
    let lane = |waiting: u64, dropped: u64, refused: u64| json!({"waiting": waiting, "bytes": 600, "dropped": dropped, "refused": refused, "expired": 0, "undeliverable": 0});
    let text = |value: Json| outbox_text(value.as_object().unwrap());
    let quiet = json!({"results": lane(0, 0, 0), "events": lane(0, 0, 0)});
    assert_eq!(text(quiet), "empty");
    let busy = json!({"events": lane(3, 0, 2), "telemetry": lane(4, 1, 0)});
    assert_eq!(
        text(busy),
        "3 events, 4 telemetry waiting (2 KiB); since the start 2 events refused, 1 telemetry dropped"
    );
}

#[test]
fn links_show_who_carries_how_well_and_how_privately() {
    let link = |link: Json| link.as_object().unwrap().clone();
    let links = [
        link(json!({
            "name": "desk-mqtt", "address": "mqtt://b:1883/desk", "state": "standby", "detail": "", "security": "private",
            "rtt_us": 0, "loss": -1.0, "bytes_sent": 0, "bytes_received": 0,
        })),
        link(json!({
            "name": "desk-serial", "address": "serial:///dev/a?baud=9600", "state": "connected", "detail": "",
            "security": "private", "rtt_us": 21_500, "loss": 0.0125, "bytes_sent": 123, "bytes_received": 1_234_567,
        })),
    ];
    let text = anstream::adapter::strip_str(&links_text(&links, None)).to_string();
    let row = |line: usize| -> Vec<&str> {
        let line = text.lines().nth(line).unwrap();
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect()
    };
    assert_eq!(row(1)[2..], ["standby", "private", "0 B", "0 B"], "{text}");
    assert_eq!(row(2)[2..4], ["connected", "private"], "{text}");
    assert_eq!(row(2)[5..], ["1.2 %", "123 B", "1205 KiB"], "{text}");
}

#[test]
fn strain_is_told_with_its_reason_and_what_is_done() {
    let adapt = json!({
        "enabled": true, "level": "strained", "reason": "cpu pressure 81 % over 10 s", "changes": 3, "chat_threads": 1,
        "chat_instead": "tiny", "background_rests": true, "threads_asked": 8, "threads_lent": 2,
        "inputs": ["cpu pressure 81 % over 10 s", "memory pressure 0 % over 10 s"],
        "absent": [{"what": "temperature", "why": "no zones"}],
    });
    let expected = "\
threads  8 asked for each model, the machine lends 2
strain   strained: cpu pressure 81 % over 10 s; chat on 1 thread, by tiny, background work rests; 3 changes
         seen: cpu pressure 81 % over 10 s; memory pressure 0 % over 10 s
         not to be seen here: temperature (--json says why)
";
    assert_eq!(strain_text(&adapt), expected);
    let calm = json!({"enabled": true, "level": "normal", "reason": "", "changes": 0, "chat_threads": 2,
            "threads_asked": null, "threads_lent": 4, "inputs": [], "absent": []});
    assert_eq!(strain_text(&calm), "strain   normal\n");
    assert_eq!(strain_text(&json!({"enabled": false})), "");
}

#[test]
fn status_fits_one_screen_and_names_causes() {
    let status = json!({
        "version": "0.1.0", "box": "kitchen", "runtime": "not loaded",
        "store": {"state": "unavailable", "detail": "disk full"},
        "fleet": {"state": "off"},
        "things": {"known": 2, "online": 1},
        "models": models(),
        "links": {"bench": {"address": "serial:/dev/ttyACM0", "state": "connected", "detail": ""}},
    });
    let text = anstream::adapter::strip_str(&status_text(&status, None)).to_string();
    let expected = "\
autoglm-edged 0.1.0 on kitchen
store    unavailable: disk full
runtime  not loaded
fleet    off
things   2 known, 1 online

MODEL   TASK       STATE    DETAIL
minilm  embedding  ready    on the CPU
smol    chat       loading  hashing

LINK   ADDRESS              STATE      DETAIL
bench  serial:/dev/ttyACM0  connected
";
    assert_eq!(text, expected);
}
