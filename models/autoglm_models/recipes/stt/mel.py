"""Sound to what the model hears: 80 bands on the mel scale, 100 times a second, as logarithms. The reference, in numpy.

As the model was trained (Radford et al. 2022, section 2.2; the filters are those of Slaney's Auditory Toolbox 1998, which librosa
has as its default): windows of 25 ms (Hann) every 10 ms, the sound mirrored at both ends, power, filters, log10, at most
8 below the loudest, and scaled to about -1..1. The graph's front end is held against this.
"""

import numpy as np

SAMPLE_RATE_HZ = 16_000
# All that the model hears at once: 30 s.
SAMPLES = 30 * SAMPLE_RATE_HZ
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160
BINS, BANDS = WINDOW_SAMPLES // 2 + 1, 80
LEAST_POWER = 1e-10
RANGE_LOG10 = 8.0
# Below 1000 Hz the scale is linear, 200/3 Hz a step; above it each step is a factor of 6.4 ** (1 / 27).
LINEAR_STEP_HZ, BREAK_HZ = 200.0 / 3.0, 1000.0
LOG_STEP = np.log(6.4) / 27.0


def filters() -> np.ndarray:
    """`[80, 201]`: triangles between neighbouring mel steps from 0 to 8000 Hz, each of the same area."""
    highest = BREAK_HZ / LINEAR_STEP_HZ + np.log(SAMPLE_RATE_HZ / 2 / BREAK_HZ) / LOG_STEP
    steps = np.linspace(0.0, highest, BANDS + 2)
    above = steps - BREAK_HZ / LINEAR_STEP_HZ
    corners = np.where(above < 0, steps * LINEAR_STEP_HZ, BREAK_HZ * np.exp(above * LOG_STEP))
    bins = np.linspace(0.0, SAMPLE_RATE_HZ / 2, BINS)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    area = 2.0 / (corners[2:] - corners[:-2])
    return (np.maximum(0.0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


def hann() -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """`[80, samples / 160]` f32."""
    padded = np.pad(samples.astype(np.float64), WINDOW_SAMPLES // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES][:-1]
    power = np.abs(np.fft.rfft(frames * hann())) ** 2
    logs = np.log10(np.maximum(filters() @ power.T, LEAST_POWER))
    return ((np.maximum(logs, logs.max() - RANGE_LOG10) + 4) / 4).astype(np.float32)
