"""Collects nodes and tensors, and writes them as an ONNX model with its weights in a second file beside it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

MS_DOMAIN = "com.microsoft"
ONNX_OPSET = 21
IR_VERSION = 10
# Large tensors start on a page, so that the runtime can map them; small ones on a cache line.
PAGE = 4096
CACHE_LINE = 64
INLINE_BYTES_MAX = 4096


class GraphWriter:
    """Tensors go to the data file as they come, so that the whole model never lies in memory."""

    def __init__(self, graph_path: Path, data_path: Path):
        self._graph_path = graph_path
        self._data_name = data_path.name
        self._data = open(data_path, "wb")
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, onnx.TensorProto] = {}
        # Of activations and of weights that are not quantised.
        self.float_type: type = np.float32

    def __enter__(self) -> "GraphWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()

    def node(
        self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: object
    ) -> None:
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], domain=domain, **attributes))

    def tensor(self, name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array) if array.ndim else array
        if array.nbytes <= INLINE_BYTES_MAX:
            self._tensors[name] = numpy_helper.from_array(array, name)
            return
        alignment = PAGE if array.nbytes >= 16 * PAGE else CACHE_LINE
        self._data.write(b"\0" * (-self._data.tell() % alignment))
        self._tensors[name] = self._outside(name, array.shape, array.dtype, self._data.tell(), array.nbytes)
        self._data.write(array.tobytes())

    def view(self, name: str, of: str, shape: tuple[int, ...]) -> None:
        """A second tensor over the same bytes of the data file."""
        first = self._tensors[of]
        place = {entry.key: entry.value for entry in first.external_data}
        dtype = helper.tensor_dtype_to_np_dtype(first.data_type)
        self._tensors[name] = self._outside(name, shape, dtype, int(place["offset"]), int(place["length"]))

    def has(self, name: str) -> bool:
        """Whether a node gives it."""
        return any(name in node.output for node in self._nodes)

    def once(self, name: str, make: Callable[[], np.ndarray]) -> str:
        """A tensor that several layers share; made when the first one asks."""
        if name not in self._tensors:
            self.tensor(name, make())
        return name

    def finish(self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> None:
        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._tensors.values()))
        opsets = [helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid(MS_DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="autoglm-edge", ir_version=IR_VERSION)
        self._graph_path.write_bytes(model.SerializeToString(deterministic=True))

    def _outside(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, offset: int, length: int
    ) -> onnx.TensorProto:
        tensor = onnx.TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims=shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", self._data_name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        return tensor
