"""Columns as text, a whole column at a time: JSON for machines, plain text for CSV and tables.

Both are exact: what they print reads back as the value it was. Kernels of Arrow do the work, so that a row costs
no Python object; only intervals, bytes and the values that Arrow's casts refuse are made one by one.

| type                | JSON                                            | plain                                   |
|---------------------|-------------------------------------------------|-----------------------------------------|
| bool                | true, false                                     | true, false                             |
| integers, decimals  | a number with all its digits, of any size       | the same                                |
| floats              | the shortest number that reads back             | the same                                |
| NaN, infinities     | "NaN", "Infinity", "-Infinity": JSON has none   | NaN, Infinity, -Infinity                |
| string              | a string                                        | as it is                                |
| binary              | a string of base64                              | printable bytes, others as \\xFF        |
| date, time          | "2013-01-31", "05:00:00.5"                      | 2013-01-31, 05:00:00.5                  |
| timestamp, its UTC  | "2013-01-31T05:00:00", "2013-01-31T05:00:00Z"   | 2013-01-31 05:00:00, ...+00             |
| interval            | an ISO 8601 duration, "P1M2DT3.5S"              | 1 month 2 days 00:00:03.5               |
| list, fixed vector  | an array                                        | as JSON                                 |
| struct              | an object                                       | as JSON                                 |
| map                 | an object; pairs [key, value] if keys are no text | as JSON                               |
| NULL                | null                                            | NULL of the column                      |
"""

from __future__ import annotations

import json
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from velaria_core.execution.show import cell_text

TEXT = pa.large_string()
"""Large, so that no batch is too big for its offsets."""

_FRACTION_ZEROS = r"(\.[0-9]*?)0+(Z?)$"
_EMPTY_FRACTION = r"\.(Z?)$"
_OUT_OF_RANGE = "<value out of range"


def json_text(column: pa.Array) -> pa.Array:
    """Each value as JSON.

    Returns:
        large_string, one for each value; NULL is the text `null`.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return json_text(column.storage)
    if pa.types.is_dictionary(kind):
        return json_text(column.dictionary_decode())
    nested = next((text for test, text in _NESTED if test(kind)), None)
    if nested is not None:
        return pc.if_else(column.is_valid(), nested(column), _scalar("null"))
    text = _simple_text(column, machine=True)
    if pa.types.is_floating(kind):
        text = pc.if_else(pc.is_finite(column), text, _quoted(text))
    elif not _is_bare(kind):
        text = _quoted(text)
    return pc.fill_null(text, _scalar("null"))


def plain_text(column: pa.Array) -> pa.Array:
    """Each value as text that SQL reads back with a CAST; NULL stays NULL. large_string."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_text(column.storage)
    if pa.types.is_dictionary(kind):
        return plain_text(column.dictionary_decode())
    if any(test(kind) for test, _ in _NESTED):
        return pc.if_else(column.is_valid(), json_text(column), text_array([None])[0])
    return _simple_text(column, machine=False)


def joined(*pieces: pa.Array | str) -> pa.Array:
    """The pieces of each row in one text; strings are the same in every row. A NULL piece makes the row NULL."""
    return pc.binary_join_element_wise(
        *(_scalar(piece) if isinstance(piece, str) else piece for piece in pieces), _scalar("")
    )


def bytes_of(text: pa.Array) -> memoryview:
    """All texts of a column without NULLs, one after the other, without a copy."""
    offsets = memoryview(text.buffers()[1]).cast("B").cast("q")
    data = text.buffers()[2]
    if data is None or not len(text):
        return memoryview(b"")
    return memoryview(data).cast("B")[offsets[text.offset] : offsets[text.offset + len(text)]]


def quoted_name(name: str) -> str:
    """One text as a JSON string."""
    return json.dumps(name, ensure_ascii=False)


def text_array(texts: Sequence[str | None]) -> pa.Array:
    """Python texts as a column.

    From buffers: `pa.array` and `pa.scalar` import pandas, where it is installed, only to ask whether the values are
    its own; that takes longer than the rest of a short command.
    """
    encoded = [b"" if text is None else text.encode() for text in texts]
    ends = array("q", accumulate(map(len, encoded), initial=0))
    present = None
    if None in texts:
        bits = "".join("0" if text is None else "1" for text in reversed(texts))
        present = pa.py_buffer(int(bits, 2).to_bytes((len(texts) + 7) // 8, "little"))
    data = pa.py_buffer(b"".join(encoded))
    return pa.LargeStringArray.from_buffers(len(encoded), pa.py_buffer(ends), data, present)


def _scalar(text: str) -> pa.Scalar:
    return text_array([text])[0]


# --- values without parts -----------------------------------------------------------------------------------


def _is_bare(kind: pa.DataType) -> bool:
    """Whether JSON writes it without quotes."""
    tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests)


def _simple_text(column: pa.Array, *, machine: bool) -> pa.Array:
    """Text of values without parts, unquoted; with `machine` in the forms that JSON's readers know."""
    kind = column.type
    if pa.types.is_floating(kind):
        return _floats(column)
    if pa.types.is_decimal(kind):
        return _decimals(column)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return _moments(column, machine=machine)
    if pa.types.is_interval(kind) or pa.types.is_duration(kind):
        return _each(column, _iso_duration if machine else cell_text)
    if _is_binary(kind):
        return _each(column, _base64 if machine else _escaped_bytes)
    return column.cast(TEXT)


def _each(column: pa.Array, text: Callable[[pa.Scalar], str]) -> pa.Array:
    return text_array([text(value) if value.is_valid else None for value in column])


def _floats(column: pa.Array) -> pa.Array:
    text = column.cast(TEXT)
    # A whole number keeps its point: it is a float for whoever reads it back.
    text = pc.replace_substring_regex(text, r"^(-?[0-9]+)$", r"\1.0")
    finite = pc.is_finite(column)
    if pc.all(finite, min_count=0).as_py():
        return text
    for short, long in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")):
        text = pc.if_else(pc.equal(text, _scalar(short)), _scalar(long), text)
    return text


def _decimals(column: pa.Array) -> pa.Array:
    text = column.cast(TEXT)
    # Arrow writes small ones with an exponent.
    if pc.any(pc.match_substring(text, "E")).as_py():
        return _each(column, cell_text)
    return text


def _moments(column: pa.Array, *, machine: bool) -> pa.Array:
    text = column.cast(TEXT)
    if pc.any(pc.match_substring(text, _OUT_OF_RANGE)).as_py():
        # Infinities, and years that Arrow cannot print.
        strange = _each(column, cell_text)
        strange = pc.replace_substring_regex(strange, r"\+00$", "Z")
        text = pc.if_else(pc.match_substring(text, _OUT_OF_RANGE), strange, text)
    text = pc.replace_substring_regex(text, _FRACTION_ZEROS, r"\1\2")
    text = pc.replace_substring_regex(text, _EMPTY_FRACTION, r"\1")
    if not pa.types.is_timestamp(column.type):
        return text
    if machine:
        return pc.replace_substring(text, " ", "T", max_replacements=1)
    return pc.replace_substring_regex(text, "Z$", "+00")


def _iso_duration(value: pa.Scalar) -> str:
    """`P14M2DT3.5S`: months, days and seconds are kept apart, as the value keeps them."""
    if pa.types.is_duration(value.type):
        months, days, nanoseconds = 0, 0, value.value * _NANOSECONDS[value.type.unit]
    else:
        months, days, nanoseconds = value.as_py()
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    date = "".join(f"{count}{unit}" for count, unit in ((months, "M"), (days, "D")) if count)
    if not nanoseconds:
        return f"P{date}" if date else "PT0S"
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"P{date}T{'-' if nanoseconds < 0 else ''}{seconds}{fraction}S"


_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def _base64(value: pa.Scalar) -> str:
    return b64encode(value.as_py()).decode()


def _escaped_bytes(value: pa.Scalar) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02X}" for b in value.as_py())


def _quoted(text: pa.Array) -> pa.Array:
    """Texts as JSON strings; NULL stays NULL."""
    if pc.any(pc.match_substring_regex(text, r"[\x00-\x1f]")).as_py():
        return text_array([None if one is None else quoted_name(one) for one in text.to_pylist()])
    text = pc.replace_substring(text, "\\", "\\\\")
    return joined('"', pc.replace_substring(text, '"', '\\"'), '"')


# --- values with parts --------------------------------------------------------------------------------------
# Each gives text for every value, of no meaning where the value is NULL.


def _array(column: pa.Array) -> pa.Array:
    if not (pa.types.is_list(column.type)):
        column = column.cast(pa.list_(column.type.value_type))
    return joined("[", _listed(column.offsets, json_text(column.values)), "]")


def _object(column: pa.Array) -> pa.Array:
    names = [field.name for field in column.type]
    return object_text(names, [json_text(column.field(at)) for at in range(len(names))])


def object_text(names: Iterable[str], texts: Iterable[pa.Array]) -> pa.Array:
    """One JSON object a row, from the names and the JSON of each column."""
    pieces: list[pa.Array | str] = []
    for name, text in zip(names, texts, strict=True):
        pieces += [f"{', ' if pieces else '{'}{quoted_name(name)}: ", text]
    return joined(*pieces, "}")


def _map(column: pa.Array) -> pa.Array:
    keys, items = json_text(column.keys), json_text(column.items)
    if pa.types.is_string(column.type.key_type):
        return joined("{", _listed(column.offsets, joined(keys, ": ", items)), "}")
    return joined("[", _listed(column.offsets, joined("[", keys, ", ", items, "]")), "]")


def _union(column: pa.Array) -> pa.Array:
    """The value alone: which member it came from is not told."""
    assert column.type.mode == "sparse", "the engine has no dense unions"
    texts = [json_text(column.field(at)) for at in range(column.type.num_fields)]
    return pc.choose(column.type_codes.cast(pa.int64()), *texts)


def _listed(offsets: pa.Array, texts: pa.Array) -> pa.Array:
    # NULL rows are empty lists here: what stands for them is chosen later.
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), _scalar(", "))


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in (*kinds, pa.types.is_list_view, pa.types.is_large_list_view))


def _is_binary(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(test(kind) for test in kinds)


_NESTED: tuple[tuple[Callable[[pa.DataType], Any], Callable[[pa.Array], pa.Array]], ...] = (
    (pa.types.is_map, _map),
    (_is_list, _array),
    (pa.types.is_struct, _object),
    (pa.types.is_union, _union),
)
