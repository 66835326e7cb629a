"""llama.cpp's server, as its package has it, on a port of loopback until it is killed: llama_server.py MODEL_GGUF PORT [KEY]

PORT 0 is any. Prints its URL when it can be asked.
"""

import signal
import sys

import xllamacpp


def main(model: str, port: str, *keys: str) -> None:
    wanted = xllamacpp.CommonParams()
    wanted.model.path = model
    wanted.model_alias = {"smollm2"}
    wanted.port = int(port)
    wanted.api_keys = list(keys)
    wanted.n_ctx = 2048
    wanted.n_parallel = 1
    wanted.n_gpu_layers = 0
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    wanted.verbosity = 0
    server = xllamacpp.Server(wanted)
    print(server.listening_address, flush=True)
    signal.pause()


main(*sys.argv[1:])
