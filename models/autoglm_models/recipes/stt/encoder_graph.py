"""The first graph: sound to the keys and values that the decoder attends to, with the front end of `mel` inside.

`pcm[1, 480000]` f32 in -1..1 at 16 kHz, 30 s, what is shorter filled up with zeros; outputs `cross.{layer}.key` and
`cross.{layer}.value`, `[1, heads, 1500, head_dim]`. Shorter windows would be computed faster, and the model, which never met one, then says what it heard over and over.
"""

import numpy as np
from onnx import TensorProto, helper

from ..chat.graph_writer import MS_DOMAIN, GraphWriter
from . import mel
from .layers import Layers


def write_encoder(layers: Layers) -> None:
    weights, graph = layers.weights, layers.graph
    width = weights.floats("encoder/layer_norm/gamma").size
    write_front_end(graph, "mel")
    _convolution(layers, "mel", "encoder/conv1", "conv1", stride=1)
    _convolution(layers, "conv1", "encoder/conv2", "conv2", stride=2)
    graph.node("Transpose", ["conv2"], ["rows"], perm=[0, 2, 1])
    positions = weights.floats("encoder/position_encodings/encodings")
    graph.tensor("positions", positions)
    graph.node("Add", ["rows", "positions"], ["placed"])
    x = "placed"
    for layer in range(weights.layers("encoder")):
        stored, name = f"encoder/layer_{layer}/", f"layer{layer}."
        layers.norm(stored + "self_attention/layer_norm", x, name + "norm")
        for index, part in enumerate(("query", "key", "value")):
            rows = slice(index * width, (index + 1) * width)
            layers.linear(stored + "self_attention/linear_0", name + "norm", name + part, rows)
        parts = [name + part for part in ("query", "key", "value")]
        graph.node("MultiHeadAttention", parts, [name + "mixed"], MS_DOMAIN, num_heads=layers.heads)
        layers.linear(stored + "self_attention/linear_1", name + "mixed", name + "attended")
        graph.node("Add", [x, name + "attended"], [name + "between"])
        x = layers.feed_forward(stored, name + "between", name)
    layers.norm("encoder/layer_norm", x, "heard")
    graph.tensor("by_head", np.array([0, 0, layers.heads, width // layers.heads], np.int64))
    outputs = []
    for layer in range(weights.layers("decoder")):
        for index, part in enumerate(("key", "value")):
            result = f"cross.{layer}.{part}"
            rows = slice(index * width, (index + 1) * width)
            layers.linear(f"decoder/layer_{layer}/attention/linear_1", "heard", result + ".flat", rows)
            graph.node("Reshape", [result + ".flat", "by_head"], [result + ".split"])
            graph.node("Transpose", [result + ".split"], [result], perm=[0, 2, 1, 3])
            shape = [1, layers.heads, len(positions), width // layers.heads]
            outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, shape))
    graph.finish("encoder", [_pcm()], outputs)


def write_front_end(graph: GraphWriter, result: str) -> None:
    """`pcm` to `[1, 80, 3000]`: the Fourier transform is a convolution with cosines and sines under the window."""
    angles = np.arange(mel.BINS)[:, None] * np.arange(mel.WINDOW_SAMPLES) * 2 * np.pi / mel.WINDOW_SAMPLES
    basis = np.concatenate([np.cos(angles), -np.sin(angles)]) * mel.hann()
    half = mel.WINDOW_SAMPLES // 2
    graph.tensor("front.one", np.array([1], np.int64))
    graph.node("Unsqueeze", ["pcm", "front.one"], ["front.channel"])
    graph.tensor("front.ends", np.array([0, 0, half, 0, 0, half], np.int64))
    graph.node("Pad", ["front.channel", "front.ends"], ["front.mirrored"], mode="reflect")
    graph.tensor("front.basis", basis.astype(np.float32)[:, None])
    inputs = ["front.mirrored", "front.basis"]
    graph.node("Conv", inputs, ["front.waves"], strides=[mel.HOP_SAMPLES], kernel_shape=[mel.WINDOW_SAMPLES])
    graph.node("Mul", ["front.waves", "front.waves"], ["front.squares"])
    graph.tensor("front.halves", np.array([mel.BINS, mel.BINS], np.int64))
    graph.node("Split", ["front.squares", "front.halves"], ["front.real", "front.imaginary"], axis=1)
    graph.node("Add", ["front.real", "front.imaginary"], ["front.powers"])
    # One frame too many, as of every transform that begins and ends in the middle of a window.
    for name, value in (("front.start", 0), ("front.last", -1), ("front.frames", 2)):
        graph.tensor(name, np.array([value], np.int64))
    graph.node("Slice", ["front.powers", "front.start", "front.last", "front.frames"], ["front.power"])
    graph.tensor("front.filters", mel.filters())
    graph.node("MatMul", ["front.filters", "front.power"], ["front.bands"])
    numbers = {
        "least": mel.LEAST_POWER,
        "per_ten": 1 / np.log(10),
        "range": mel.RANGE_LOG10,
        "four": 4.0,
        "quarter": 0.25,
    }
    for name, value in numbers.items():
        graph.tensor("front." + name, np.array(value, np.float32))
    graph.node("Max", ["front.bands", "front.least"], ["front.audible"])
    graph.node("Log", ["front.audible"], ["front.natural"])
    graph.node("Mul", ["front.natural", "front.per_ten"], ["front.logs"])
    graph.tensor("front.all", np.array([1, 2], np.int64))
    graph.node("ReduceMax", ["front.logs", "front.all"], ["front.peak"], keepdims=1)
    graph.node("Sub", ["front.peak", "front.range"], ["front.floor"])
    graph.node("Max", ["front.logs", "front.floor"], ["front.floored"])
    graph.node("Add", ["front.floored", "front.four"], ["front.raised"])
    graph.node("Mul", ["front.raised", "front.quarter"], [result])


def finish_front_end(graph: GraphWriter) -> None:
    """The front end as a graph of its own, to be held against the reference."""
    shape = [1, mel.BANDS, mel.SAMPLES // mel.HOP_SAMPLES]
    graph.finish("front_end", [_pcm()], [helper.make_tensor_value_info("mel", TensorProto.FLOAT, shape)])


def _pcm() -> object:
    return helper.make_tensor_value_info("pcm", TensorProto.FLOAT, [1, mel.SAMPLES])


def _convolution(layers: Layers, source: str, stored: str, result: str, stride: int) -> None:
    graph = layers.graph
    graph.tensor(result + ".weight", layers.weights.floats(stored + "/weight"))
    graph.tensor(result + ".bias", layers.weights.floats(stored + "/bias"))
    inputs = [source, result + ".weight", result + ".bias"]
    graph.node("Conv", inputs, [result + ".sums"], strides=[stride], kernel_shape=[3], pads=[1, 1])
    graph.node("Gelu", [result + ".sums"], [result])
