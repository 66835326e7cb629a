//! The proof itself: the same inputs through the CPU provider and through the candidate, outputs compared, nodes counted, time taken.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use ort::session::Session;

use super::{
    super::{
        super::{
            arrays::{Array, Arrays},
            bundle::Bundle,
            runtime::Runtime,
            session,
        },
        builtin::{self, CacheValue},
        candidate::{CPU, Candidate},
        outcome::{Compiled, Difference, Measured},
        placement::Placement,
    },
    COMPILED, COMPILED_GRAPH, Line, Proof,
    child::Log,
    feed::Feed,
    profile,
};

/// Rounds of timing, each through both providers, and the time after which no other is begun.
const ROUNDS: usize = 9;
const ROUNDS_TIME_MAX: Duration = Duration::from_secs(10);

/// A kept graph may differ from the one it was made from by so much more than that did from the CPU's.
const KEPT_DIFFERENCE: f64 = 1e-3;

type Failed = Box<dyn Error>;

/// One session and what it was given and gave.
struct Run {
    session: Session,
    nodes: BTreeMap<String, u32>,
    steps: Vec<(Arrays, Arrays)>,
    open: Duration,
}

pub(super) fn prove(
    runtime: &Runtime,
    proof: &Proof,
    work: &Path,
    log: &mut Log,
) -> Result<(), Failed> {
    log.step("the bundle");
    let bundle = Bundle::open(&proof.bundle)?;
    let feed = Feed::of(&bundle)?;
    let graph = bundle.path(bundle.manifest().graph.file());
    let at = |candidate: &Candidate| Placement {
        candidate: candidate.clone(),
        options: Default::default(),
        lets_cpu_help: true,
        compiled: None,
    };
    let open = |placement: &Placement, graph: &Path, extra: &[(&str, &str)], profile: &str| {
        let begun = Instant::now();
        let mut builder = session::builder(runtime, proof.threads)?;
        for (key, value) in extra {
            builder = builder.with_config_entry(key, value)?;
        }
        if !profile.is_empty() {
            builder = builder.with_profiling(work.join(profile))?;
        }
        let session = placement
            .attach(builder, runtime.environment())?
            .commit_from_file(graph)?;
        Ok::<_, Failed>((session, begun.elapsed()))
    };

    log.step("opening the graph on the CPU");
    let (session, time) = open(&at(&Candidate::cpu()), &graph, &[], "cpu")?;
    log.step("the probe on the CPU");
    let mut cpu = run(session, time, |index, before| feed.step(index, before))?;
    let nodes_cpu: u32 = cpu.nodes.values().sum();

    let placement = Placement {
        options: proof.options.clone(),
        ..at(&proof.candidate)
    };
    log.step(&format!("opening the graph on {}", proof.candidate));
    let (session, time) = open(&placement, &graph, &[], "provider")?;
    log.step(&format!("the probe on {}", proof.candidate));
    let inputs: Vec<Arrays> = cpu.steps.iter().map(|(inputs, _)| inputs.clone()).collect();
    let again = |index: usize, _: &Arrays| inputs.get(index).cloned();
    let mut other = run(session, time, again)?;
    let difference = worst(&cpu.steps, &other.steps)?;
    let nodes_left = other.nodes.remove(CPU).unwrap_or(0);
    log.step(&format!("timing on {}", proof.candidate));
    let (cpu_time, provider_time) = time_both(&mut cpu, &mut other, &inputs)?;
    let mut measured = Measured {
        nodes_placed: other.nodes.values().sum(),
        nodes_left,
        nodes_cpu,
        difference,
        cpu_us: micros(cpu_time),
        provider_us: micros(provider_time),
        open_ms: micros(other.open) / 1000,
        compiled: Compiled::None,
    };
    log.write(&Line::Measured(Box::new(measured.clone())));
    if !proof.compile || measured.nodes_placed == 0 {
        return Ok(());
    }

    log.step("keeping the compiled graph");
    let dir = work.join(COMPILED);
    fs::create_dir(&dir)?;
    let kept = dir.join(COMPILED_GRAPH);
    let kept_text = kept.to_string_lossy().into_owned();
    let context = [
        ("ep.context_enable", "1"),
        ("ep.context_file_path", kept_text.as_str()),
        ("ep.context_embed_mode", "0"),
    ];
    let made = open(&placement, &graph, &context, "");
    measured.compiled = match made {
        Ok(_) if !kept.is_file() => Compiled::None,
        Err(error) => unusable("it was not made", error.as_ref()),
        Ok(_) => {
            log.step("opening the kept graph");
            let reopened = open(&placement, &kept, &[], "").and_then(|(session, time)| {
                let run = run(session, time, again)?;
                let difference = worst(&cpu.steps, &run.steps)?;
                Ok((difference, time))
            });
            match reopened {
                // A NaN is no good, so what is good is asked.
                Ok((kept, time)) if kept.scaled <= measured.difference.scaled + KEPT_DIFFERENCE => {
                    Compiled::Kept {
                        bytes: size(&dir),
                        open_ms: micros(time) / 1000,
                    }
                }
                Ok((kept, _)) => Compiled::Unusable {
                    message: format!(
                        "opened again, its output {:?} differs by {}",
                        kept.output, kept.scaled
                    ),
                },
                Err(error) => unusable("it could not be opened again", error.as_ref()),
            }
        }
    };
    if !matches!(measured.compiled, Compiled::Kept { .. }) {
        fs::remove_dir_all(&dir)?;
        fs::create_dir(&dir)?;
        if let Some(options) = own_cache(&proof.candidate, &dir) {
            log.step("the provider's own cache");
            let mut placement = placement.clone();
            placement.options.extend(options);
            open(&placement, &graph, &[], "")?;
            if size(&dir) > 0 {
                measured.compiled = Compiled::ByProvider { bytes: size(&dir) };
            }
        }
    }
    log.write(&Line::Measured(Box::new(measured)));
    Ok(())
}

fn unusable(what: &str, error: &(dyn Error + 'static)) -> Compiled {
    Compiled::Unusable {
        message: format!("{what}: {}", super::super::super::error::chain(error)),
    }
}

/// The options that make a built-in provider keep what it compiles in `dir`, if it can.
pub(in super::super) fn own_cache(
    candidate: &Candidate,
    dir: &Path,
) -> Option<BTreeMap<String, String>> {
    let options = builtin::find(&candidate.provider)?.cache_options;
    let value = |kind: CacheValue| match kind {
        CacheValue::Directory => dir.to_string_lossy().into_owned(),
        CacheValue::One => "1".to_owned(),
    };
    let options: BTreeMap<_, _> = options
        .iter()
        .map(|(key, kind)| ((*key).to_owned(), value(*kind)))
        .collect();
    (!options.is_empty()).then_some(options)
}

/// Runs all steps once under ONNX Runtime's profiler, if the session has it.
fn run(
    mut session: Session,
    open: Duration,
    inputs: impl Fn(usize, &Arrays) -> Option<Arrays>,
) -> Result<Run, Failed> {
    let mut steps: Vec<(Arrays, Arrays)> = Vec::new();
    let nothing = Arrays::new();
    while let Some(inputs) = inputs(
        steps.len(),
        steps.last().map_or(&nothing, |(_, outputs)| outputs),
    ) {
        let outputs = once(&mut session, &inputs)?;
        steps.push((inputs, outputs));
    }
    if steps.is_empty() {
        return Err("the bundle's probe holds nothing to run".into());
    }
    let profile = session.end_profiling().ok().filter(|path| !path.is_empty());
    let nodes = match profile {
        Some(path) => profile::nodes(&fs::read(path)?)?,
        None => BTreeMap::new(),
    };
    Ok(Run {
        session,
        nodes,
        steps,
        open,
    })
}

fn once(session: &mut Session, inputs: &Arrays) -> Result<Arrays, Failed> {
    let mut values = Vec::with_capacity(inputs.len());
    for (name, array) in inputs {
        values.push((name.as_str(), array.value()?));
    }
    let outputs = session.run(values)?;
    let mut all = Arrays::new();
    for (name, value) in outputs.iter() {
        if let Some(array) = Array::of(&value)? {
            all.insert(name.to_owned(), array);
        }
    }
    if all.is_empty() {
        return Err("no output of the graph is of a type that can be compared".into());
    }
    Ok(all)
}

/// The output that differs most from the CPU provider's.
fn worst(cpu: &[(Arrays, Arrays)], other: &[(Arrays, Arrays)]) -> Result<Difference, Failed> {
    let mut worst: Option<Difference> = None;
    for ((_, expected), (_, actual)) in cpu.iter().zip(other) {
        for (name, expected) in expected {
            let actual = actual.get(name).filter(|it| it.shape == expected.shape);
            let actual = actual.ok_or_else(|| {
                format!("its output {name:?} is absent or has another shape than the CPU's")
            })?;
            let found = differ(name, &expected.numbers(), &actual.numbers());
            let is_worse = worst
                .as_ref()
                .is_none_or(|worst| found.scaled.is_nan() || found.scaled > worst.scaled);
            if is_worse {
                worst = Some(found);
            }
        }
    }
    worst.ok_or_else(|| "there is nothing to compare".into())
}

fn differ(name: &str, expected: &[f64], actual: &[f64]) -> Difference {
    let scale = expected.iter().fold(1.0f64, |scale, value| {
        scale.max(if value.is_finite() { value.abs() } else { 0.0 })
    });
    let largest = expected
        .iter()
        .zip(actual)
        .map(|(expected, actual)| {
            // Equal infinities, and a NaN where the CPU has one, are the same answer.
            let is_same = expected == actual || (expected.is_nan() && actual.is_nan());
            if is_same {
                0.0
            } else {
                (expected - actual).abs()
            }
        })
        // Not `max`, which drops a NaN.
        .fold(0.0, |largest: f64, next| {
            if largest.is_nan() || next <= largest {
                largest
            } else {
                next
            }
        });
    Difference {
        output: name.to_owned(),
        largest,
        scaled: largest / scale,
    }
}

/// Medians over rounds in which both run, so that what else the box does meets both alike.
fn time_both(
    cpu: &mut Run,
    other: &mut Run,
    inputs: &[Arrays],
) -> Result<(Duration, Duration), Failed> {
    let mut times = (Vec::new(), Vec::new());
    let begun = Instant::now();
    while times.0.len() < ROUNDS && (times.0.is_empty() || begun.elapsed() < ROUNDS_TIME_MAX) {
        times.0.push(time(&mut cpu.session, inputs)?);
        times.1.push(time(&mut other.session, inputs)?);
    }
    times.0.sort();
    times.1.sort();
    let middle = times.0.len() / 2;
    Ok((times.0[middle], times.1[middle]))
}

fn time(session: &mut Session, steps: &[Arrays]) -> Result<Duration, Failed> {
    let mut total = Duration::ZERO;
    for inputs in steps {
        let mut values = Vec::with_capacity(inputs.len());
        for (name, array) in inputs {
            values.push((name.as_str(), array.value()?));
        }
        let begun = Instant::now();
        drop(session.run(values)?);
        total += begun.elapsed();
    }
    Ok(total)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Bytes of the files in a directory.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|facts| facts.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_is_the_worst_difference_unless_the_cpu_has_it_too() {
        assert!(
            differ("y", &[1.0, 2.0, 3.0], &[1.0, f64::NAN, 4.0])
                .largest
                .is_nan()
        );
        assert_eq!(differ("y", &[f64::NAN], &[f64::NAN]).largest, 0.0);
        assert!(differ("y", &[f64::NAN], &[1.0]).largest.is_nan());
        assert_eq!(differ("y", &[f64::INFINITY], &[f64::INFINITY]).largest, 0.0);
        assert_eq!(differ("y", &[f64::INFINITY], &[1.0]).largest, f64::INFINITY);
        assert_eq!(differ("y", &[20.0, 0.0], &[20.0, 1.0]).scaled, 0.05);
        assert_eq!(
            differ("y", &[0.001], &[0.002]).scaled,
            0.001,
            "below 1 the difference itself counts"
        );
    }
}
