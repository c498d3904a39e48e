"""Embeddings: texts as vectors, by a provider that runs here.

    from velaria import embedding

    provider = embedding.provider("use-multilingual")
    table = table.append_column("e", embedding.column(provider, table.column("title")))
    session.create_dataframe(table).vector_search("e", embedding.query(provider, "trains at night"))

A provider is any object with the two methods of `EmbeddingProvider`; those of `PROVIDERS` come with Velaria, each a
file here. Nothing is loaded before it is used, and nothing is fetched from a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from velaria_core.errors import DataError, InputError, did_you_mean

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

PROVIDERS: Final = {
    "hash": ("velaria.embedding.hashed", "HashEmbeddingProvider"),
    "use-multilingual": ("velaria.embedding.use_multilingual", "UseMultilingualProvider"),
}
BATCH_ROWS: Final = 128


class EmbeddingProvider(Protocol):
    """Whoever makes vectors of texts."""

    def embed(self, texts: Sequence[str], *, model: str | None = None, batch_size: int | None = None) -> npt.ArrayLike:
        """The vectors of texts, (n, d) numbers, in their order; equal texts have equal vectors, but for rounding.

        Args:
            model: which model, of a provider that has several.
            batch_size: texts that are worked on together; the answer does not depend on it.
        """

    def warmup(self) -> None:
        """Load what the first `embed` would load."""


def provider(name: str, **options: Any) -> EmbeddingProvider:
    """A provider by name: "hash" (no meaning, for tests) or "use-multilingual" (16 languages, 512 numbers).

    Raises:
        InputError[embedding.provider]: there is none of this name.
        InputError[embedding.missing]: it needs a package that is not installed.
    """
    if name not in PROVIDERS:
        hint = did_you_mean(name, PROVIDERS, "providers")
        raise InputError("embedding.provider", f'no embedding provider "{name}"', hint=hint)
    module, kind = PROVIDERS[name]
    made: EmbeddingProvider = getattr(import_module(module), kind)(**options)
    return made


def column(
    by: EmbeddingProvider, texts: Iterable[str | None], *, model: str | None = None, batch_size: int = BATCH_ROWS
) -> pa.Array:
    """The vectors of texts as an Arrow column FLOAT[n]; NULL for NULL.

    Args:
        texts: an Arrow column of text, or any texts.

    Raises:
        InputError[embedding.batch_size]. DataError[embedding.shape]: the provider gave other than a vector a text.
    """
    import numpy as np
    import pyarrow as pa

    if batch_size < 1:
        raise InputError("embedding.batch_size", f"a batch has at least 1 text, not {batch_size}")
    given = texts.to_pylist() if hasattr(texts, "to_pylist") else list(texts)
    there = [text for text in given if text is not None]
    parts: list[npt.NDArray[Any]] = []
    for start in range(0, len(there), batch_size):
        some = there[start : start + batch_size]
        made = np.asarray(by.embed(some, model=model, batch_size=batch_size), np.float32)
        if made.ndim != 2 or len(made) != len(some) or (parts and made.shape[1] != parts[0].shape[1]):
            told = f"{type(by).__name__} gave numbers of shape {made.shape} for {len(some)} texts"
            raise DataError("embedding.shape", told, hint="an array of (texts, numbers of a vector)")
        parts.append(made)
    if not parts:
        raise DataError("embedding.empty", "no text tells how long a vector is", hint="give one text at least")
    length = parts[0].shape[1]
    data = np.zeros((len(given), length), np.float32)
    missing = np.array([text is None for text in given])
    data[~missing] = np.concatenate(parts)
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(data.ravel()), length, mask=mask)


def query(by: EmbeddingProvider, text: str, *, model: str | None = None) -> npt.NDArray[Any]:
    """The vector of one text, to search for."""
    import numpy as np

    found: npt.NDArray[Any] = np.asarray(by.embed([text], model=model), np.float32)[0]
    return found
