"""The original BERT encoder in numpy, in 32-bit floats: the reference that the int8 graph is held against.

Follows the published architecture (Devlin et al. 2018, post-norm encoder, exact GELU); weight names are those of the
safetensors file.
"""

import math

import numpy as np

HEADS = 12
LAYERS = 6
LAYER_NORM_EPSILON = 1e-12

_erf = np.vectorize(math.erf, otypes=[np.float32])


class BertEncoder:
    def __init__(self, weights: dict[str, np.ndarray]):
        self._weights = weights

    def sentence_vector(self, ids: list[int]) -> np.ndarray:
        """Mean of the last hidden states over all tokens (none is padding), scaled to length 1."""
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: len(ids)] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            prefix = f"encoder.layer.{layer}."
            x = self._norm(x + self._attention(x, prefix), prefix + "attention.output.LayerNorm")
            inner = self._linear(x, prefix + "intermediate.dense")
            inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
            x = self._norm(x + self._linear(inner, prefix + "output.dense"), prefix + "output.LayerNorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)

    def _attention(self, x: np.ndarray, prefix: str) -> np.ndarray:
        tokens, width = x.shape
        query, key, value = (
            self._linear(x, f"{prefix}attention.self.{part}").reshape(tokens, HEADS, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(width // HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ value).swapaxes(0, 1).reshape(tokens, width)
        return self._linear(mixed, prefix + "attention.output.dense")

    def _linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)
        return centred / scale * self._weights[name + ".weight"] + self._weights[name + ".bias"]
