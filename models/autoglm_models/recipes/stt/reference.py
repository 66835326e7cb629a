"""The original model in numpy, in 32-bit floats: what the 8-bit graphs are held against.

Follows the published architecture (Radford et al. 2022, section 2.2: pre-norm transformer, two convolutions in front, exact GELU,
the embedding's rows as the head); shares nothing with the graphs but the weights' file, and the Fourier transform is numpy's.
"""

import numpy as np

from .ct2_weights import Ct2Weights
from .mel import log_mel

NORM_EPSILON = 1e-5


class ReferenceModel:
    def __init__(self, weights: Ct2Weights):
        self._weights = weights
        self._heads = weights.number("encoder/num_heads")

    def listen(self, samples: np.ndarray) -> np.ndarray:
        """The encoder's output, `[positions, width]`."""
        x = _gelu(self._convolution(log_mel(samples), "encoder/conv1", 1))
        x = _gelu(self._convolution(x, "encoder/conv2", 2)).T
        x = x + self._weights.floats("encoder/position_encodings/encodings")[: len(x)]
        for layer in range(self._weights.layers("encoder")):
            name = f"encoder/layer_{layer}/"
            inner = self._norm(x, name + "self_attention/layer_norm")
            query, key, value = np.split(self._linear(inner, name + "self_attention/linear_0"), 3, -1)
            x = x + self._linear(self._attention(query, key, value), name + "self_attention/linear_1")
            x = x + self._feed_forward(x, name)
        return self._norm(x, "encoder/layer_norm")

    def crossing(self, heard: np.ndarray) -> list[np.ndarray]:
        """What the decoder attends to: keys and values of each layer in turn, `[positions, width]`."""
        pairs = (
            self._linear(heard, f"decoder/layer_{layer}/attention/linear_1")
            for layer in range(self._weights.layers("decoder"))
        )
        return [half for pair in pairs for half in np.split(pair, 2, -1)]

    def logits(self, crossing: list[np.ndarray], ids: list[int]) -> np.ndarray:
        """`[tokens, vocab_size]`, each after the tokens up to it."""
        embedding = self._weights.floats("decoder/embeddings/weight")
        x = embedding[ids] + self._weights.floats("decoder/position_encodings/encodings")[: len(ids)]
        future = np.triu(np.full((len(ids), len(ids)), -np.inf, np.float32), 1)
        for layer in range(self._weights.layers("decoder")):
            name = f"decoder/layer_{layer}/"
            inner = self._norm(x, name + "self_attention/layer_norm")
            query, key, value = np.split(self._linear(inner, name + "self_attention/linear_0"), 3, -1)
            x = x + self._linear(self._attention(query, key, value, future), name + "self_attention/linear_1")
            query = self._linear(self._norm(x, name + "attention/layer_norm"), name + "attention/linear_0")
            key, value = crossing[2 * layer : 2 * layer + 2]
            x = x + self._linear(self._attention(query, key, value), name + "attention/linear_2")
            x = x + self._feed_forward(x, name)
        return self._norm(x, "decoder/layer_norm") @ embedding.T

    def _feed_forward(self, x: np.ndarray, name: str) -> np.ndarray:
        inner = self._norm(x, name + "ffn/layer_norm")
        return self._linear(_gelu(self._linear(inner, name + "ffn/linear_0")), name + "ffn/linear_1")

    def _attention(
        self, query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray | float = 0.0
    ) -> np.ndarray:
        query, key, value = (x.reshape(len(x), self._heads, -1).swapaxes(0, 1) for x in (query, key, value))
        scores = query @ key.swapaxes(1, 2) * query.shape[-1] ** -0.5 + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ value
        return mixed.swapaxes(0, 1).reshape(mixed.shape[1], -1)

    def _convolution(self, x: np.ndarray, name: str, stride: int) -> np.ndarray:
        """`[in, frames]` to `[out, frames / stride]`, three wide."""
        weight, bias = self._weights.floats(name + "/weight"), self._weights.floats(name + "/bias")
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1))), 3, 1)[:, ::stride]
        return np.tensordot(weight, windows, ([1, 2], [0, 2])) + bias[:, None]

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self._weights.floats(name + "/weight").T + self._weights.floats(name + "/bias")

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + NORM_EPSILON)
        return centred / scale * self._weights.floats(name + "/gamma") + self._weights.floats(name + "/beta")


def _gelu(x: np.ndarray) -> np.ndarray:
    return (x * 0.5 * (1 + _erf(x / np.sqrt(2)))).astype(np.float32)


def _erf(x: np.ndarray) -> np.ndarray:
    """Abramowitz and Stegun 1964, 7.1.26: within 1.5e-7, which is below the last bit of what it is added to."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.sign(x) * (1 - series * np.exp(-x * x))
