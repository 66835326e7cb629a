//! Command sentences for the lamp and the thermometer, in the words of many people: patterns filled with values, and
//! the labelled ones of the tuning part that are about these two.

use anyhow::Result;
use autoglm_tests::sentences::{Part, sentences};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

const LEVELS: [&str; 8] = [
    "set the desk lamp to {} percent",
    "dim the lamp to {}%",
    "desk lamp {} percent please",
    "could you please set the lamp to {} percent",
    "put the desk lamp at {}%",
    "turn the desk lamp to {} percent",
    "I want the lamp at {} percent",
    "lamp brightness {}",
];
const SWITCHES: [&str; 8] = [
    "turn {} the desk lamp",
    "switch {} the lamp please",
    "lamp {}",
    "turn the lamp {}",
    "can you switch the desk lamp {}?",
    "please turn {} the lamp",
    "switch the desk lamp {}",
    "desk lamp {}",
];
const SPEEDS: [&str; 6] = [
    "set the fan to {}",
    "fan speed {}",
    "put the fan on {}",
    "set the fan speed to {} please",
    "could you set the fan to {}",
    "switch the fan to {}",
];
const READS: [&str; 8] = [
    "what is the temperature?",
    "how humid is the air",
    "what's the humidity",
    "tell me the temperature",
    "how warm is it",
    "is it humid?",
    "what's the air temperature in the study?",
    "how bright is the desk lamp",
];

/// So many sentences in random order; each kind has its share, and some come again.
pub(crate) fn sample(count: usize, seed: u64) -> Result<Vec<String>> {
    let mut random = StdRng::seed_from_u64(seed);
    let labelled: Vec<String> = sentences(Part::Tuning)?
        .into_iter()
        .filter(|one| one.scene == "bench" && one.before.is_empty() && one.accept.is_empty())
        .map(|one| one.say)
        .collect();
    anyhow::ensure!(!labelled.is_empty(), "the scene has no plain sentences");
    let mut said = Vec::with_capacity(count);
    for number in 0..count {
        let (patterns, value): (&[&str], String) = match number % 8 {
            0..3 => (&LEVELS, random.random_range(1..=100).to_string()),
            3 => (&SWITCHES, pick(&["on", "off"], &mut random)),
            4 => (
                &SPEEDS,
                pick(&["off", "low", "medium", "high"], &mut random),
            ),
            5 | 6 => (&READS, String::new()),
            _ => {
                said.extend(labelled.choose(&mut random).cloned());
                continue;
            }
        };
        said.push(pick(patterns, &mut random).replace("{}", &value));
    }
    said.shuffle(&mut random);
    Ok(said)
}

fn pick(choices: &[&str], random: &mut StdRng) -> String {
    choices
        .choose(random)
        .copied()
        .unwrap_or_default()
        .to_owned()
}
