"""The decoder in the layout of optimum and transformers.js.

Inputs `input_ids[batch, sequence]`, `attention_mask[batch, total]` (1 for tokens that count), in the plain form
`position_ids[batch, sequence]`, and per layer `past_key_values.{i}.key/value[batch, kv_heads, past, head_dim]`; outputs
`logits[batch, sequence, vocab_size]` and `present.{i}.key/value[batch, kv_heads, total, head_dim]`.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from ..chat.decoder_graph import byte_embedding, product_with_embedding, rotary_angles
from ..chat.gguf_weights import GgufWeights, Hyperparameters, OffsetBlocks, half_rotary_order
from ..chat.graph_writer import GraphWriter
from ..chat.linear import LinearForm
from .attention import fused_attention, masks_for_plain, plain_attention, seen_lengths


@dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_tokens: int
    epsilon: float
    attention: str
    dtype: type
    quantised: bool

    @staticmethod
    def of(hyper: Hyperparameters, layers: int | None, attention: str, dtype: type, quantised: bool) -> "Shape":
        return Shape(
            layers or hyper.layers,
            hyper.width,
            hyper.heads,
            hyper.kv_heads,
            hyper.head_dim,
            hyper.vocab_size,
            hyper.context_tokens,
            hyper.norm_epsilon,
            attention,
            dtype,
            quantised,
        )


def write_decoder(weights: GgufWeights, shape: Shape, graph: GraphWriter, linear: LinearForm) -> None:
    graph.float_type = shape.dtype
    if shape.quantised:
        byte_embedding(weights, graph, "hidden.0")
    else:
        graph.tensor("embedding", weights.floats("token_embd.weight").astype(shape.dtype))
        graph.node("Gather", ["embedding", "input_ids"], ["hidden.0"], axis=0)
    angles = rotary_angles(weights.hyper)
    graph.tensor("rotary.cos", np.cos(angles).astype(shape.dtype))
    graph.tensor("rotary.sin", np.sin(angles).astype(shape.dtype))
    if shape.attention == "fused":
        seen_lengths(graph)
    else:
        masks_for_plain(graph, shape)
    for layer in range(shape.layers):
        _layer(weights, shape, graph, linear, layer)
    _norm(weights, shape, graph, "output_norm.weight", f"hidden.{shape.layers}", "final")
    if shape.quantised:
        product_with_embedding(weights.hyper, graph, "final", "logits")
    else:
        graph.node("Transpose", ["embedding"], ["head"], perm=[1, 0])
        graph.node("MatMul", ["final", "head"], ["logits"])
    graph.finish("decoder", *_signature(shape))


def _layer(weights: GgufWeights, shape: Shape, graph: GraphWriter, linear: LinearForm, layer: int) -> None:
    stored, name = f"blk.{layer}.", f"layer{layer}."
    _norm(weights, shape, graph, stored + "attn_norm.weight", f"hidden.{layer}", name + "attention_norm")
    for part, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
        blocks = weights.offset_blocks(stored + f"attn_{part}.weight")
        if part != "v":
            blocks = blocks.rows(half_rotary_order(len(blocks.q), heads))
        linear(graph, name + part, name + "attention_norm", blocks, name + part)
    (fused_attention if shape.attention == "fused" else plain_attention)(graph, shape, layer)
    linear(graph, name + "out", name + "attention", weights.offset_blocks(stored + "attn_output.weight"), name + "out")
    graph.node("Add", [f"hidden.{layer}", name + "out"], [name + "between"])
    _norm(weights, shape, graph, stored + "ffn_norm.weight", name + "between", name + "mlp_norm")
    for part in ("gate", "up"):
        linear(graph, name + part, name + "mlp_norm", weights.offset_blocks(stored + f"ffn_{part}.weight"), name + part)
    graph.node("Sigmoid", [name + "gate"], [name + "gate.sigmoid"])
    graph.node("Mul", [name + "gate", name + "gate.sigmoid"], [name + "silu"])
    graph.node("Mul", [name + "silu", name + "up"], [name + "gated"])
    down: OffsetBlocks = weights.offset_blocks(stored + "ffn_down.weight")
    linear(graph, name + "down", name + "gated", down, name + "down")
    graph.node("Add", [name + "between", name + "down"], [f"hidden.{layer + 1}"])


def _norm(weights: GgufWeights, shape: Shape, graph: GraphWriter, stored: str, source: str, result: str) -> None:
    graph.tensor(result + ".gain", weights.floats(stored).astype(shape.dtype))
    if shape.attention == "fused":
        graph.node(
            "SimplifiedLayerNormalization",
            [source, result + ".gain"],
            [result],
            axis=-1,
            epsilon=shape.epsilon,
            stash_type=1,
        )
        return
    # As exporters write it: in 32 bits whatever the graph's type.
    graph.once("norm.two", lambda: np.array(2, np.float32))
    graph.once("norm.epsilon", lambda: np.array(shape.epsilon, np.float32))
    graph.once("norm.axes", lambda: np.array([-1], np.int64))
    graph.node("Cast", [source], [result + ".x"], to=TensorProto.FLOAT)
    graph.node("Pow", [result + ".x", "norm.two"], [result + ".square"])
    graph.node("ReduceMean", [result + ".square", "norm.axes"], [result + ".mean"], keepdims=1)
    graph.node("Add", [result + ".mean", "norm.epsilon"], [result + ".shifted"])
    graph.node("Sqrt", [result + ".shifted"], [result + ".root"])
    graph.node("Div", [result + ".x", result + ".root"], [result + ".unit"])
    graph.node(
        "Cast", [result + ".unit"], [result + ".typed"], to=helper.np_dtype_to_tensor_dtype(np.dtype(shape.dtype))
    )
    graph.node("Mul", [result + ".typed", result + ".gain"], [result])


def _signature(shape: Shape) -> tuple[list, list]:
    floats = helper.np_dtype_to_tensor_dtype(np.dtype(shape.dtype))

    def cache(kind: str, length: str) -> list:
        return [
            helper.make_tensor_value_info(
                f"{kind}.{layer}.{part}", floats, ["batch_size", shape.kv_heads, length, shape.head_dim]
            )
            for layer in range(shape.layers)
            for part in ("key", "value")
        ]

    tokens = ["batch_size", "sequence_length"]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]),
    ]
    if shape.attention == "plain":
        inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, tokens))
    inputs += cache("past_key_values", "past_sequence_length")
    outputs = [helper.make_tensor_value_info("logits", floats, [*tokens, shape.vocab_size])]
    return inputs, outputs + cache("present", "total_sequence_length")
