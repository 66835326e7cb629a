"""Describes a graph's inputs and outputs for model.toml, from the graph itself."""

import re

import onnx

TYPES = {
    onnx.TensorProto.FLOAT: "f32",
    onnx.TensorProto.FLOAT16: "f16",
    onnx.TensorProto.INT64: "i64",
    onnx.TensorProto.INT32: "i32",
    onnx.TensorProto.INT8: "i8",
    onnx.TensorProto.UINT8: "u8",
}
LAYER = re.compile(r"^(past_key_values|present|cross)\.\d+\.")


def describe(values: list[onnx.ValueInfoProto]) -> dict[str, dict]:
    """Name to type and shape; names of free dimensions stand in the shape. Tensors per layer share one pattern."""
    described = {}
    for value in values:
        tensor = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "any" for dim in tensor.shape.dim]
        described[LAYER.sub(r"\1.{layer}.", value.name)] = {"type": TYPES[tensor.elem_type], "shape": shape}
    return described
