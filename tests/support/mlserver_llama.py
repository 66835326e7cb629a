"""MLServer, the reference server of the Open Inference Protocol, with llama.cpp behind it until it is killed: mlserver_llama.py MODEL_GGUF

Its model "smollm2" takes the tensor "prompt" and brings the tensor "answer", both of one text. Prints its URL when it can be asked.
"""

import asyncio
import json
import os
import socket
import sys
import threading

import xllamacpp
from mlserver import MLModel, MLServer, ModelSettings, Settings, types
from mlserver.codecs import StringCodec


class Llama(MLModel):
    async def load(self) -> bool:
        wanted = xllamacpp.CommonParams()
        wanted.model.path = self.settings.parameters.uri
        wanted.n_ctx = 2048
        wanted.n_parallel = 1
        wanted.n_gpu_layers = 0
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
        wanted.verbosity = 0
        self._llama = xllamacpp.Server(wanted)
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        answer = "".join([piece async for piece in self._pieces(payload)])
        return self._response(answer)

    async def predict_stream(self, payloads):
        async for payload in payloads:
            async for piece in self._pieces(payload):
                yield self._response(piece)

    async def _pieces(self, payload: types.InferenceRequest):
        [prompt] = StringCodec.decode_input(payload.inputs[0])
        parameters = payload.parameters.model_dump() if payload.parameters else {}
        ask = {"prompt": prompt, "max_tokens": parameters["max_tokens"], "temperature": parameters["temperature"], "stream": True}
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

        def hear(chunks) -> None:
            for chunk in chunks if isinstance(chunks, list) else [chunks]:
                chunk = json.loads(chunk) if isinstance(chunk, (str, bytes)) else chunk
                loop.call_soon_threadsafe(pieces.put_nowait, chunk)

        def run() -> None:
            self._llama.handle_completions(ask, hear)
            loop.call_soon_threadsafe(pieces.put_nowait, None)

        threading.Thread(target=run, daemon=True).start()
        while (chunk := await pieces.get()) is not None:
            if "error" in chunk:
                raise RuntimeError(str(chunk["error"]))
            for choice in chunk.get("choices", []):
                if choice["text"]:
                    yield choice["text"]

    def _response(self, text: str) -> types.InferenceResponse:
        output = StringCodec.encode_output("answer", [text])
        return types.InferenceResponse(model_name=self.name, outputs=[output])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def main(model: str) -> None:
    port = free_port()
    settings = Settings(
        host="127.0.0.1", http_port=port, grpc_port=free_port(), metrics_endpoint=None, parallel_workers=0, debug=False, gzip_enabled=False
    )
    server = MLServer(settings)
    smollm = ModelSettings(name="smollm2", implementation=Llama, parameters={"uri": model})
    serving = asyncio.create_task(server.start([smollm]))
    while True:
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.write(b"GET /v2/models/smollm2/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = await _reader.readline()
        writer.close()
        if b" 200 " in status:
            break
        await asyncio.sleep(0.05)
    print(f"http://127.0.0.1:{port}", flush=True)
    await serving


os.environ["PROMETHEUS_DISABLE_CREATED_SERIES"] = "True"
asyncio.run(main(*sys.argv[1:]))
