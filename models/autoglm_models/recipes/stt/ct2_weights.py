"""Reads the weights of a CTranslate2 model file, version 6: named arrays of halves, and names that share one array.

Little-endian throughout. A text is its length with the closing zero byte (u16) and its bytes; an array is its name, rank
(u8), dimensions (u32 each), element type (u8), length in bytes (u32) and the bytes themselves.
"""

import struct
from pathlib import Path

import numpy as np

VERSION = 6
SPECIFICATION = "WhisperSpec"
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


class Ct2Weights:
    """Raises ValueError where the file is not what is described above."""

    def __init__(self, path: Path):
        self._bytes = path.read_bytes()
        self._at = 0
        version, specification = self._number("I"), self._text()
        if (version, specification) != (VERSION, SPECIFICATION):
            raise ValueError(f"{path.name} is {specification} of format {version}, not {SPECIFICATION} of {VERSION}")
        self._number("I")  # the specification's own revision
        self._arrays = dict(self._array() for _ in range(self._number("I")))
        for _ in range(self._number("I")):
            alias, name = self._text(), self._text()
            self._arrays[alias] = self._arrays[name]

    def floats(self, name: str) -> np.ndarray:
        return self._arrays[name].astype(np.float32)

    def number(self, name: str) -> int:
        return int(self._arrays[name])

    def layers(self, part: str) -> int:
        """How many layers `encoder` or `decoder` has."""
        return len({name.split("/")[1] for name in self._arrays if name.startswith(f"{part}/layer_")} - {"layer_norm"})

    def _number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self._bytes, self._at)
        self._at += struct.calcsize(kind)
        return value

    def _text(self) -> str:
        length = self._number("H")
        text = self._bytes[self._at : self._at + length - 1].decode()
        self._at += length
        return text

    def _array(self) -> tuple[str, np.ndarray]:
        name = self._text()
        shape = [self._number("I") for _ in range(self._number("B"))]
        dtype, length = np.dtype(TYPES[self._number("B")]), self._number("I")
        array = np.frombuffer(self._bytes, dtype, length // dtype.itemsize, self._at).reshape(shape)
        self._at += length
        return name, array
