"""The two graphs as the daemon uses them: one piece of sound, tokens fed on top of an in-place cache."""

from pathlib import Path

import numpy as np
import onnxruntime

from ..onnx_session import open_session

CONTEXT_TOKENS = 448


class Whisper:
    def __init__(self, encoder: Path, decoder: Path, threads: int = 1):
        self._encoder, self._decoder = open_session(encoder, threads), open_session(decoder, threads)
        shapes = {value.name: value.shape for value in self._decoder.get_inputs()}
        self._caches = {
            name.removeprefix("past_key_values."): onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros((1, shape[1], CONTEXT_TOKENS, shape[3]), np.float32)
            )
            for name, shape in shapes.items()
            if name.startswith("past_key_values.")
        }
        self._vocab_size = self._decoder.get_outputs()[0].shape[1]
        self._crossing: dict[str, onnxruntime.OrtValue] = {}
        self._past = 0

    def listen(self, samples: np.ndarray) -> list[np.ndarray]:
        """Hears a piece of sound, which the tokens to come are about; gives the keys and values of each layer in turn."""
        names = [value.name for value in self._encoder.get_outputs()]
        heard = self._encoder.run(names, {"pcm": samples[None].astype(np.float32)})
        self._crossing = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in zip(names, heard, strict=True)
        }
        self._past = 0
        return heard

    def feed(self, ids: list[int], wanted: list[int]) -> np.ndarray:
        """Logits after the tokens of `ids` at `wanted`, behind all that were fed since the sound was heard."""
        binding, total = self._decoder.io_binding(), self._past + len(ids)
        for name, array in {
            "input_ids": np.array([ids], np.int64),
            "position_ids": np.arange(self._past, total, dtype=np.int64)[None],
            "seqlens_k": np.array([total - 1], np.int32),
            "total_sequence_length": np.array(total, np.int32),
            "logits_pos": np.array(wanted, np.int64),
        }.items():
            binding.bind_cpu_input(name, array)
        for name, value in self._crossing.items():
            binding.bind_ortvalue_input(name, value)
        for name, cache in self._caches.items():
            binding.bind_ortvalue_input("past_key_values." + name, cache)
            binding.bind_ortvalue_output("present." + name, cache)
        logits = np.zeros((len(wanted), self._vocab_size), np.float32)
        out = onnxruntime.OrtValue.ortvalue_from_numpy(logits)
        binding.bind_ortvalue_output("logits", out)
        self._decoder.run_with_iobinding(binding)
        self._past = total
        # A copy: what numpy() gives is memory that goes with the value.
        return out.numpy().copy()
