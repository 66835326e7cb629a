"""The chat model in the layout that optimum and transformers.js export, as people download it: for tests and as a peer's model.

The same weights as the default chat bundle, so that the layouts can be compared with one another. Not installed by default and
not shipped. Reading order: layout (inputs and outputs), then attention (the two ways in which such files compute it).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import tokenizers

from ...progress import Reporter
from ..chat import GGUF, PACKAGE, PROBE_TEXT, PROBE_TOP, TEMPLATE, TOKENIZER
from ..chat.gguf_weights import GgufWeights
from ..chat.graph_writer import GraphWriter
from ..chat.linear import LinearForm, linear_with_offsets
from ..chat.parity import REFERENCE, kl_divergence, log_softmax
from ..chat.reference import ReferenceDecoder
from ..chat.tokenizer_json import tokenizer_json
from ..limits import AtMost, enforce
from ..onnx_session import open_session
from ..tensors import describe
from .layout import Shape, write_decoder
from .linear import linear_8_bits, linear_of_floats

LIMITS = [AtMost("kl_mean", 0.02)]
GRAPH, DATA = "model.onnx", "model.onnx.data"


@dataclass(frozen=True)
class Variant:
    """`attention`: `fused` is GroupQueryAttention, `plain` the primitive operators of a straight export."""

    title: str
    precision: str
    attention: str
    dtype: type
    linear: LinearForm
    # Layers of the original that are kept; a graph of few layers talks nonsense, and is exact enough to compare with another.
    layers: int | None
    # By how much a logit may differ on another processor.
    tolerance: float


# Plain floats are 540 MB for the whole model: two layers show the layout as well.
VARIANTS = {
    "optimum-int4": Variant("int4, fused attention", "int4", "fused", np.float32, linear_with_offsets, None, 0.5),
    "optimum-int8": Variant("int8, fused attention", "int8", "fused", np.float32, linear_8_bits, None, 0.5),
    "optimum-fp32": Variant("fp32, two layers", "fp32", "plain", np.float32, linear_of_floats, 2, 0.01),
    "optimum-fp16": Variant("fp16, two layers", "fp16", "plain", np.float16, linear_of_floats, 2, 0.1),
    "optimum-fp16-fused": Variant(
        "fp16, two layers, fused attention", "fp16", "fused", np.float16, linear_of_floats, 2, 0.1
    ),
}


def build(sources, out: Path, reporter: Reporter) -> dict:
    variant = VARIANTS[out.name]
    weights = GgufWeights(sources.copy(PACKAGE, GGUF, sources.scratch / "weights.gguf"))
    (out / TOKENIZER).write_text(tokenizer_json(weights), "utf-8")
    (out / TEMPLATE).write_text(weights.field("tokenizer.chat_template"), "utf-8")
    shape = Shape.of(weights.hyper, variant.layers, variant.attention, variant.dtype, variant.layers is None)
    with (
        reporter.stage(f"writing {shape.layers} layers, {variant.title}"),
        GraphWriter(out / GRAPH, out / DATA) as graph,
    ):
        write_decoder(weights, shape, graph, variant.linear)
    ids = tokenizers.Tokenizer.from_file(str(out / TOKENIZER)).encode(PROBE_TEXT).ids
    logits = run(out / GRAPH, shape, ids)
    with reporter.stage("comparing it with the original in 32-bit floats"):
        (original,) = ReferenceDecoder(weights, shape.layers).logits([ids])
        divergence = kl_divergence(log_softmax(original), log_softmax(logits)).mean()
        parity = enforce({"kl_mean": float(divergence)}, LIMITS, REFERENCE, reporter)
    top = [[int(token), round(float(logits[-1, token]), 4)] for token in logits[-1].argsort()[::-1][:PROBE_TOP]]
    (out / "probe.json").write_text(json.dumps({"input_ids": ids, "top": top, "tolerance": variant.tolerance}))
    _write_genai_config(out, shape, weights)
    model = onnx.load(out / GRAPH, load_external_data=False).graph
    return {
        "head": {
            "task": "chat",
            "title": f"SmolLM2 135M Instruct, {variant.title}",
            "licence": "Apache-2.0",
            "precision": variant.precision,
        },
        "graph": {
            "file": GRAPH,
            "layout": "optimum",
            "cache": "in-place" if variant.attention == "fused" else "appended",
            "layers": shape.layers,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "vocab_size": shape.vocab_size,
            "context_tokens": shape.context_tokens,
            "kv_type": "f16" if variant.dtype == np.float16 else "f32",
            "inputs": describe(model.input),
            "outputs": describe(model.output),
        },
        "tokenizer": {"file": TOKENIZER, "end_of_turn": [weights.field("tokenizer.ggml.eos_token_id")]},
        "template": {"file": TEMPLATE},
        "probe": {"file": "probe.json"},
        "parity": parity,
    }


def run(graph: Path, shape: Shape, ids: list[int]) -> np.ndarray:
    """Logits `[len(ids), vocab_size]` of one step from an empty cache."""
    session = open_session(graph, threads=2)
    steps = np.arange(len(ids), dtype=np.int64)[None]
    feeds = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones_like(steps), "position_ids": steps}
    empty = np.zeros((1, shape.kv_heads, 0, shape.head_dim), shape.dtype)
    for entry in session.get_inputs():
        if entry.name.startswith("past_key_values."):
            feeds[entry.name] = empty
    names = {entry.name for entry in session.get_inputs()}
    (logits,) = session.run(["logits"], {name: value for name, value in feeds.items() if name in names})
    return logits[0].astype(np.float32)


def _write_genai_config(out: Path, shape: Shape, weights: GgufWeights) -> None:
    """What onnxruntime-genai wants beside the graph; other programs do not read it."""
    end = weights.field("tokenizer.ggml.eos_token_id")
    decoder = {
        "session_options": {"provider_options": []},
        "filename": GRAPH,
        "head_size": shape.head_dim,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    if shape.attention == "plain":
        decoder["inputs"]["position_ids"] = "position_ids"
    model = {
        "type": "llama",
        "vocab_size": shape.vocab_size,
        "context_length": shape.context_tokens,
        "bos_token_id": weights.field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder": decoder,
    }
    search = {"max_length": shape.context_tokens, "past_present_share_buffer": shape.attention == "fused"}
    (out / "genai_config.json").write_text(json.dumps({"model": model, "search": search}, indent=1))
    words = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **words}))
