"""Functions: the static tables against the engine's own catalog, and calls that mean what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlglot import exp

from velaria_core.errors import VelariaError
from velaria_core.execution.duck import Cursor, Engine, Settings
from velaria_core.logical.expr import default_name, fn, parse_expression, to_sql
from velaria_core.logical.functions import (
    AGGREGATES,
    VOLATILE,
    WINDOWS,
    faithful,
    is_aggregate,
    is_volatile,
    is_window,
)

# A value of each type that parameters of functions have. Where a type is missing, NULL of it stands in.
SAMPLES = {
    "BOOLEAN": "true",
    "TINYINT": "3::TINYINT",
    "SMALLINT": "3::SMALLINT",
    "INTEGER": "3",
    "BIGINT": "3::BIGINT",
    "HUGEINT": "3::HUGEINT",
    "UTINYINT": "3::UTINYINT",
    "USMALLINT": "3::USMALLINT",
    "UINTEGER": "3::UINTEGER",
    "UBIGINT": "3::UBIGINT",
    "UHUGEINT": "3::UHUGEINT",
    "FLOAT": "0.5::FLOAT",
    "DOUBLE": "0.25::DOUBLE",
    "DECIMAL": "2.50::DECIMAL(10, 2)",
    "VARCHAR": "'día 日本'",
    "VARCHAR[]": "['a', 'b']",
    "INTEGER[]": "[3, 1, 2]",
    "BIGINT[]": "[3, 1, 2]::BIGINT[]",
    "DOUBLE[]": "[0.25, 0.5]::DOUBLE[]",
    "T[]": "[3, 1, 2]",
    "T": "3",
    "ANY": "'x'",
    "ANY[]": "[3, 1, 2]",
    "BLOB": "'ab'::BLOB",
    "BIT": "'101'::BIT",
    "DATE": "DATE '2021-03-04'",
    "TIME": "TIME '01:02:03'",
    "TIMESTAMP": "TIMESTAMP '2021-03-04 05:06:07'",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ '2021-03-04 05:06:07+00'",
    "INTERVAL": "INTERVAL 3 DAYS",
    "JSON": """'{"a": [1, 2]}'::JSON""",
    "UUID": "'00000000-0000-0000-0000-000000000001'::UUID",
    "MAP": "MAP {'a': 1}",
    "STRUCT": "{'a': 1}",
    "LAMBDA": "lambda x: x",
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(Settings(threads=1))
    yield made
    made.close()


@pytest.fixture
def cursor(engine: Engine) -> Iterator[Cursor]:
    with engine.cursor() as held:
        yield held


def catalog(cursor: Cursor, kind: str) -> set[str]:
    rows = cursor.rows(f"SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = '{kind}'")
    return {name for (name,) in rows if re.fullmatch(r"[A-Za-z]\w*", name)}


def answer(cursor: Cursor, sql: str) -> str:
    """What the engine says: the value, or the kind of its error."""
    try:
        # As text, so that every type and NaN compare.
        return str(cursor.rows(f"SELECT CAST(({sql}) AS VARCHAR), typeof({sql})"))
    except VelariaError as error:
        return error.code


# --- tables -----------------------------------------------------------------------------------------------


def test_aggregates_are_those_of_the_engine(cursor: Cursor) -> None:
    by_syntax = {"percentile_cont", "percentile_disc"}
    macros = cursor.rows(
        "SELECT DISTINCT function_name, len(parameters) FROM duckdb_functions() WHERE function_type = 'macro'"
    )
    over_aggregates = set()
    for name, count in macros:
        if not re.fullmatch(r"[a-z]\w*", name):
            continue
        # The engine refuses aggregates in WHERE by name; the table has no rows, so nothing is run.
        error = answer_where(cursor, f"{name}({', '.join(['x'] * count)})")
        if error is not None and error.code == "sql.misplaced_aggregate":
            over_aggregates.add(name)
    assert catalog(cursor, "aggregate") | over_aggregates | by_syntax == AGGREGATES
    assert "weighted_avg" in over_aggregates


def answer_where(cursor: Cursor, sql: str) -> VelariaError | None:
    for kind in ("DOUBLE", "VARCHAR"):
        try:
            cursor.schema(f"SELECT 1 FROM (SELECT NULL::{kind} AS x LIMIT 0) WHERE {sql} IS NULL")
        except VelariaError as error:
            if error.code == "sql.misplaced_aggregate":
                return error
    return None


def test_window_functions_are_those_of_the_engine(cursor: Cursor) -> None:
    assert catalog(cursor, "window") == WINDOWS
    assert not WINDOWS & AGGREGATES


def test_what_the_engine_calls_unstable_is_volatile(cursor: Cursor) -> None:
    rows = cursor.rows("SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'")
    unstable = {name for (name,) in rows}
    assert unstable <= VOLATILE, unstable - VOLATILE
    macros = cursor.rows(
        "SELECT function_name, macro_definition FROM duckdb_functions() WHERE function_type = 'macro'"
        " AND macro_definition IS NOT NULL"
    )
    calls = {name: set(re.findall(r'"?(\w+)"?\(', definition)) for name, definition in macros}
    # error() is called unstable so that it is not computed beforehand; it gives nothing to differ.
    over_unstable = {name for name, called in calls.items() if called & (unstable - {"error"})}
    assert over_unstable <= VOLATILE, over_unstable - VOLATILE
    assert "current_catalog" in over_unstable


def test_volatile_names_are_known_to_the_engine(cursor: Cursor) -> None:
    known = catalog(cursor, "scalar") | catalog(cursor, "macro")
    # Keywords of SQL, and Velaria's own.
    beside = {"current_time", "current_timestamp", "localtime", "localtimestamp", "currenttimestamp"}
    assert known | beside >= VOLATILE


@pytest.mark.parametrize(
    ("text", "test", "expected"),
    [
        ("sum(x)", is_aggregate, True),
        ("SUM(DISTINCT x)", is_aggregate, True),
        ("count(*)", is_aggregate, True),
        ("weighted_avg(x, y)", is_aggregate, True),
        ("abs(x)", is_aggregate, False),
        ("first_value(x)", is_aggregate, False),
        ("list_sum(x)", is_aggregate, False),
        ("x", is_aggregate, False),
        ("row_number()", is_window, True),
        ("lag(x, 1)", is_window, True),
        ("sum(x)", is_window, False),
        ("random()", is_volatile, True),
        ("now()", is_volatile, True),
        ("CURRENT_TIMESTAMP", is_volatile, True),
        ("age(x)", is_volatile, True),
        ("age(x, y)", is_volatile, False),
        ("uuid()", is_volatile, True),
        ("lower(x)", is_volatile, False),
    ],
)
def test_kinds_of_calls(text: str, test: object, expected: bool) -> None:
    assert callable(test)
    assert test(parse_expression(text)) is expected


# --- calls as written -------------------------------------------------------------------------------------


def test_every_call_prints_as_it_was_written(cursor: Cursor) -> None:
    """Whatever the number of arguments: none is dropped, no name is changed."""
    names = set().union(*(catalog(cursor, kind) for kind in ("scalar", "aggregate", "macro", "window")))
    # Velaria's own meaning, or syntax with another name for the same; these are compared by value below.
    elsewhere = {"year", "month", "day", "week", "yearweek", "position", "map", "current_date", "overlay"}
    changed = []
    for name in sorted(names - elsewhere):
        for count in range(4):
            text = f"{name}({', '.join('abc'[:count])})"
            try:
                printed = to_sql(parse_expression(text))
            except VelariaError:
                continue  # not taken apart at all: the engine gets the text
            if printed.lower().replace('"', "") != text.lower():
                changed.append((text, printed))
    assert changed == [("current_catalog()", "CURRENT_CATALOG"), ("session_user()", "SESSION_USER")]


def test_every_function_gives_what_the_engine_gives(cursor: Cursor) -> None:
    """Every overload of every function, with sample arguments, as written and as printed from its tree."""
    rows = cursor.rows(
        "SELECT DISTINCT function_name, parameter_types, varargs FROM duckdb_functions()"
        " WHERE function_type IN ('scalar', 'aggregate', 'macro') AND len(parameter_types) <= 4"
    )
    compared, wrong = 0, []
    for name, types, varargs in sorted(rows, key=str):
        if not re.fullmatch(r"[a-z]\w*", name) or name.startswith(("icu_", "collate_", "pg_", "has_")):
            continue
        if name in VOLATILE or name in {"repeat", "range", "generate_series"}:
            continue
        kinds = [str(kind or "ANY") for kind in types] + ([varargs] if varargs else [])
        written = f"{name}({', '.join(sample(kind) for kind in kinds)})"
        expected = answer(cursor, written)
        if not expected.startswith("["):
            continue
        compared += 1
        try:
            printed = to_sql(parse_expression(written))
        except VelariaError:
            continue
        if (found := answer(cursor, printed)) != expected:
            wrong.append((written, printed, expected, found))
    assert wrong == []
    assert compared > 700, "most overloads take the samples"


def sample(kind: str) -> str:
    plain = re.sub(r"\(.*\)", "", kind)
    return SAMPLES.get(kind) or SAMPLES.get(plain) or f"NULL::{kind if kind != 'NULL' else 'INTEGER'}"


# --- Velaria's own names, and those of other dialects -----------------------------------------------------

# Inventory 2.4: every function and alias, Unicode-correct.
VALUES = [
    ("LENGTH('día日本')", "5"),
    ("LEN('día日本')", "5"),
    ("CHAR_LENGTH('日本')", "2"),
    ("CHARACTER_LENGTH('日本')", "2"),
    ("LOWER('ÄÖÜ Ж')", "äöü ж"),
    ("UPPER('äöü ñ')", "ÄÖÜ Ñ"),
    ("TRIM('  ab ')", "ab"),
    ("BTRIM('  ab ')", "ab"),
    ("BTRIM('xxabx', 'x')", "ab"),
    ("LTRIM('  ab ')", "ab "),
    ("RTRIM('  ab ')", "  ab"),
    ("REVERSE('日本語')", "語本日"),
    ("CONCAT('a')", "a"),
    ("CONCAT('a', 1, '日')", "a1日"),
    ("CONCAT_WS('-', 'a', 'b', 'c')", "a-b-c"),
    ("LEFT('日本語', 2)", "日本"),
    ("RIGHT('日本語', 2)", "本語"),
    ("SUBSTR('日本語', 2)", "本語"),
    ("SUBSTRING('日本語', 2, 1)", "本"),
    ("SUBSTRING('日本語' FROM 2 FOR 1)", "本"),
    ("POSITION('本', '日本')", "2"),
    ("POSITION('本' IN '日本')", "2"),
    ("POSITION('x', '日本')", "0"),
    ("REPLACE('日本日', '日', 'x')", "x本x"),
    ("CAST('12' AS INT64)", "12"),
    ("CAST(12 AS STRING)", "12"),
    ("CAST('1.5' AS DOUBLE)", "1.5"),
    ("CAST('true' AS BOOL)", "true"),
    ("ABS(-2.5)", "2.5"),
    ("CEIL(1.2)", "2"),
    ("FLOOR(-1.2)", "-2"),
    ("ROUND(2.5)", "3"),
    ("YEAR(DATE '2021-01-03')", "2021"),
    ("YEAR('2021-01-03')", "2021"),
    ("YEAR(INTERVAL 2 YEARS)", "2"),
    ("MONTH('2021-01-03 10:11:12')", "1"),
    ("DAY(TIMESTAMP '2021-01-03 10:11:12')", "3"),
    ("ISO_YEAR('2021-01-03')", "2020"),
    ("ISO_WEEK('2021-01-03')", "53"),
    ("WEEK('2021-01-04')", "1"),
    ("YEARWEEK('2021-01-03')", "202053"),
    ("UNIX_TIMESTAMP('2026-01-01')", "1767225600"),
    ("UNIX_TIMESTAMP(DATE '2026-01-01')", "1767225600"),
    ("UNIX_TIMESTAMP(TIMESTAMP '1969-12-31 23:59:58.5')", "-2"),
    ("UNIX_TIMESTAMP() BETWEEN 1700000000 AND 5000000000", "true"),
    ("TODAY() = CURRENT_DATE", "true"),
    ("NOW() = CURRENT_TIMESTAMP", "true"),
    ("NOW() = currentTimestamp()", "true"),
    ("CURRENT_TIMESTAMP() = CURRENT_TIMESTAMP", "true"),
]


@pytest.mark.parametrize(("text", "expected"), VALUES)
def test_inventory_functions(cursor: Cursor, text: str, expected: str) -> None:
    ((value,),) = cursor.rows(f"SELECT CAST({to_sql(parse_expression(text))} AS VARCHAR)")
    assert value == expected


# Those that join what is there keep it, and those with syntax of their own have no first place.
JOINING = ("CONCAT", "CAST", "UNIX_TIMESTAMP")


@pytest.mark.parametrize(
    "text",
    [
        re.sub(r"\((DATE |TIMESTAMP )?'[^']*'", "(NULL", text)
        for text, _ in VALUES
        if "'" in text and not text.startswith(JOINING) and " FROM " not in text and " IN " not in text
    ],
)
def test_inventory_functions_give_null_for_null(cursor: Cursor, text: str) -> None:
    """T-08: NULL in the first place gives NULL."""
    assert "(NULL" in text
    assert cursor.rows(f"SELECT {to_sql(parse_expression(text))}") == [(None,)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("unix_timestamp(ts)", "unix_timestamp_ts"),
        ("UNIX_TIMESTAMP()", "unix_timestamp"),
        ("iso_year(d)", "iso_year_d"),
        ("year(d)", "year_d"),
        ("btrim(s)", "btrim_s"),
        ("len(s)", "len_s"),
        ("count(*)", "count"),
        ("sum(x)", "sum_x"),
        ("percentile_cont(0.5) WITHIN GROUP (ORDER BY x)", "percentile_cont_x"),
    ],
)
def test_columns_are_named_after_what_was_written(text: str, name: str) -> None:
    assert default_name(parse_expression(text)) == name


def test_dataframe_calls_know_the_same_names() -> None:
    assert fn.year("d").sql() == parse_expression('year("d")').sql("duckdb")
    assert fn.iso_week("d").name == "iso_week_d"


def test_faithful_leaves_the_tree_it_is_given_alone() -> None:
    tree = exp.Add(this=exp.Anonymous(this="iso_year", expressions=[exp.column("d")]), expression=exp.Literal.number(1))
    made = faithful(tree)
    assert made.sql("duckdb") == "ISOYEAR(CAST(d AS TIMESTAMP)) + 1"
    assert tree.sql("duckdb") == "ISO_YEAR(d) + 1"
    assert faithful(made) is made


@pytest.mark.parametrize(
    "text",
    [
        "percentile_cont(0.25) WITHIN GROUP (ORDER BY x)",
        "percentile_cont(0.25) WITHIN GROUP (ORDER BY x DESC)",
        "percentile_disc(0.25) WITHIN GROUP (ORDER BY x DESC)",
        "percentile_cont([0.25, 0.5]) WITHIN GROUP (ORDER BY x)",
        "mode() WITHIN GROUP (ORDER BY x)",
        "string_agg(x::VARCHAR, '-' ORDER BY x DESC)",
        "list(DISTINCT x ORDER BY x DESC)",
        "array_agg(x ORDER BY x) FILTER (WHERE x > 1)",
        "count(DISTINCT x)",
        "sum(x) FILTER (x > 1)",
        "first(x ORDER BY x DESC)",
        "arg_max(x, -x, 2)",
        "quantile_cont(x, 0.25)",
        "approx_quantile(x, 0.5)",
        "histogram(x)",
        "any_value(x) FILTER (WHERE x = 9)",
        "max(x, 2)",
        "bool_and(x > 0)",
        "listagg(x, ',' ORDER BY x)",
        "geomean(x)",
        "list(x)[2]",
        "count(*) FILTER (WHERE x > 1) * 2",
    ],
)
def test_aggregates_give_what_the_engine_gives(cursor: Cursor, text: str) -> None:
    rows = "FROM (VALUES (1), (2), (2), (7), (9)) AS t(x)"
    printed = to_sql(parse_expression(text))
    assert cursor.rows(f"SELECT {printed} {rows}") == cursor.rows(f"SELECT {text} {rows}")


@pytest.mark.parametrize(
    "text",
    [
        "lag(x, 1, 0) OVER (ORDER BY k)",
        "lag(x IGNORE NULLS) OVER (ORDER BY k)",
        "lead(x, 2) OVER (ORDER BY k DESC)",
        "first_value(x IGNORE NULLS) OVER (ORDER BY k)",
        "last_value(x RESPECT NULLS) OVER (ORDER BY k ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)",
        "nth_value(x, 2) OVER (ORDER BY k RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW)",
        "ntile(2) OVER (ORDER BY k)",
        "sum(x) OVER (PARTITION BY k % 2 ORDER BY k GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW)",
        "row_number(ORDER BY x) OVER ()",
        "count(DISTINCT x) OVER ()",
        "avg(x) FILTER (WHERE k > 1) OVER ()",
        "rank() OVER (ORDER BY x DESC NULLS LAST)",
    ],
)
def test_window_functions_give_what_the_engine_gives(cursor: Cursor, text: str) -> None:
    rows = "FROM (VALUES (1, 10), (2, NULL), (3, 7), (4, 7)) AS t(k, x)"
    printed = to_sql(parse_expression(text))
    assert cursor.rows(f"SELECT k, {printed} {rows} ORDER BY k") == cursor.rows(f"SELECT k, {text} {rows} ORDER BY k")


EXPRESSIONS = [
    line
    for line in Path(__file__).with_name("expressions.sql").read_text(encoding="utf-8").splitlines()
    if not line.startswith("--")
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions_give_what_the_engine_gives(cursor: Cursor, text: str) -> None:
    if text in {"1 AS VALUE", "2 END_", '"x y".a'}:
        text = f"(SELECT {text} FROM (SELECT {{'a': 1}} AS \"x y\"))"
    assert answer(cursor, text).startswith("["), answer(cursor, text)
    printed = to_sql(parse_expression(text))
    assert answer(cursor, printed) == answer(cursor, text), printed


def test_arrow_lambdas_still_work(cursor: Cursor) -> None:
    """The engine takes `lambda x: ...` only; the older arrow is printed that way."""
    text = "list_transform([1, 2], x -> x + 1)"
    assert answer(cursor, text) == "sql.invalid"
    assert cursor.rows(f"SELECT {to_sql(parse_expression(text))}") == [([2, 3],)]
