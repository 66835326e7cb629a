"""onnxruntime-genai as a peer of `bench-llm`: runs what a line of JSON asks for, and answers with a line of times.

    MODEL_DIR THREADS CONTEXT_TOKENS < questions > answers

| question | answer |
| --- | --- |
| `{"op": "prefill", "ids": [...]}` | `{"ms": ...}`: from an empty cache to the first token |
| `{"op": "decode", "ids": [...], "tokens": n}` | `{"ms": ...}`: n tokens after the first one |
| `{"op": "second", "ids": [...], "more": [...]}` | `{"ms": ...}`: to the first token of `more`, with `ids` in the cache |
| `{"op": "form", "ids": [...], "schema": {...}, "tokens": n}` | `{"ms": ..., "tokens": ..., "text": ...}`: a whole answer under the schema |

The time of a generator's construction counts where a caller would wait for it: compiling the schema does.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import answering
import numpy as np
import onnxruntime_genai as og


class Peer:
    def __init__(self, directory: Path, threads: int, context: int):
        self._context = context
        # Kept: the model's own tokenizer is read from it for every schema.
        self._scratch = tempfile.TemporaryDirectory()
        place = Path(self._scratch.name)
        for path in directory.iterdir():
            (place / path.name).symlink_to(path)
        config = json.loads((directory / "genai_config.json").read_text("utf-8"))
        # As ours: on a busy machine two waiting threads that spin are slower than one.
        session = {"intra_op_num_threads": threads, "session.intra_op.allow_spinning": "0"}
        config["model"]["decoder"]["session_options"] |= session
        (place / "genai_config.json").unlink()
        (place / "genai_config.json").write_text(json.dumps(config), "utf-8")
        begun = time.perf_counter()
        self._model = og.Model(str(place))
        self.load_ms = (time.perf_counter() - begun) * 1e3
        self._tokenizer = og.Tokenizer(self._model)

    def _generator(self, schema: dict | None = None):
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=self._context, do_sample=False)
        if schema is not None:
            params.set_guidance("json_schema", json.dumps(schema))
        return og.Generator(self._model, params)

    def prefill(self, ids: list[int]) -> dict:
        generator = self._generator()
        begun = time.perf_counter()
        generator.append_tokens(np.array(ids, np.int32))
        generator.generate_next_token()
        return {"ms": (time.perf_counter() - begun) * 1e3}

    def decode(self, ids: list[int], tokens: int) -> dict:
        generator = self._generator()
        generator.append_tokens(np.array(ids, np.int32))
        generator.generate_next_token()
        begun = time.perf_counter()
        for _ in range(tokens):
            generator.generate_next_token()
        return {"ms": (time.perf_counter() - begun) * 1e3}

    def second(self, ids: list[int], more: list[int]) -> dict:
        generator = self._generator()
        generator.append_tokens(np.array(ids, np.int32))
        generator.generate_next_token()
        begun = time.perf_counter()
        generator.append_tokens(np.array(more, np.int32))
        generator.generate_next_token()
        return {"ms": (time.perf_counter() - begun) * 1e3}

    def form(self, ids: list[int], schema: dict, tokens: int) -> dict:
        begun = time.perf_counter()
        generator = self._generator(schema)
        generator.append_tokens(np.array(ids, np.int32))
        answer = []
        while not generator.is_done() and len(answer) < tokens:
            generator.generate_next_token()
            answer.append(int(generator.get_next_tokens()[0]))
        took = (time.perf_counter() - begun) * 1e3
        return {"ms": took, "tokens": len(answer), "text": self._tokenizer.decode(np.array(answer, np.int32))}


def main() -> int:
    directory, threads, context = sys.argv[1:]
    peer = Peer(Path(directory), int(threads), int(context))
    return answering.answer(peer, f"onnxruntime-genai {og.__version__}")


if __name__ == "__main__":
    sys.exit(main())
