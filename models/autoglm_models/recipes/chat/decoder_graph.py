"""The decoder as a graph: llama's architecture in ONNX Runtime's fused operators, with the KV cache bound in place.

Layout `gqa-in-place`: `input_ids[batch, sequence]`, `seqlens_k[batch]` (tokens in the cache after this step, less one),
`total_sequence_length` (the longest row's tokens), `logits_pos[positions]` (which of the batch * sequence positions
need logits), and per layer `past_key_values.{i}.key/value[batch, kv_heads, max_length, head_dim]`, to be bound to the
same buffers as `present.{i}.key/value`. They hold floats or, where scales are given, bytes.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from .gguf_weights import BLOCK, GgufWeights, Hyperparameters, OffsetBlocks, half_rotary_order
from .graph_writer import MS_DOMAIN, GraphWriter
from .linear import ACCURACY_LEVEL, LinearForm


@dataclass(frozen=True)
class CacheScales:
    """What one step of a byte in the cache stands for, `[layers, kv_heads * head_dim]` each: keys after the rotation, values."""

    keys: np.ndarray
    values: np.ndarray


def write_decoder(
    weights: GgufWeights, graph: GraphWriter, linear: LinearForm, scales: CacheScales | None = None
) -> None:
    hyper = weights.hyper
    byte_embedding(weights, graph, "embedded")
    _rotary_tables(hyper, graph)
    graph.tensor("halves", np.array([hyper.feed_forward] * 2, np.int64))
    residual, addend = "embedded", ""
    for layer in range(hyper.layers):
        residual, addend = _layer(weights, graph, linear, scales, layer, residual, addend)
    graph.tensor("final.gain", weights.floats("output_norm.weight"))
    _norm_of_sum(graph, hyper, residual, addend, "final", keep_sum="")
    _head(hyper, graph)
    inputs, outputs = _signature(hyper, TensorProto.INT8 if scales else TensorProto.FLOAT)
    graph.finish("decoder", inputs, outputs)


def byte_embedding(weights: GgufWeights, graph: GraphWriter, result: str) -> None:
    q, scale = weights.signed_blocks("token_embd.weight")
    rows, blocks, _ = q.shape
    # Both operators take unsigned bytes, and 128 as the zero point when none is given.
    graph.tensor("embedding.weight", (q.astype(np.int16) + 128).astype(np.uint8).reshape(rows, blocks * BLOCK))
    graph.tensor("embedding.scales", scale)
    graph.node(
        "GatherBlockQuantized",
        ["embedding.weight", "input_ids", "embedding.scales"],
        [result],
        MS_DOMAIN,
        bits=8,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )


def rotary_angles(hyper: Hyperparameters) -> np.ndarray:
    """`[context_tokens, head_dim / 2]` in radians (RoFormer, arXiv:2104.09864, section 3.2.2)."""
    inverse = hyper.rope_base ** -(np.arange(0, hyper.head_dim, 2, dtype=np.float64) / hyper.head_dim)
    return np.arange(hyper.context_tokens)[:, None] * inverse


def _rotary_tables(hyper: Hyperparameters, graph: GraphWriter) -> None:
    angles = rotary_angles(hyper)
    graph.tensor("rotary.cos", np.cos(angles).astype(np.float32))
    graph.tensor("rotary.sin", np.sin(angles).astype(np.float32))


def _layer(
    weights: GgufWeights,
    graph: GraphWriter,
    linear: LinearForm,
    scales: CacheScales | None,
    layer: int,
    residual: str,
    addend: str,
) -> tuple[str, str]:
    """Adds one layer; gives the names of the residual and of what is still to be added to it."""
    hyper = weights.hyper
    stored, name = f"blk.{layer}.", f"layer{layer}."
    graph.tensor(name + "attention_norm.gain", weights.floats(stored + "attn_norm.weight"))
    graph.tensor(name + "mlp_norm.gain", weights.floats(stored + "ffn_norm.weight"))

    _norm_of_sum(graph, hyper, residual, addend, name + "attention_norm", keep_sum=name + "before" if addend else "")
    residual = name + "before" if addend else residual
    linear(graph, name + "qkv", name + "attention_norm", _query_key_value(weights, stored), name + "qkv")
    _attention(graph, hyper, layer, scales)
    linear(graph, name + "out", name + "attention", weights.offset_blocks(stored + "attn_output.weight"), name + "out")

    _norm_of_sum(graph, hyper, residual, name + "out", name + "mlp_norm", keep_sum=name + "between")
    gate_up = OffsetBlocks.stacked([weights.offset_blocks(stored + f"ffn_{part}.weight") for part in ("gate", "up")])
    linear(graph, name + "gate_up", name + "mlp_norm", gate_up, name + "gate_up")
    graph.node("Split", [name + "gate_up", "halves"], [name + "gate", name + "up"], axis=-1)
    # QuickGelu with alpha 1 is SiLU.
    graph.node("QuickGelu", [name + "gate"], [name + "silu"], MS_DOMAIN, alpha=1.0)
    graph.node("Mul", [name + "silu", name + "up"], [name + "gated"])
    linear(graph, name + "down", name + "gated", weights.offset_blocks(stored + "ffn_down.weight"), name + "down")
    return name + "between", name + "down"


def _norm_of_sum(
    graph: GraphWriter, hyper: Hyperparameters, residual: str, addend: str, name: str, keep_sum: str
) -> None:
    """Root-mean-square norm of `residual + addend`; the sum itself comes out as `keep_sum` where a name is given."""
    epsilon = hyper.norm_epsilon
    if not addend:
        graph.node(
            "SimplifiedLayerNormalization", [residual, name + ".gain"], [name], axis=-1, epsilon=epsilon, stash_type=1
        )
        return
    outputs = [name, "", "", keep_sum] if keep_sum else [name]
    graph.node(
        "SkipSimplifiedLayerNormalization", [residual, addend, name + ".gain"], outputs, MS_DOMAIN, epsilon=epsilon
    )


def _query_key_value(weights: GgufWeights, stored: str) -> OffsetBlocks:
    query, key, value = (weights.offset_blocks(stored + f"attn_{part}.weight") for part in ("q", "k", "v"))
    query = query.rows(half_rotary_order(len(query.q), weights.hyper.heads))
    key = key.rows(half_rotary_order(len(key.q), weights.hyper.kv_heads))
    return OffsetBlocks.stacked([query, key, value])


def _attention(graph: GraphWriter, hyper: Hyperparameters, layer: int, scales: CacheScales | None) -> None:
    name = f"layer{layer}."
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    present = [f"present.{layer}.{part}" for part in ("key", "value")]
    inputs = [name + "qkv", "", "", *past, "seqlens_k", "total_sequence_length", "rotary.cos", "rotary.sin"]
    quantised = {}
    if scales:
        graph.tensor(name + "key.scales", scales.keys[layer])
        graph.tensor(name + "value.scales", scales.values[layer])
        # No positions, no bias, no sinks.
        inputs += ["", "", "", name + "key.scales", name + "value.scales"]
        quantised = {"kv_cache_bit_width": 8, "k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
    graph.node(
        "GroupQueryAttention",
        inputs,
        [name + "attention", *present],
        MS_DOMAIN,
        **quantised,
        num_heads=hyper.heads,
        kv_num_heads=hyper.kv_heads,
        do_rotary=1,
        rotary_interleaved=0,
        scale=hyper.head_dim**-0.5,
    )


def _head(hyper: Hyperparameters, graph: GraphWriter) -> None:
    """Logits at the wanted positions only, from the same bytes as the embedding."""
    graph.tensor("flat", np.array([-1, hyper.width], np.int64))
    graph.node("Reshape", ["final", "flat"], ["hidden"])
    graph.node("Gather", ["hidden", "logits_pos"], ["wanted"], axis=0)
    product_with_embedding(hyper, graph, "wanted", "logits")


def product_with_embedding(hyper: Hyperparameters, graph: GraphWriter, source: str, result: str) -> None:
    """The embedding's own bytes as the last linear layer."""
    graph.view("head.weight", "embedding.weight", (hyper.vocab_size, hyper.width // BLOCK, BLOCK))
    graph.node(
        "MatMulNBits",
        [source, "head.weight", "embedding.scales"],
        [result],
        MS_DOMAIN,
        K=hyper.width,
        N=hyper.vocab_size,
        bits=8,
        block_size=BLOCK,
        accuracy_level=ACCURACY_LEVEL,
    )


def _signature(hyper: Hyperparameters, cached: int) -> tuple[list, list]:
    def cache(kind: str) -> list:
        shape = ["batch", hyper.kv_heads, "max_length", hyper.head_dim]
        return [
            helper.make_tensor_value_info(f"{kind}.{layer}.{part}", cached, shape)
            for layer in range(hyper.layers)
            for part in ("key", "value")
        ]

    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        helper.make_tensor_value_info("logits_pos", TensorProto.INT64, ["positions"]),
        *cache("past_key_values"),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["positions", hyper.vocab_size]),
        *cache("present"),
    ]
    return inputs, outputs
