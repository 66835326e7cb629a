"""llama.cpp as a peer of `bench-llm`: runs what a line of JSON asks for, and answers with a line of times.

    MODEL.gguf THREADS SLOTS CONTEXT_TOKENS auto|plain [DIRECTORY] < questions > answers

Its own server engine as the package xllamacpp has it, in this process, spoken to over one open connection for each slot.

| question | answer |
| --- | --- |
| `{"op": "prefill", "ids": [...]}` | `{"ms": ...}`: from an empty cache to the first token |
| `{"op": "decode", "ids": [...], "tokens": n}` | `{"ms": ...}`: n tokens after the first one |
| `{"op": "second", "ids": [...], "more": [...]}` | `{"ms": ..., "tokens": ...}`: to the first token of `more`, with `ids` in the cache; how many came from there |
| `{"op": "form", "ids": [...], "schema": {...}, "tokens": n}` | `{"ms": ..., "tokens": ..., "text": ...}`: a whole answer under the schema |
| `{"op": "together", "prompts": [[...]], "tokens": n}` | `{"ms": ..., "tokens": ...}`: an answer of n tokens in every slot at once, the prompts being in the caches; tokens of all |
| `{"op": "save", "ids": [...], "more": [...]}` | `{"ms": ...}`: as prefill; then `more` is in the cache too, and the slot in the directory |
| `{"op": "restore", "ids": [...]}` | `{"ms": ..., "tokens": ...}`: from the directory to the first token; how many came from there |

`plain` is attention without its fused kernel. By default (`auto`) it takes that one on a processor too, where with AVX2 it is
faster for prompts and slower for answers in a long context: measure both.

Times are what a caller waits for, but for decoding: there it is the server's own time, which leaves out the way through HTTP
(some 2 ms an answer) and so is the more favourable. Nothing here reuses a prompt of which the question does not say so.
"""

import http.client
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import answering
import xllamacpp

SAVED = "conversation"


class Peer:
    def __init__(self, model: Path, threads: int, slots: int, context: int, attention: str, directory: Path | None):
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        # Of all slots together: each has its part of it for itself.
        params.n_ctx = context * slots
        params.n_parallel = slots
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.n_gpu_layers = 0
        if attention == "plain":
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.port = 0
        params.verbosity = 0
        # No copies of idle conversations: they would cost time between the rounds and memory.
        params.cache_ram_mib = 0
        params.endpoint_slots = True
        if directory is not None:
            params.slot_save_path = f"{directory}{os.sep}"
        begun = time.perf_counter()
        self._server = xllamacpp.Server(params)
        self.load_ms = (time.perf_counter() - begun) * 1e3
        address = urlsplit(self._server.listening_address)
        self._connections = [http.client.HTTPConnection(address.hostname, address.port) for _ in range(slots)]
        self._callers = ThreadPoolExecutor(slots)

    def connect(self) -> None:
        """Anew: the server ends a connection that says nothing for some seconds, while others have their turns."""
        for connection in self._connections:
            connection.close()
            connection.connect()

    def _begin(self) -> float:
        self.connect()
        return time.perf_counter()

    def _post(self, slot: int, path: str, question: dict) -> dict:
        connection = self._connections[slot]
        connection.request("POST", path, json.dumps(question), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body[:400]!r}")
        return json.loads(body)

    def _complete(self, ids: list[int], tokens: int, *, reuse: bool, slot: int = 0, **more) -> dict:
        question = {
            "prompt": ids,
            "n_predict": tokens,
            "temperature": 0,
            "cache_prompt": reuse,
            "ignore_eos": "json_schema" not in more,
            "id_slot": slot,
        }
        answer = self._post(slot, "/completion", question | more)
        if answer["truncated"]:
            raise RuntimeError(f"{len(ids)} tokens and {tokens} more do not fit into a slot")
        return answer["timings"] | {"text": answer["content"]}

    def prefill(self, ids: list[int]) -> dict:
        begun = self._begin()
        self._complete(ids, 1, reuse=False)
        return {"ms": (time.perf_counter() - begun) * 1e3}

    def decode(self, ids: list[int], tokens: int) -> dict:
        # Its own time begins when the first token is there.
        timings = self._complete(ids, tokens + 1, reuse=False)
        if timings["predicted_n"] != tokens + 1:
            raise RuntimeError(f"{timings['predicted_n']} tokens instead of {tokens + 1}")
        return {"ms": timings["predicted_ms"]}

    def second(self, ids: list[int], more: list[int]) -> dict:
        self._complete(ids, 1, reuse=False)
        begun = self._begin()
        timings = self._complete(ids + more, 1, reuse=True)
        return {"ms": (time.perf_counter() - begun) * 1e3, "tokens": timings["cache_n"]}

    def form(self, ids: list[int], schema: dict, tokens: int) -> dict:
        begun = self._begin()
        answer = self._complete(ids, tokens, reuse=False, json_schema=schema)
        took = (time.perf_counter() - begun) * 1e3
        return {"ms": took, "tokens": answer["predicted_n"], "text": answer["text"]}

    def together(self, prompts: list[list[int]], tokens: int) -> dict:
        def ask(slot: int, ids: list[int], tokens: int) -> int:
            return self._complete(ids, tokens, reuse=True, slot=slot)["predicted_n"]

        list(self._callers.map(lambda one: ask(*one, 1), enumerate(prompts)))
        begun = self._begin()
        drawn = sum(self._callers.map(lambda one: ask(*one, tokens), enumerate(prompts)))
        return {"ms": (time.perf_counter() - begun) * 1e3, "tokens": drawn}

    def save(self, ids: list[int], more: list[int]) -> dict:
        answer = self.prefill(ids)
        self._complete(ids + more, 1, reuse=True)
        self._post(0, "/slots/0?action=save", {"filename": SAVED})
        return answer

    def restore(self, ids: list[int]) -> dict:
        begun = self._begin()
        self._post(0, "/slots/0?action=restore", {"filename": SAVED})
        timings = self._complete(ids, 1, reuse=True)
        return {"ms": (time.perf_counter() - begun) * 1e3, "tokens": timings["cache_n"]}


def name(attention: str) -> str:
    """With the vector instructions that the package was built for: they need not be the best of the machine."""
    built_for = xllamacpp.get_system_info()
    known = ("AVX512", "AVX2", "AVX", "SVE", "NEON")
    vectors = next((one for one in known if f"{one} = 1" in built_for), "no vectors")
    return f"llama.cpp (xllamacpp {version('xllamacpp')}, {vectors}, {attention} attention)"


def main() -> int:
    model, threads, slots, context, attention, *directory = sys.argv[1:]
    place = Path(directory[0]) if directory else None
    peer = Peer(Path(model), int(threads), int(slots), int(context), attention, place)
    return answering.answer(peer, name(attention), before=peer.connect)


if __name__ == "__main__":
    sys.exit(main())
