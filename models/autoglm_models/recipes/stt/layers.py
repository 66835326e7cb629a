"""The pieces that both graphs are made of: linear layers in 8 bits, norms, the feed-forward part.

Weights are signed bytes with a scale for each output. Activations are quantised as they come, with one scale for all of a run. These are ONNX's
own operators; the CPU provider joins them into its fused ones.

Tried and left: 7 bits of the bytes (x86 processors without 8-bit dot products add two products in 16 bits, which full bytes can
overflow) lose 4 words more in 305; unsigned weights lose none and make the encoder 1.4 times slower. Where such a processor comes out too
far off, the probe says so.
"""

import numpy as np

from ..chat.graph_writer import GraphWriter
from .ct2_weights import Ct2Weights
from .reference import NORM_EPSILON

WEIGHT_MAX = 127


class Layers:
    def __init__(self, weights: Ct2Weights, graph: GraphWriter, weight_max: int = WEIGHT_MAX):
        self.weights, self.graph = weights, graph
        self.heads = weights.number("encoder/num_heads")
        self._weight_max = weight_max

    def linear(self, stored: str, source: str, result: str, rows: slice = slice(None)) -> None:
        """`rows` are those of the stored weight, where several layers are stored as one."""
        weight, bias = self.weights.floats(stored + "/weight")[rows], self.weights.floats(stored + "/bias")[rows]
        scale = np.maximum(np.abs(weight).max(1) / self._weight_max, 1e-8).astype(np.float32)
        self.graph.tensor(result + ".weight", np.rint(weight.T / scale).astype(np.int8))
        self.graph.tensor(result + ".scale", scale)
        self.graph.tensor(result + ".bias", bias)
        quantised = [f"{source}.{part}" for part in ("bytes", "step", "zero")]
        if not self.graph.has(quantised[0]):
            self.graph.node("DynamicQuantizeLinear", [source], quantised)
        product = [quantised[0], result + ".weight", quantised[2]]
        self.graph.node("MatMulInteger", product, [result + ".sums"])
        self.graph.node("Cast", [result + ".sums"], [result + ".floats"], to=1)
        self.graph.node("Mul", [quantised[1], result + ".scale"], [result + ".steps"])
        self.graph.node("Mul", [result + ".floats", result + ".steps"], [result + ".scaled"])
        self.graph.node("Add", [result + ".scaled", result + ".bias"], [result])

    def norm(self, stored: str, source: str, result: str) -> None:
        self.graph.tensor(result + ".gain", self.weights.floats(stored + "/gamma"))
        self.graph.tensor(result + ".shift", self.weights.floats(stored + "/beta"))
        inputs = [source, result + ".gain", result + ".shift"]
        self.graph.node("LayerNormalization", inputs, [result], axis=-1, epsilon=NORM_EPSILON)

    def feed_forward(self, stored: str, source: str, name: str) -> str:
        """With its residual; gives the name of the sum."""
        self.norm(stored + "ffn/layer_norm", source, name + "ffn_norm")
        self.linear(stored + "ffn/linear_0", name + "ffn_norm", name + "inner")
        self.graph.node("Gelu", [name + "inner"], [name + "active"])
        self.linear(stored + "ffn/linear_1", name + "active", name + "ffn")
        self.graph.node("Add", [source, name + "ffn"], [name + "out"])
        return name + "out"
