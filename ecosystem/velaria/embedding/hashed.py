"""hash: unit vectors of a text's SHA-256. Equal texts are equal, all others unrelated: for tests, not for meaning."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from velaria_core.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


class HashEmbeddingProvider:
    """The same vectors on every machine.

    Args:
        dimension: numbers of a vector, at least 1.
    """

    def __init__(self, dimension: int = 16) -> None:
        if dimension < 1:
            raise InputError("embedding.dimension", f"a vector has at least 1 number, not {dimension}")
        self.dimension = dimension

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        batch_size: int | None = None,  # noqa: ARG002 -- the protocol's
    ) -> npt.NDArray[Any]:
        """Numbers of the digests of "model:text:0", "model:text:1", ..., each from -1 to 1, scaled to norm 1."""
        import numpy as np

        made = np.zeros((len(texts), self.dimension), np.float64)
        for row, text in zip(made, texts, strict=True):
            digests = b""
            while len(digests) < 4 * self.dimension:
                digests += hashlib.sha256(f"{model or ''}:{text}:{len(digests)}".encode()).digest()
            row[:] = np.frombuffer(digests, "<u4", self.dimension) / 2.0**31 - 1
        scaled: npt.NDArray[Any] = made / np.linalg.norm(made, axis=1, keepdims=True)
        return scaled.astype(np.float32)

    def warmup(self) -> None:
        """Nothing is loaded."""
