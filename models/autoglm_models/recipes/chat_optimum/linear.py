"""Linear layers in the precisions in which such exports come; int4 is the default bundle's own form."""

import numpy as np

from ..chat.gguf_weights import BLOCK, OffsetBlocks
from ..chat.graph_writer import MS_DOMAIN, GraphWriter
from ..chat.linear import ACCURACY_LEVEL


def linear_of_floats(graph: GraphWriter, name: str, source: str, weights: OffsetBlocks, result: str) -> None:
    """In the type of the graph's activations, which `graph.float_type` tells."""
    graph.tensor(f"{name}.weight", weights.to_floats().T.astype(graph.float_type))
    graph.node("MatMul", [source, f"{name}.weight"], [result])


def linear_8_bits(graph: GraphWriter, name: str, source: str, weights: OffsetBlocks, result: str) -> None:
    """Blocks of 32, symmetric around 128."""
    floats = weights.to_floats()
    rows, columns = floats.shape
    blocks = floats.reshape(rows, columns // BLOCK, BLOCK)
    scale = np.maximum(np.abs(blocks).max(-1) / 127, 1e-8).astype(np.float32)
    q = (np.clip(np.rint(blocks / scale[..., None]), -127, 127) + 128).astype(np.uint8)
    graph.tensor(f"{name}.weight", q)
    graph.tensor(f"{name}.scales", scale)
    graph.node(
        "MatMulNBits",
        [source, f"{name}.weight", f"{name}.scales"],
        [result],
        MS_DOMAIN,
        K=columns,
        N=rows,
        bits=8,
        block_size=BLOCK,
        accuracy_level=ACCURACY_LEVEL,
    )
