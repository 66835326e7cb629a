"""The scales of a cache of bytes: how large keys and values get in each channel, over texts of our own."""

from pathlib import Path

import numpy as np

from .decoder import Decoder
from .decoder_graph import CacheScales
from .gguf_weights import Hyperparameters

# Larger than anything that was seen in the texts by so much; what is larger still is cut off.
HEADROOM = 1.1
BYTE_MAX = 127


def calibration_texts() -> list[str]:
    """The passages of calibration_text.txt, which are not those that the result is judged by."""
    return (Path(__file__).parent / "calibration_text.txt").read_text("utf-8").split("\n---\n")


def measure_scales(decoder: Decoder, hyper: Hyperparameters, texts: list[list[int]]) -> CacheScales:
    """`decoder` keeps its cache in floats."""
    largest = {part: np.zeros((hyper.layers, hyper.kv_heads, hyper.head_dim), np.float32) for part in ("key", "value")}
    for ids in texts:
        decoder.restart()
        decoder.feed(ids, [len(ids) - 1])
        for part, found in largest.items():
            for layer in range(hyper.layers):
                here = np.abs(decoder.cache(f"{layer}.{part}")).max(axis=1)
                found[layer] = np.maximum(found[layer], here)
    keys, values = (found.reshape(hyper.layers, -1) * HEADROOM / BYTE_MAX for found in largest.values())
    return CacheScales(keys, values)
