"""Sound to judge a voice activity detector by: a sung phrase made from pulses and resonances, noise, and quiet.

Klatt's cascade of resonators in its barest form (D. Klatt, JASA 67, 1980): a buzz at the pitch of a voice through
the first four formants of changing vowels. No recording is needed, and every machine gets the same samples.
"""

import numpy as np

SAMPLE_RATE_HZ = 16_000
SEED = 7
# Formant frequencies of adult vowels in Hz, after Peterson and Barney 1952, with a fourth at 3500.
VOWELS = {
    "a": (730, 1090, 2440, 3500),
    "i": (270, 2290, 3010, 3500),
    "u": (300, 870, 2240, 3500),
    "e": (530, 1840, 2480, 3500),
}
FORMANT_WIDTHS_HZ = (60, 90, 150, 200)


def scene() -> np.ndarray:
    """Quiet, a phrase, hiss, a second phrase over hiss, quiet: f32 samples in -1..1, some six seconds."""
    random = np.random.Generator(np.random.PCG64(SEED))

    def hiss(seconds: float, level: float) -> np.ndarray:
        return level * random.standard_normal(int(seconds * SAMPLE_RATE_HZ))

    high, low = phrase("aieuae", 190.0), phrase("euaiai", 110.0)
    parts = [hiss(0.8, 1e-4), high + hiss(len(high) / SAMPLE_RATE_HZ, 1e-3)[: len(high)], hiss(1.0, 0.02)]
    parts += [low + hiss(len(low) / SAMPLE_RATE_HZ, 0.005)[: len(low)], hiss(0.8, 1e-4)]
    return np.concatenate(parts).astype(np.float32)


def phrase(vowels: str, pitch_hz: float) -> np.ndarray:
    """One syllable of a fifth of a second per vowel, rising and falling in loudness, with a falling pitch."""
    syllables = []
    for index, vowel in enumerate(vowels):
        count = int(0.22 * SAMPLE_RATE_HZ)
        time = np.arange(count) / SAMPLE_RATE_HZ
        pitch = pitch_hz * (1 - 0.03 * index) * (1 + 0.06 * np.sin(2 * np.pi * 4.5 * time))
        phase = np.cumsum(pitch) / SAMPLE_RATE_HZ
        pulses = np.diff(np.floor(phase), prepend=0.0)
        for frequency, width in zip(VOWELS[vowel], FORMANT_WIDTHS_HZ, strict=True):
            pulses = _resonate(pulses, frequency, width)
        syllables.append(pulses / np.abs(pulses).max() * np.sin(np.pi * time * SAMPLE_RATE_HZ / count) ** 0.5)
    return 0.5 * np.concatenate(syllables)


def _resonate(signal: np.ndarray, frequency_hz: float, width_hz: float) -> np.ndarray:
    radius = np.exp(-np.pi * width_hz / SAMPLE_RATE_HZ)
    first = 2 * radius * np.cos(2 * np.pi * frequency_hz / SAMPLE_RATE_HZ)
    second = -(radius**2)
    out = np.empty_like(signal)
    before = before_that = 0.0
    for index, value in enumerate(signal):
        now = (1 - first - second) * value + first * before + second * before_that
        out[index] = now
        before, before_that = now, before
    return out
