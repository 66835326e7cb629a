"""The second graph: tokens so far and what was heard to the logits of the next token, with its cache bound in place.

`input_ids[batch, sequence]` and `position_ids[batch, sequence]`, `seqlens_k[batch]` (tokens in the cache after this step, less one),
`total_sequence_length` (all tokens so far), `logits_pos[positions]` (which of the tokens need logits), per layer
`cross.{i}.key/value` as the encoder gives them, and `past_key_values.{i}.key/value[batch, heads, max_length, head_dim]`, to be
bound to the same buffers as `present.{i}.key/value`.
"""

import numpy as np
from onnx import TensorProto, helper

from ..chat.graph_writer import MS_DOMAIN
from .layers import Layers

BLOCK = 32
# The head's inputs are quantised to 8 bits per block; floats would be many times slower.
ACCURACY_LEVEL = 4


def write_decoder(layers: Layers) -> None:
    weights, graph = layers.weights, layers.graph
    vocab_size, width = weights.floats("decoder/embeddings/weight").shape
    count = weights.layers("decoder")
    _embedding(layers)
    x = "placed"
    for layer in range(count):
        stored, name = f"decoder/layer_{layer}/", f"layer{layer}."
        layers.norm(stored + "self_attention/layer_norm", x, name + "norm")
        layers.linear(stored + "self_attention/linear_0", name + "norm", name + "qkv")
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        graph.node(
            "GroupQueryAttention",
            [name + "qkv", "", "", *past, "seqlens_k", "total_sequence_length"],
            [name + "mixed", *present],
            MS_DOMAIN,
            num_heads=layers.heads,
            kv_num_heads=layers.heads,
            do_rotary=0,
        )
        layers.linear(stored + "self_attention/linear_1", name + "mixed", name + "attended")
        graph.node("Add", [x, name + "attended"], [name + "between"])
        layers.norm(stored + "attention/layer_norm", name + "between", name + "cross_norm")
        layers.linear(stored + "attention/linear_0", name + "cross_norm", name + "query")
        heard = [name + "query", f"cross.{layer}.key", f"cross.{layer}.value"]
        graph.node("MultiHeadAttention", heard, [name + "listened"], MS_DOMAIN, num_heads=layers.heads)
        layers.linear(stored + "attention/linear_2", name + "listened", name + "crossed")
        graph.node("Add", [name + "between", name + "crossed"], [name + "after"])
        x = layers.feed_forward(stored, name + "after", name)
    layers.norm("decoder/layer_norm", x, "final")
    graph.tensor("flat", np.array([-1, width], np.int64))
    graph.node("Reshape", ["final", "flat"], ["hidden"])
    graph.node("Gather", ["hidden", "logits_pos"], ["wanted"], axis=0)
    graph.view("head.weight", "embedding.weight", (vocab_size, width // BLOCK, BLOCK))
    graph.node(
        "MatMulNBits",
        ["wanted", "head.weight", "embedding.scales"],
        ["logits"],
        MS_DOMAIN,
        K=width,
        N=vocab_size,
        bits=8,
        block_size=BLOCK,
        accuracy_level=ACCURACY_LEVEL,
    )
    graph.finish("decoder", *_signature(count, layers.heads, width // layers.heads, vocab_size))


def _embedding(layers: Layers) -> None:
    """One table of bytes for the first layer and the last; both operators take 128 as zero when they are told no other."""
    weights, graph = layers.weights, layers.graph
    table = weights.floats("decoder/embeddings/weight")
    rows, width = table.shape
    blocks = table.reshape(rows, width // BLOCK, BLOCK)
    scales = np.maximum(np.abs(blocks).max(-1) / 127, 1e-8).astype(np.float32)
    q = np.rint(blocks / scales[..., None]).astype(np.int16) + 128
    graph.tensor("embedding.weight", q.astype(np.uint8).reshape(rows, width))
    graph.tensor("embedding.scales", scales)
    inputs = ["embedding.weight", "input_ids", "embedding.scales"]
    attributes = {"bits": 8, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
    graph.node("GatherBlockQuantized", inputs, ["embedded"], MS_DOMAIN, **attributes)
    graph.tensor("positions.table", weights.floats("decoder/position_encodings/encodings"))
    graph.node("Gather", ["positions.table", "position_ids"], ["positions"], axis=0)
    graph.node("Add", ["embedded", "positions"], ["placed"])


def _signature(layers: int, heads: int, head_dim: int, vocab_size: int) -> tuple[list, list]:
    def tensors(kind: str, length: str) -> list:
        shape = ["batch", heads, length, head_dim]
        return [
            helper.make_tensor_value_info(f"{kind}.{layer}.{part}", TensorProto.FLOAT, shape)
            for layer in range(layers)
            for part in ("key", "value")
        ]

    tokens = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
        helper.make_tensor_value_info("position_ids", TensorProto.INT64, tokens),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        helper.make_tensor_value_info("logits_pos", TensorProto.INT64, ["wanted"]),
        *tensors("cross", "positions"),
        *tensors("past_key_values", "max_length"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["wanted", vocab_size])
    return inputs, [logits, *tensors("present", "max_length")]
