//! From a sentence to the frame and back, stage by stage; then the same call by the other doors, and the floors, in turn.

use std::time::Instant;

use anyhow::{Context as _, Result};
use autoglm_edge::inference::runtime::Runtime;
use autoglm_edge::things::description::ThingId;
use autoglm_edge::understanding::{Call, Operation};
use autoglm_tests::bench::bundles::{Bundles, EMBEDDING, Tokens};
use autoglm_tests::bench::floor::{BrokerEcho, Embedder, LineEcho, SyncedFile};
use autoglm_tests::bench::statistics::Sample;
use autoglm_tests::bench::table::{Table, number, spread};
use autoglm_tests::edge_box::door::Said;
use autoglm_tests::edge_box::{EdgeBox, LAMP};
use serde_json::Value;

use crate::doors::Doors;

/// Sentences of one conversation: long enough that a session has a past, short enough that it is one.
const CONVERSATION: usize = 10;
/// Sentences that are said first and not counted.
const WARM_UP: usize = 5;
/// Bytes of a frame with a command, and of a record in the ledger; what is usual for these devices.
const FRAME_BYTES: usize = 64;
const RECORD_BYTES: usize = 300;

/// The stages in order, as the daemon names them; `noted` and `written` are of the first command.
const STAGES: [(&str, &str); 10] = [
    ("load", "session loaded"),
    ("queue", "queue"),
    ("encode", "encode"),
    ("infer", "infer"),
    ("decode", "decode"),
    ("noted", "noted in the ledger (durable)"),
    ("written", "to the wire"),
    ("devices", "link and device"),
    ("read_back", "outcome kept, value read back"),
    ("keep", "turns kept (durable)"),
];

/// What was measured of all sentences that became commands.
#[derive(Default)]
pub(crate) struct Commands {
    first_frame: Sample,
    first_frame_changing: Sample,
    first_frame_reading: Sample,
    stages: [Sample; STAGES.len()],
    total: Sample,
    words: Sample,
    d_bus: Sample,
    mqtt: Sample,
    mqtt_two: Sample,
    link: Sample,
    noted: Sample,
    infer: Sample,
    floors: Floors,
    others: Vec<String>,
    said: usize,
}

/// In the order of the sentences, so that ratios are of pairs.
#[derive(Default)]
struct Floors {
    line: Sample,
    embed: Sample,
    disk: Sample,
    ping: Sample,
    broker: Sample,
}

/// The barest ways.
struct Bare {
    line: LineEcho,
    embedder: Embedder,
    tokens: Tokens,
    disk: SyncedFile,
    broker: BrokerEcho,
}

impl Bare {
    async fn new(edge_box: &EdgeBox, bundles: &Bundles) -> Result<Self> {
        let runtime = Runtime::load(Some(&bundles.library()))?;
        let graph = bundles.bundle(EMBEDDING).join("model.onnx");
        Ok(Self {
            line: LineEcho::new()?,
            embedder: Embedder::new(runtime.environment(), &graph, 1)?,
            tokens: bundles.tokens(EMBEDDING)?,
            // On the same disk as the daemon's store.
            disk: SyncedFile::create(&edge_box.path("floor"), 1 << 20)?,
            broker: BrokerEcho::connect(edge_box.broker_port()).await?,
        })
    }
}

impl Floors {
    async fn measure(&mut self, bare: &mut Bare, doors: &Doors, text: &str) -> Result<()> {
        let begun = Instant::now();
        bare.line.round_trip(FRAME_BYTES)?;
        self.line.push_ms(begun.elapsed());
        let ids = bare.tokens.of_sentence(text)?;
        let begun = Instant::now();
        bare.embedder.embed(&ids)?;
        self.embed.push_ms(begun.elapsed());
        self.ping.push_ms(doors.ping().await?);
        let begun = Instant::now();
        bare.broker.round_trip(RECORD_BYTES).await?;
        self.broker.push_ms(begun.elapsed());
        Ok(())
    }

    /// Apart, because only commands that change something are noted.
    fn measure_disk(&mut self, bare: &mut Bare) -> Result<()> {
        let begun = Instant::now();
        bare.disk.write(&[b'x'; RECORD_BYTES])?;
        self.disk.push_ms(begun.elapsed());
        Ok(())
    }
}

/// Says all of them.
pub(crate) async fn measure(
    edge_box: &EdgeBox,
    bundles: &Bundles,
    doors: &mut Doors,
    sentences: &[String],
) -> Result<Commands> {
    let mut bare = Bare::new(edge_box, bundles).await?;
    for text in sentences.iter().take(WARM_UP) {
        doors.say("warm-up", text).await?;
        Floors::default().measure(&mut bare, doors, text).await?;
    }
    let mut commands = Commands::default();
    // A device takes one command at a time, but reads meanwhile.
    let beside = Call {
        thing: ThingId::new(LAMP.to_owned())?,
        operation: Operation::Read {
            property: "brightness".to_owned(),
        },
    };
    for (number, text) in sentences.iter().enumerate() {
        let session = format!("bench-{}", number / CONVERSATION);
        let (said, took) = doors.say(&session, text).await?;
        commands.said += 1;
        let executed: Vec<&Value> = said.executed().collect();
        let is_done = |one: &&Value| one["status"] == "SUCCEEDED";
        if executed.is_empty() || !executed.iter().all(is_done) {
            let answer = format!("{text:?}: {} {:?}", said.kind(), said.text());
            commands.others.push(answer);
            continue;
        }
        commands.add_stages(&said)?;
        // What is said as one sentence may be two commands; the other doors take one at a time.
        if let [only] = executed[..] {
            let call: Call = serde_json::from_value(only["call"].clone())?;
            commands.words.push_ms(took);
            commands.d_bus.push_ms(doors.invoke(&call).await?);
            commands.mqtt.push_ms(doors.publish(&[&call]).await?);
            commands
                .mqtt_two
                .push_ms(doors.publish(&[&call, &beside]).await?);
            let timings = &only["timings_us"];
            let link = us(timings, "answered")? - us(timings, "written")?;
            commands.link.push(link);
            if !matches!(call.operation, Operation::Read { .. }) {
                commands.noted.push(us(timings, "noted")?);
                commands.floors.measure_disk(&mut bare)?;
            }
            commands.infer.push(us(&said.end()["timings_us"], "infer")?);
            commands.floors.measure(&mut bare, doors, text).await?;
        }
    }
    Ok(commands)
}

/// One of the timings, in milliseconds.
pub(crate) fn us(timings: &Value, name: &str) -> Result<f64> {
    let micros = timings[name].as_f64();
    Ok(micros.with_context(|| format!("no {name:?} in {timings}"))? / 1e3)
}

impl Commands {
    fn add_stages(&mut self, said: &Said) -> Result<()> {
        let timings = &said.end()["timings_us"];
        let first = said.executed().next().context("a command")?;
        let (noted, written) = (
            us(&first["timings_us"], "noted")?,
            us(&first["timings_us"], "written")?,
        );
        let total = us(timings, "total")?;
        let mut rest = total;
        for ((name, _), sample) in STAGES.iter().zip(&mut self.stages) {
            let value = match *name {
                "noted" => noted,
                "written" => written - noted,
                "read_back" => continue,
                name => us(timings, name)?,
            };
            rest -= value;
            sample.push(value);
        }
        let read_back = STAGES.iter().position(|(name, _)| *name == "read_back");
        self.stages[read_back.context("a stage")?].push(rest);
        self.total.push(total);
        let first_frame = us(timings, "first_frame")?;
        self.first_frame.push(first_frame);
        let call: Call = serde_json::from_value(first["call"].clone())?;
        match call.operation {
            Operation::Read { .. } => self.first_frame_reading.push(first_frame),
            _ => self.first_frame_changing.push(first_frame),
        }
        Ok(())
    }

    pub(crate) fn print(&self) {
        let commands = self.total.len();
        println!("- {commands} of {} sentences became commands", self.said);
        for other in &self.others {
            println!("  - not: {other}");
        }
        let mut road = Table::new(&["ms", "p50", "p95", "max"]);
        for (name, sample) in [
            ("sentence to first frame on the wire", &self.first_frame),
            ("... commands that change", &self.first_frame_changing),
            ("... commands that read", &self.first_frame_reading),
            ("sentence to answer, all durable", &self.total),
        ] {
            road.row(name, spread(sample));
        }
        let mut stages = Table::new(&["stage, ms", "p50", "p95", "max", "share of all"]);
        for ((_, name), sample) in STAGES.iter().zip(&self.stages) {
            let share = format!("{:.1} %", 100.0 * sample.sum() / self.total.sum());
            let [p50, p95, max] = spread(sample);
            stages.row(name, [p50, p95, max, share]);
        }
        let mut doors = Table::new(&["same command, round trip, ms", "p50", "p95", "max"]);
        doors.row("words, with the value read back", spread(&self.words));
        doors.row("D-Bus", spread(&self.d_bus));
        doors.row("MQTT", spread(&self.mqtt));
        doors.row("MQTT, with a read at the same time", spread(&self.mqtt_two));

        let floors = &self.floors;
        let mut above = Table::new(&[
            "above the floor, ms",
            "ours p50",
            "p95",
            "floor p50",
            "p95",
            "ratio",
        ]);
        for (name, ours, floor) in [
            (
                "link and device over bytes echoed on a pty",
                &self.link,
                &floors.line,
            ),
            (
                "embedding over one bare run of the graph",
                &self.infer,
                &floors.embed,
            ),
            (
                "noted over write and sync of a file",
                &self.noted,
                &floors.disk,
            ),
            (
                "D-Bus command over a ping of the daemon",
                &self.d_bus,
                &floors.ping,
            ),
            (
                "MQTT command over a message to oneself",
                &self.mqtt,
                &floors.broker,
            ),
        ] {
            let cells = [
                ours.p50(),
                ours.p95(),
                floor.p50(),
                floor.p95(),
                ours.over(floor).p50(),
            ];
            above.row(name, cells.map(number));
        }
        for table in [road, stages, doors, above] {
            print!("\n{table}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn timings_are_milliseconds_and_a_missing_one_is_named() {
        assert_eq!(us(&json!({"total": 1500}), "total").unwrap(), 1.5);
        assert!(
            us(&json!({}), "total")
                .unwrap_err()
                .to_string()
                .contains("total")
        );
    }
}
