"""Opens a graph the way the daemon does for its proof: the CPU provider, one thread, nothing decided by the machine."""

from pathlib import Path

import onnxruntime


def open_session(graph: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Errors only: published graphs carry unused tensors, which the runtime remarks on at every start.
    options.log_severity_level = 3
    # Threads that spin while they wait slow each other down on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
