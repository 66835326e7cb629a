"""The two ways in which exported decoders compute attention: one fused operator, or a dozen primitive ones."""

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from ..chat.graph_writer import MS_DOMAIN, GraphWriter

if TYPE_CHECKING:
    from .layout import Shape


def seen_lengths(graph: GraphWriter) -> None:
    """GroupQueryAttention wants lengths; the mask is the only place where the layout tells them."""
    graph.tensor("one", np.array(1, np.int64))
    graph.tensor("axis.1", np.array([1], np.int64))
    graph.node("ReduceSum", ["attention_mask", "axis.1"], ["seen"], keepdims=0)
    graph.node("Sub", ["seen", "one"], ["seen.less_one"])
    graph.node("Cast", ["seen.less_one"], ["seqlens_k"], to=TensorProto.INT32)
    graph.node("Shape", ["attention_mask"], ["mask.shape"])
    graph.node("Gather", ["mask.shape", "one"], ["total"], axis=0)
    graph.node("Cast", ["total"], ["total_sequence_length"], to=TensorProto.INT32)


def fused_attention(graph: GraphWriter, shape: "Shape", layer: int) -> None:
    name = f"layer{layer}."
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    graph.node(
        "GroupQueryAttention",
        [name + "q", name + "k", name + "v", *past, "seqlens_k", "total_sequence_length", "rotary.cos", "rotary.sin"],
        [name + "attention", f"present.{layer}.key", f"present.{layer}.value"],
        MS_DOMAIN,
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
        do_rotary=1,
        rotary_interleaved=0,
        scale=shape.head_dim**-0.5,
    )


def masks_for_plain(graph: GraphWriter, shape: "Shape") -> None:
    """`bias[batch, 1, sequence, total]`: 0 where a token may look, a large negative number elsewhere; and the rotations."""
    for name, value in (("zero", 0), ("one", 1), ("two", 2)):
        graph.tensor(name, np.array(value, np.int64))
    graph.tensor("axes.keys", np.array([1, 2], np.int64))
    graph.tensor("axes.queries", np.array([0, 1, 3], np.int64))
    graph.tensor("axes.known", np.array([0, 1, 2], np.int64))
    graph.tensor("bias.none", np.array(0, shape.dtype))
    graph.tensor("bias.never", np.array(-65504 if shape.dtype == np.float16 else -1e9, shape.dtype))
    graph.node("Shape", ["attention_mask"], ["mask.shape"])
    graph.node("Gather", ["mask.shape", "one"], ["total"], axis=0)
    graph.node("Shape", ["input_ids"], ["ids.shape"])
    graph.node("Gather", ["ids.shape", "one"], ["sequence"], axis=0)
    graph.node("Sub", ["total", "sequence"], ["past"])
    graph.node("Range", ["zero", "total", "one"], ["columns"])
    graph.node("Unsqueeze", ["columns", "axes.known"], ["columns.4d"])
    graph.node("Range", ["past", "total", "one"], ["rows"])
    graph.node("Unsqueeze", ["rows", "axes.queries"], ["rows.4d"])
    graph.node("LessOrEqual", ["columns.4d", "rows.4d"], ["causal"])
    graph.node("Cast", ["attention_mask"], ["mask.bool"], to=TensorProto.BOOL)
    graph.node("Unsqueeze", ["mask.bool", "axes.keys"], ["mask.4d"])
    graph.node("And", ["causal", "mask.4d"], ["visible"])
    graph.node("Where", ["visible", "bias.none", "bias.never"], ["bias"])
    graph.tensor("axis.heads", np.array([1], np.int64))
    for part in ("cos", "sin"):
        graph.node("Gather", [f"rotary.{part}", "position_ids"], [f"{part}.half"], axis=0)
        graph.node("Concat", [f"{part}.half", f"{part}.half"], [f"{part}.whole"], axis=-1)
        graph.node("Unsqueeze", [f"{part}.whole", "axis.heads"], [part])
    graph.tensor("halves", np.array([shape.head_dim // 2] * 2, np.int64))
    graph.tensor("heads.q", np.array([0, 0, shape.heads, shape.head_dim], np.int64))
    graph.tensor("heads.kv", np.array([0, 0, shape.kv_heads, shape.head_dim], np.int64))
    graph.tensor("scale", np.array(shape.head_dim**-0.5, shape.dtype))
    graph.tensor("merged", np.array([0, 0, shape.width], np.int64))


def plain_attention(graph: GraphWriter, shape: "Shape", layer: int) -> None:
    name = f"layer{layer}."
    for part in ("q", "k", "v"):
        heads = "heads.q" if part == "q" else "heads.kv"
        graph.node("Reshape", [name + part, heads], [name + part + ".split"])
        graph.node("Transpose", [name + part + ".split"], [name + part + ".heads"], perm=[0, 2, 1, 3])
    for part in ("q", "k"):
        _rotate(graph, name + part)
    for part, new in (("key", "k.rotated"), ("value", "v.heads")):
        past = f"past_key_values.{layer}.{part}"
        graph.node("Concat", [past, name + new], [f"present.{layer}.{part}"], axis=2)
        _repeat(graph, shape, f"present.{layer}.{part}", name + part)
    graph.node("Transpose", [name + "key"], [name + "key.t"], perm=[0, 1, 3, 2])
    graph.node("MatMul", [name + "q.rotated", name + "key.t"], [name + "products"])
    graph.node("Mul", [name + "products", "scale"], [name + "scaled"])
    graph.node("Add", [name + "scaled", "bias"], [name + "scores"])
    graph.node("Softmax", [name + "scores"], [name + "weights"], axis=-1)
    graph.node("MatMul", [name + "weights", name + "value"], [name + "mixed"])
    graph.node("Transpose", [name + "mixed"], [name + "mixed.t"], perm=[0, 2, 1, 3])
    graph.node("Reshape", [name + "mixed.t", "merged"], [name + "attention"])


def _rotate(graph: GraphWriter, name: str) -> None:
    """Rotates component i of a head with component i + head_dim / 2 (RoFormer, arXiv:2104.09864)."""
    graph.node("Split", [name + ".heads", "halves"], [name + ".low", name + ".high"], axis=-1)
    graph.node("Neg", [name + ".high"], [name + ".negative"])
    graph.node("Concat", [name + ".negative", name + ".low"], [name + ".turned"], axis=-1)
    graph.node("Mul", [name + ".heads", "cos"], [name + ".cos"])
    graph.node("Mul", [name + ".turned", "sin"], [name + ".sin"])
    graph.node("Add", [name + ".cos", name + ".sin"], [name + ".rotated"])


def _repeat(graph: GraphWriter, shape: "Shape", source: str, result: str) -> None:
    """Each key-value head serves `heads / kv_heads` query heads."""
    times = shape.heads // shape.kv_heads
    graph.once("axis.repeat", lambda: np.array([2], np.int64))
    graph.once("repeat", lambda: np.array([1, 1, times, 1, 1], np.int64))
    graph.once("repeated", lambda: np.array([0, shape.heads, -1, shape.head_dim], np.int64))
    graph.node("Unsqueeze", [source, "axis.repeat"], [result + ".group"])
    graph.node("Expand", [result + ".group", "repeat"], [result + ".groups"])
    graph.node("Reshape", [result + ".groups", "repeated"], [result])
