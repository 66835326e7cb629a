"""The original model in numpy, in 32-bit floats: what the 4-bit graph is held against.

Shares nothing with the graph but the GGUF file: it keeps llama.cpp's own row order and rotates adjacent pairs, so a
mistake in the graph's reordering, rotation, grouping or caching shows as well as one in its quantisation.
"""

import numpy as np

from .gguf_weights import GgufWeights


class ReferenceDecoder:
    def __init__(self, weights: GgufWeights, layers: int | None = None):
        """Of the first `layers` layers only, where a number is given."""
        self._weights = weights
        self._layers = layers or weights.hyper.layers

    def logits(self, texts: list[list[int]]) -> list[np.ndarray]:
        """Logits at every position, `[tokens, vocab_size]` for each text. Weights are unpacked layer by layer."""
        embedding = self._weights.floats("token_embd.weight")
        hidden = [embedding[ids] for ids in texts]
        for layer in range(self._layers):
            parts = (
                "attn_q",
                "attn_k",
                "attn_v",
                "attn_output",
                "ffn_gate",
                "ffn_up",
                "ffn_down",
                "attn_norm",
                "ffn_norm",
            )
            w = {part: self._weights.floats(f"blk.{layer}.{part}.weight") for part in parts}
            for index, x in enumerate(hidden):
                x = x + self._attention(self._norm(x, w["attn_norm"]), w)
                inner = self._norm(x, w["ffn_norm"])
                gate = inner @ w["ffn_gate"].T
                hidden[index] = x + (gate / (1 + np.exp(-gate)) * (inner @ w["ffn_up"].T)) @ w["ffn_down"].T
        gain = self._weights.floats("output_norm.weight")
        return [self._norm(x, gain) @ embedding.T for x in hidden]

    def _attention(self, x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
        hyper = self._weights.hyper
        tokens = len(x)
        query = self._rotate((x @ w["attn_q"].T).reshape(tokens, hyper.heads, -1))
        key = self._rotate((x @ w["attn_k"].T).reshape(tokens, hyper.kv_heads, -1))
        value = (x @ w["attn_v"].T).reshape(tokens, hyper.kv_heads, -1)
        group = hyper.heads // hyper.kv_heads
        future = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
        mixed = np.empty_like(query)
        for head in range(hyper.heads):
            scores = query[:, head] @ key[:, head // group].T * hyper.head_dim**-0.5 + future
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, head] = scores / scores.sum(-1, keepdims=True) @ value[:, head // group]
        return mixed.reshape(tokens, -1) @ w["attn_output"].T

    def _rotate(self, x: np.ndarray) -> np.ndarray:
        hyper = self._weights.hyper
        inverse = hyper.rope_base ** -(np.arange(0, hyper.head_dim, 2, dtype=np.float64) / hyper.head_dim)
        angles = np.arange(len(x))[:, None] * inverse
        cos, sin = np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

    def _norm(self, x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self._weights.hyper.norm_epsilon) * gain
