"""4-bit blocks with integer zero points, the form that ONNX Runtime's MatMulNBits computes with."""

from dataclasses import dataclass

import numpy as np

from .gguf_weights import BLOCK

Q_MAX = 15
# The scale and the zero point are searched around the straightforward ones; finer grids gained nothing measurable.
SCALE_FACTORS = (0.85, 0.9, 0.94, 0.97, 1.0, 1.03, 1.06, 1.1, 1.15)
ZERO_POINT_STEPS = (-1, 0, 1, 2)
TINY = 1e-8


@dataclass(frozen=True)
class IntegerBlocks:
    """weight = scale * (q - zero_point); `q[rows, blocks, 32]`, all in 0..15."""

    q: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray

    def to_floats(self) -> np.ndarray:
        weights = (self.q.astype(np.float32) - self.zero_point[..., None]) * self.scale[..., None]
        return weights.reshape(weights.shape[0], -1)

    def packed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights `[rows, blocks, 16]`, scales and zero points as MatMulNBits takes them: low nibble first."""
        zero_point = self.zero_point.astype(np.uint8)
        if zero_point.shape[1] % 2:
            zero_point = np.pad(zero_point, ((0, 0), (0, 1)))
        q = self.q.astype(np.uint8)
        return (
            q[..., 0::2] | q[..., 1::2] << 4,
            self.scale.astype(np.float32),
            zero_point[:, 0::2] | zero_point[:, 1::2] << 4,
        )


def fit_blocks(weights: np.ndarray) -> IntegerBlocks:
    """The blocks with the least squared error to `weights[rows, columns]`, by search over scales and zero points."""
    rows, columns = weights.shape
    blocks = weights.reshape(-1, BLOCK)
    low, high = blocks.min(-1), blocks.max(-1)
    plain_scale = np.maximum((high - low) / Q_MAX, TINY)
    best_error = np.full(len(blocks), np.inf, np.float32)
    q_best = np.zeros(blocks.shape, np.uint8)
    scale_best = plain_scale.copy()
    zero_best = np.zeros(len(blocks), np.uint8)
    for factor in SCALE_FACTORS:
        scale = plain_scale * factor
        middle = Q_MAX / 2 - (low + high) / 2 / scale
        for step in ZERO_POINT_STEPS:
            zero = np.clip(np.floor(middle) + step, 0, Q_MAX)
            q = np.clip(np.rint(blocks / scale[:, None]) + zero[:, None], 0, Q_MAX)
            centred = q - zero[:, None]
            fitted = (centred * blocks).sum(-1) / np.maximum((centred**2).sum(-1), 1e-9)
            fitted = np.where(fitted > 0, fitted, scale)
            error = ((blocks - centred * fitted[:, None]) ** 2).sum(-1)
            better = error < best_error
            best_error[better] = error[better]
            q_best[better] = q[better]
            scale_best[better] = fitted[better]
            zero_best[better] = zero[better]
    per_row = (rows, columns // BLOCK)
    return IntegerBlocks(
        q_best.reshape(*per_row, BLOCK), scale_best.astype(np.float32).reshape(per_row), zero_best.reshape(per_row)
    )
