//! A bad cable: spoils bytes by a seeded random generator.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// How a line spoils what crosses it.
#[derive(Debug)]
pub struct Noise {
    /// Probability that a byte is garbled, 0 to 1.
    garbled: f64,
    /// Probability that a byte vanishes, 0 to 1.
    lost: f64,
    random: StdRng,
}

impl Noise {
    /// Noise with its probabilities per byte and its seed.
    #[must_use]
    pub fn new(garbled: f64, lost: f64, seed: u64) -> Self {
        Self {
            garbled,
            lost,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// What comes out at the other end.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if self.garbled == 0.0 && self.lost == 0.0 {
            return;
        }
        let Self {
            garbled,
            lost,
            random,
        } = self;
        bytes.retain_mut(|byte| {
            if random.random_bool(*garbled) {
                *byte ^= random.random_range(1..=255u8);
            }
            !random.random_bool(*lost)
        });
    }
}
