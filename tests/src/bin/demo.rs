//! `make demo`: a scripted conversation with the real daemon and simulated devices, each step checked on the device itself.
//!
//! It exits non-zero unless every device ended in the asked state. On a terminal the box is then handed to whoever sits there.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use autoglm_tests::edge_box::door::Said;
use autoglm_tests::edge_box::{EdgeBox, LAMP};
use autoglm_tests::fleet::Operator;
use autoglm_tests::process::program;
use serde_json::{Value, json};

const DIM: Style = AnsiColor::BrightBlack.on_default();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const SAID: Style = Style::new().bold();

/// What a property must be after a step.
enum Want {
    Is(Value),
    Above(f64),
}

/// What kind of answer is wanted.
#[derive(PartialEq)]
enum Kind {
    Command,
    Refusal,
    Conversation,
    /// Anything that does nothing.
    Untouched,
}

struct Step {
    say: &'static str,
    kind: Kind,
    wanted: Vec<(&'static str, &'static str, Want)>,
}

fn step(say: &'static str, kind: Kind, wanted: Vec<(&'static str, &'static str, Want)>) -> Step {
    Step { say, kind, wanted }
}

fn is(
    device: &'static str,
    property: &'static str,
    value: impl Into<Value>,
) -> (&'static str, &'static str, Want) {
    (device, property, Want::Is(value.into()))
}

fn script() -> Vec<Step> {
    use Kind::{Command, Conversation, Refusal, Untouched};
    vec![
        step(
            "turn on the desk lamp",
            Command,
            vec![is("lamp", "on", true)],
        ),
        step(
            "set it to 40 percent",
            Command,
            vec![is("lamp", "brightness", 40)],
        ),
        step(
            "and make it a bit brighter",
            Command,
            vec![("lamp", "brightness", Want::Above(40.0))],
        ),
        step("What is the capital of France?", Conversation, vec![]),
        step(
            "set the fan to high",
            Command,
            vec![is("thermometer", "fan_speed", "high")],
        ),
        step("what is the temperature?", Command, vec![]),
        step(
            "dim the desk lamp to 15 percent and set the fan to low",
            Command,
            vec![
                is("lamp", "brightness", 15),
                is("thermometer", "fan_speed", "low"),
            ],
        ),
        step(
            "set the desk lamp to 400 percent",
            Refusal,
            vec![is("lamp", "brightness", 15)],
        ),
        step(
            "Why do people like warm light in the evening?",
            Conversation,
            vec![],
        ),
        step(
            "could you switch off the desk lamp please",
            Command,
            vec![is("lamp", "on", false)],
        ),
        step(
            "don't turn on the desk lamp",
            Untouched,
            vec![is("lamp", "on", false)],
        ),
        step(
            "is the desk lamp on?",
            Command,
            vec![is("lamp", "on", false)],
        ),
        step(
            "stop the fan",
            Command,
            vec![is("thermometer", "fan_speed", "off")],
        ),
        step(
            "desk lamp to half",
            Command,
            vec![is("lamp", "brightness", 50)],
        ),
        step(
            "Thank you! Tell me something nice about lamps.",
            Conversation,
            vec![],
        ),
    ]
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            anstream::println!("{BAD}{wrong} steps went wrong.{BAD:#}");
            ExitCode::FAILURE
        }
        Err(error) => {
            anstream::eprintln!("{BAD}demo: {error:#}{BAD:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<usize> {
    anstream::println!(
        "{DIM}Starting a private message bus, an MQTT broker, a lamp, a thermometer with a fan, and the daemon …{DIM:#}"
    );
    let began = Instant::now();
    let edge_box = EdgeBox::running().await?;
    anstream::println!(
        "{DIM}… all there after {} ms: serial lines {} and {}{DIM:#}\n",
        began.elapsed().as_millis(),
        edge_box.path("lamp").display(),
        edge_box.path("thermometer").display(),
    );
    let mut wrong = 0;
    for step in script() {
        wrong += usize::from(!converse(&edge_box, &step).await?);
    }
    anstream::println!("{DIM}The same lamp by the two other doors:{DIM:#}\n");
    wrong += usize::from(!by_d_bus(&edge_box).await?);
    wrong += usize::from(!by_mqtt(&edge_box).await?);

    anstream::println!("{SAID}At the end the devices themselves say:{SAID:#}");
    for device in ["lamp", "thermometer"] {
        anstream::println!("  {device:12} {}", edge_box.device(device)?);
    }
    if wrong == 0 && std::io::stdin().is_terminal() {
        hand_over(&edge_box)?;
    }
    Ok(wrong)
}

/// One step: says it, shows what happened, checks the devices.
async fn converse(edge_box: &EdgeBox, step: &Step) -> anyhow::Result<bool> {
    anstream::println!("{SAID}you{SAID:#}    {}", step.say);
    let before = edge_box.device("lamp")?["executed"].clone();
    let said = edge_box.say("demo", step.say).await?;
    for event in said.executed() {
        let operation = &event["call"]["operation"];
        let timings = &event["timings_us"];
        anstream::println!(
            "{DIM}call{DIM:#}   {} {}   {DIM}{}, device answered after {}{DIM:#}",
            event["call"]["thing"].as_str().unwrap_or(""),
            operation,
            event["status"].as_str().unwrap_or(""),
            milliseconds(&timings["answered"]),
        );
    }
    anstream::println!("{GOOD}box{GOOD:#}    {}", said.text());
    anstream::println!("{DIM}       {}{DIM:#}", latency(&said));
    let kind_fits = match step.kind {
        Kind::Command => said.kind() == "command",
        Kind::Refusal => said.kind() == "refusal",
        Kind::Conversation => said.kind() == "conversation" && !said.text().trim().is_empty(),
        Kind::Untouched => {
            said.executed().count() == 0 && edge_box.device("lamp")?["executed"] == before
        }
    };
    let mut good = kind_fits;
    if !kind_fits {
        anstream::println!("{BAD}wrong{BAD:#}  this was a {}", said.kind());
    }
    for (device, property, want) in &step.wanted {
        good &= check(&edge_box.device(device)?, device, property, want);
    }
    anstream::println!();
    Ok(good)
}

fn check(state: &Value, device: &str, property: &str, want: &Want) -> bool {
    let seen = &state[property];
    let (good, wanted) = match want {
        Want::Is(value) => (seen == value, value.to_string()),
        Want::Above(limit) => (
            seen.as_f64().is_some_and(|seen| seen > *limit),
            format!("above {limit}"),
        ),
    };
    if good {
        anstream::println!(
            "{DIM}device{DIM:#} {device} {property} = {seen} {GOOD}as asked{GOOD:#}"
        );
    } else {
        anstream::println!("{BAD}wrong{BAD:#}  {device} {property} = {seen}, wanted {wanted}");
    }
    good
}

fn milliseconds(micros: &Value) -> String {
    micros.as_f64().map_or_else(
        || "?".to_owned(),
        |micros| format!("{:.1} ms", micros / 1000.0),
    )
}

fn latency(said: &Said) -> String {
    let timings = &said.end()["timings_us"];
    let mut parts = Vec::new();
    if timings["first_frame"].is_number() {
        parts.push(format!(
            "first frame on the wire after {}",
            milliseconds(&timings["first_frame"])
        ));
    }
    if timings["first_text"].is_number() {
        parts.push(format!(
            "first word after {}",
            milliseconds(&timings["first_text"])
        ));
    }
    parts.push(format!(
        "durable and done after {}",
        milliseconds(&timings["total"])
    ));
    parts.join(", ")
}

async fn by_d_bus(edge_box: &EdgeBox) -> anyhow::Result<bool> {
    anstream::println!("{SAID}D-Bus{SAID:#}  Invoke {LAMP} set_brightness level=70");
    let began = Instant::now();
    let result = edge_box
        .invoke(LAMP, "set_brightness", Some(&json!({"level": 70})))
        .await?;
    anstream::println!(
        "{GOOD}box{GOOD:#}    {result} {DIM}after {:.1} ms{DIM:#}",
        ms(began.elapsed())
    );
    let good = check(
        &edge_box.device("lamp")?,
        "lamp",
        "brightness",
        &Want::Is(json!(70)),
    );
    anstream::println!();
    Ok(good)
}

async fn by_mqtt(edge_box: &EdgeBox) -> anyhow::Result<bool> {
    let command = json!({"thing": LAMP, "action": "set_brightness", "input": {"level": 30}});
    anstream::println!("{SAID}MQTT{SAID:#}   autoglm/test-box/command {command}");
    let mut operator = Operator::connect(edge_box.broker_port(), "test-box").await?;
    let began = Instant::now();
    let reply = operator
        .command("demo-1", command.to_string().as_bytes())
        .await?;
    anstream::println!(
        "{GOOD}box{GOOD:#}    {reply} {DIM}after {:.1} ms{DIM:#}",
        ms(began.elapsed())
    );
    let good = check(
        &edge_box.device("lamp")?,
        "lamp",
        "brightness",
        &Want::Is(json!(30)),
    );
    anstream::println!();
    Ok(good)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Gives the running box to the person at the terminal, until they leave.
fn hand_over(edge_box: &EdgeBox) -> anyhow::Result<()> {
    anstream::println!("\n{SAID}Now it is yours.{SAID:#} Say something to the box; Ctrl-D leaves.");
    std::io::stdout().flush()?;
    let environment = HashMap::from([
        ("AUTOGLM_BUS", edge_box.bus_address()),
        ("AUTOGLM_SESSION", "demo".to_owned()),
    ]);
    Command::new(program("autoglmctl")?)
        .arg("chat")
        .envs(environment)
        .status()?;
    Ok(())
}
