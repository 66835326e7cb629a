"""CTranslate2 as a peer of `bench-speech`: hears what a line of JSON names, and answers with a line of times.

    MODEL_DIR THREADS < questions > answers

| question | answer |
| --- | --- |
| `{"op": "hear", "path": "..."}` | `{"ms": ..., "tokens": ..., "text": ...}`: a file of 32-bit floats, 16 kHz, mono, up to 30 s, read greedily and with times |

The front end is numpy's Fourier transform, as in the program that its users have around it; it counts, as ours does.
"""

import importlib.util
import json
import resource
import sys
import time
from pathlib import Path

import ctranslate2
import numpy as np
import tokenizers
import answering

MEL = Path(__file__).resolve().parents[2] / "models/autoglm_models/recipes/stt/mel.py"
START, FIRST_TIME = 50257, 50363
# As ours: half of the context.
TOKENS = 224


def front_end():
    """The module by itself: the package around it would load ONNX and count as this peer's memory."""
    spec = importlib.util.spec_from_file_location("mel", MEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Peer:
    def __init__(self, directory: Path, threads: int):
        begun = time.perf_counter()
        self._model = ctranslate2.models.Whisper(str(directory), compute_type="int8", intra_threads=threads)
        self.load_ms = (time.perf_counter() - begun) * 1e3
        self._tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._mel = front_end()

    def hear(self, path: str) -> dict:
        samples = np.fromfile(path, np.float32)
        begun = time.perf_counter()
        window = np.pad(samples, (0, self._mel.SAMPLES - len(samples)))
        features = ctranslate2.StorageView.from_array(np.ascontiguousarray(self._mel.log_mel(window)[None]))
        found = self._model.generate(features, [[START]], beam_size=1, max_length=TOKENS, return_no_speech_prob=True)
        ids = found[0].sequences_ids[0]
        text = self._tokenizer.decode([token for token in ids if token < FIRST_TIME])
        return {"ms": (time.perf_counter() - begun) * 1e3, "tokens": len(ids), "text": text}


def main() -> int:
    directory, threads = Path(sys.argv[1]), int(sys.argv[2])
    peer = Peer(directory, threads)
    return answering.answer(peer, f"ctranslate2 {ctranslate2.__version__}, int8")


if __name__ == "__main__":
    sys.exit(main())
