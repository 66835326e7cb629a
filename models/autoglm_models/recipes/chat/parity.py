"""Measures how far the 4-bit graph is from the original, over texts of our own, and judges it."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...progress import Reporter
from ..limits import AtLeast, AtMost, enforce
from .decoder import Decoder
from .gguf_weights import GgufWeights
from .reference import ReferenceDecoder

REFERENCE = "fp32 dequantisation of the GGUF, computed in numpy"
# Re-quantising to integer zero points gives a mean KL of 0.3 to 0.4; the form that keeps the offsets, 0.005.
LIMITS = [
    AtMost("kl_mean", 0.02),
    AtMost("kl_mean_decoding", 0.02),
    AtMost("perplexity_ratio", 1.03),
    AtLeast("top1_agreement", 0.93),
]
# This many last tokens of each text are also fed one by one, the way a reply is generated.
DECODED_TOKENS = 24


@dataclass(frozen=True)
class ReferenceLogs:
    """Texts as token ids, with the original's log-probabilities `[tokens, vocab_size]` for each."""

    texts: list[list[int]]
    logs: list[np.ndarray]

    @classmethod
    def of(cls, weights: GgufWeights, texts: list[list[int]]) -> "ReferenceLogs":
        return cls(texts, [log_softmax(logits) for logits in ReferenceDecoder(weights).logits(texts)])


def parity_texts() -> list[str]:
    """The passages of parity_text.txt, which blank lines with a rule between them separate."""
    return (Path(__file__).parent / "parity_text.txt").read_text("utf-8").split("\n---\n")


def measure(decoder: Decoder, reference: ReferenceLogs) -> dict[str, float]:
    """Perplexities, mean KL divergence (in nats, over all positions) and how often both put the same token first."""
    divergences, decoding, agreements, surprise, reference_surprise = [], [], [], [], []
    for ids, original in zip(reference.texts, reference.logs, strict=True):
        decoder.restart()
        ours = log_softmax(decoder.feed(ids, list(range(len(ids)))))
        divergences.append(kl_divergence(original, ours))
        agreements.append(original.argmax(-1) == ours.argmax(-1))
        targets = np.arange(len(ids) - 1), ids[1:]
        surprise.append(-ours[targets])
        reference_surprise.append(-original[targets])
        decoding.append(_decoded_one_by_one(decoder, ids, original))
    perplexity, reference_perplexity = (
        math.exp(np.concatenate(each).mean()) for each in (surprise, reference_surprise)
    )
    return {
        "tokens": sum(map(len, reference.texts)),
        "kl_mean": float(np.concatenate(divergences).mean()),
        "kl_mean_decoding": float(np.concatenate(decoding).mean()),
        "top1_agreement": float(np.concatenate(agreements).mean()),
        "perplexity": perplexity,
        "reference_perplexity": reference_perplexity,
        "perplexity_ratio": perplexity / reference_perplexity,
    }


def judge(measures: dict[str, float], reporter: Reporter) -> dict:
    """The `[parity]` table. Raises ParityFailed beyond the limits."""
    return enforce(measures, LIMITS, REFERENCE, reporter)


def _decoded_one_by_one(decoder: Decoder, ids: list[int], original: np.ndarray) -> np.ndarray:
    first = len(ids) - DECODED_TOKENS
    decoder.restart()
    decoder.feed(ids[:first], [first - 1])
    ours = np.concatenate([decoder.feed([token], [0]) for token in ids[first:]])
    return kl_divergence(original[first:], log_softmax(ours))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def kl_divergence(original: np.ndarray, ours: np.ndarray) -> np.ndarray:
    return (np.exp(original) * (original - ours)).sum(-1, dtype=np.float64)
