"""The voice activity bundle: Silero VAD's variant with fixed shapes for 16 kHz, as published.

Of the package's six graphs this is the plainest: no branch on the sample rate, every shape known, the recurrent part
one LSTM node. It is judged against `silero_vad.onnx`, which the package itself runs by default.
"""

import json
from pathlib import Path

import numpy as np
import onnx

from ...progress import Reporter
from ..limits import AtLeast, AtMost, enforce
from ..onnx_session import open_session
from ..sources import Sources
from ..tensors import describe
from .voice import SAMPLE_RATE_HZ, scene

GRAPH = "model.onnx"
PACKAGE = "silero-vad"
PUBLISHED = "silero_vad/data/"
CHUNK_SAMPLES = 512
CONTEXT_SAMPLES = 64
STATE_SHAPE = [2, 1, 128]
# Both carry the same weights in 32-bit floats: only the order of additions may differ. That the scene makes the
# detector say both yes and no is checked too, or agreement would mean nothing.
LIMITS = [AtMost("difference_max", 0.001), AtLeast("probability_max", 0.9), AtMost("probability_min", 0.1)]
# Chunks of the scene that the probe repeats: across the beginning of the first phrase.
PROBE_CHUNKS = slice(24, 30)
PROBE_TOLERANCE = 0.01


def build(sources: Sources, out: Path, reporter: Reporter) -> dict:
    graph = sources.copy(PACKAGE, PUBLISHED + "silero_vad_openvino_16k.onnx", out / GRAPH)
    original = sources.copy(PACKAGE, PUBLISHED + "silero_vad.onnx", sources.scratch / "original.onnx")
    chunks = chunked(scene())
    with reporter.stage("comparing with the package's default graph"):
        ours = probabilities(graph, chunks)
        theirs = probabilities(original, chunks, sr=np.array(SAMPLE_RATE_HZ, np.int64))
        measures = {
            "chunks": len(chunks),
            "difference_max": float(np.abs(ours - theirs).max()),
            "probability_max": float(ours.max()),
            "probability_min": float(ours.min()),
        }
        parity = enforce(measures, LIMITS, "silero_vad.onnx of the same package", reporter)
    _write_probe(graph, chunks[PROBE_CHUNKS], out)
    model = onnx.load(graph).graph
    return {
        "head": {
            "task": "vad",
            "title": "Silero voice activity detector, 16 kHz",
            "licence": "MIT",
            "precision": "f32",
        },
        "graph": {
            "file": GRAPH,
            "layout": "silero-v5",
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "chunk_samples": CHUNK_SAMPLES,
            "context_samples": CONTEXT_SAMPLES,
            "state_shape": STATE_SHAPE,
            "inputs": describe(model.input),
            "outputs": describe(model.output),
        },
        "probe": {"file": "probe.json"},
        "parity": parity,
    }


def chunked(samples: np.ndarray) -> np.ndarray:
    """`[chunks, 512]`; what does not fill a chunk is dropped."""
    return samples[: len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES].reshape(-1, CHUNK_SAMPLES)


def probabilities(graph: Path, chunks: np.ndarray, **constants: np.ndarray) -> np.ndarray:
    """Speech probability of each chunk. A chunk is fed behind the last 64 samples of the one before; state starts at zero."""
    session = open_session(graph)
    state = np.zeros(STATE_SHAPE, np.float32)
    context = np.zeros(CONTEXT_SAMPLES, np.float32)
    found = []
    for chunk in chunks:
        feed = {"input": np.concatenate([context, chunk])[None], "state": state, **constants}
        probability, state = session.run(["output", "stateN"], feed)
        found.append(float(probability.ravel()[0]))
        context = chunk[-CONTEXT_SAMPLES:]
    return np.array(found)


def _write_probe(graph: Path, chunks: np.ndarray, out: Path) -> None:
    """Consecutive chunks from a fresh state, so that the state's way through the graph is proven with them."""
    samples = [round(float(sample), 6) for sample in chunks.ravel()]
    repeated = probabilities(graph, np.array(samples, np.float32).reshape(-1, CHUNK_SAMPLES))
    probe = {"samples": samples, "probabilities": [round(float(p), 5) for p in repeated], "tolerance": PROBE_TOLERANCE}
    (out / "probe.json").write_text(json.dumps(probe))
