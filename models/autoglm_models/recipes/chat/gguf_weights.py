"""Reads a llama-architecture GGUF file: its hyperparameters, and its weights as the blocks in which they are stored.

Block layouts: ggml's `block_q4_1` (f16 scale, f16 offset, 16 bytes of nibbles: weight = scale * q + offset) and
`block_q8_0` (f16 scale, 32 signed bytes), both over 32 weights of one row.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

BLOCK = 32


@dataclass(frozen=True)
class Hyperparameters:
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocab_size: int
    context_tokens: int
    norm_epsilon: float
    rope_base: float

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class OffsetBlocks:
    """Q4_1 rows: `q[rows, blocks, 32]` in 0..15, and per block a float `scale` and a float `offset`."""

    q: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def to_floats(self) -> np.ndarray:
        weights = self.q * self.scale[..., None] + self.offset[..., None]
        return weights.reshape(weights.shape[0], -1).astype(np.float32)

    def rows(self, order: np.ndarray) -> "OffsetBlocks":
        return OffsetBlocks(self.q[order], self.scale[order], self.offset[order])

    @staticmethod
    def stacked(parts: list["OffsetBlocks"]) -> "OffsetBlocks":
        return OffsetBlocks(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("q", "scale", "offset"))
        )


class GgufWeights:
    def __init__(self, path: Path):
        self._reader = GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if self.field("general.architecture") != "llama":
            raise ValueError(f"{path.name} holds a {self.field('general.architecture')} model; this recipe reads llama")
        self.hyper = Hyperparameters(
            layers=self.field("llama.block_count"),
            width=self.field("llama.embedding_length"),
            feed_forward=self.field("llama.feed_forward_length"),
            heads=self.field("llama.attention.head_count"),
            kv_heads=self.field("llama.attention.head_count_kv"),
            vocab_size=self.field("llama.vocab_size"),
            context_tokens=self.field("llama.context_length"),
            norm_epsilon=self.field("llama.attention.layer_norm_rms_epsilon"),
            rope_base=self.field("llama.rope.freq_base"),
        )

    def field(self, name: str):
        return self._reader.fields[name].contents()

    def floats(self, name: str) -> np.ndarray:
        """The tensor as gguf itself dequantises it, `[out, in]` for a matrix."""
        tensor = self._tensors[name]
        return dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    def offset_blocks(self, name: str) -> OffsetBlocks:
        tensor = self._typed(name, GGMLQuantizationType.Q4_1)
        rows, blocks = int(tensor.shape[1]), int(tensor.shape[0]) // BLOCK
        raw = np.asarray(tensor.data).reshape(rows, blocks, 20)
        halves = raw[..., :4].copy().view(np.float16).astype(np.float32)
        nibbles = raw[..., 4:]
        return OffsetBlocks(np.concatenate([nibbles & 15, nibbles >> 4], -1), halves[..., 0], halves[..., 1])

    def signed_blocks(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Q8_0 rows: `q[rows, blocks, 32]` in -128..127, and a float scale per block."""
        tensor = self._typed(name, GGMLQuantizationType.Q8_0)
        raw = np.asarray(tensor.data).reshape(int(tensor.shape[1]), int(tensor.shape[0]) // BLOCK, 34)
        scale = raw[..., :2].copy().view(np.float16).astype(np.float32)[..., 0]
        return raw[..., 2:].copy().view(np.int8), scale

    def _typed(self, name: str, expected: GGMLQuantizationType):
        tensor = self._tensors[name]
        if tensor.tensor_type != expected:
            raise ValueError(f"{name} is stored as {tensor.tensor_type.name}; this recipe reads {expected.name}")
        return tensor


def half_rotary_order(rows: int, heads: int) -> np.ndarray:
    """Row order that turns llama.cpp's layout of query and key rows (rotated pairs adjacent) into the one with halves.

    GroupQueryAttention with `rotary_interleaved=0` rotates component i of a head with component i + head_dim / 2.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(rows)
