"""Runs the built graph the way the daemon does: one cache buffer per tensor, bound as past and as present."""

from pathlib import Path

import numpy as np
import onnxruntime

from ..onnx_session import open_session
from .gguf_weights import Hyperparameters


class Decoder:
    """One sequence of at most `max_length` tokens."""

    def __init__(self, graph: Path, hyper: Hyperparameters, max_length: int, cached: type = np.float32):
        self._session = open_session(graph, threads=2)
        self._vocab_size = hyper.vocab_size
        shape = (1, hyper.kv_heads, max_length, hyper.head_dim)
        names = [f"{layer}.{part}" for layer in range(hyper.layers) for part in ("key", "value")]
        self._cache = {name: onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, cached)) for name in names}
        self._length = 0

    def restart(self) -> None:
        """Forgets the sequence. What the cache holds beyond the length is never read."""
        self._length = 0

    def cache(self, name: str) -> np.ndarray:
        """`[kv_heads, tokens, head_dim]` of `{layer}.key` or `{layer}.value`."""
        return self._cache[name].numpy()[0, :, : self._length]

    def feed(self, ids: list[int], wanted: list[int]) -> np.ndarray:
        """Appends tokens; logits `[len(wanted), vocab_size]` at those of their positions."""
        self._length += len(ids)
        feeds = {
            "input_ids": np.array([ids], np.int64),
            "seqlens_k": np.array([self._length - 1], np.int32),
            "total_sequence_length": np.array(self._length, np.int32),
            "logits_pos": np.array(wanted, np.int64),
        }
        binding = self._session.io_binding()
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in self._cache.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type([len(wanted), self._vocab_size], np.float32)
        binding.bind_ortvalue_output("logits", logits)
        self._session.run_with_iobinding(binding)
        return logits.numpy()
