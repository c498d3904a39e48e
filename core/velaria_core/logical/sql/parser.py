"""The SQL parser: text to statements.

`parse` splits the text at its semicolons, reads the first words of each statement, and goes down from there: a
small recursive descent over tokens for Velaria's own statements, sqlglot for queries and expressions
(`queries.py`), the engine's parser as the judge of what is a query at all. What is known and not run is refused
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from velaria_core.errors import Place, SqlSyntaxError, SqlUnsupportedError, did_you_mean
from velaria_core.logical.sql.durations import NotADuration, interval_milliseconds
from velaria_core.logical.sql.queries import QUERY_WORDS, EngineParses, Source, read_expression, read_query
from velaria_core.logical.sql.statements import (
    ColumnDef,
    CreateIndex,
    CreateTable,
    CreateView,
    Describe,
    Drop,
    DropKind,
    Explain,
    Insert,
    Name,
    OptionValue,
    Refresh,
    Select,
    ShowCreate,
    ShowKind,
    ShowTables,
    Statement,
    Summarize,
    TableKind,
    Watermark,
)
from velaria_core.logical.sql.tokens import Cursor, Span, is_name, is_string, sees, span, tokenize, word

# What is not run, and what to do instead. `None` where there is nothing to say.
_REPLACE_TABLE: Final = "make the table anew: CREATE OR REPLACE TABLE name AS SELECT ..."
_OPTIONS_OF_SESSION: Final = "settings are options of DataflowSession(...)"
_FILES: Final = "CREATE TABLE name USING parquet OPTIONS(path: '...') reads files, DataFrame.write_parquet writes them"
_NO_KEYS: Final = "tables have no keys that rows could conflict on"
_ATOMIC: Final = "every statement is atomic by itself"
_UNSUPPORTED: Final[Mapping[str, str | None]] = {
    "UPDATE": _REPLACE_TABLE,
    "DELETE": _REPLACE_TABLE,
    "TRUNCATE": "CREATE OR REPLACE TABLE name AS SELECT * FROM name LIMIT 0 empties a table",
    "MERGE": "a join and CREATE OR REPLACE TABLE name AS SELECT ... do the same",
    "UPSERT": _REPLACE_TABLE,
    "ALTER": _REPLACE_TABLE,
    "COPY": _FILES,
    "IMPORT": _FILES,
    "EXPORT": _FILES,
    "ATTACH": "open another DataflowSession(path=...), or read its files",
    "DETACH": None,
    "USE": "write the schema before the table: schema.table",
    "INSTALL": "the engine's extensions stay off; connectors are Python packages",
    "LOAD": "the engine's extensions stay off; connectors are Python packages",
    "SET": _OPTIONS_OF_SESSION,
    "RESET": _OPTIONS_OF_SESSION,
    "PRAGMA": _OPTIONS_OF_SESSION,
    "CALL": "SELECT * FROM function(...) reads a table function",
    "PREPARE": "give parameters with the query: sql(text, parameters)",
    "EXECUTE": "give parameters with the query: sql(text, parameters)",
    "DEALLOCATE": "give parameters with the query: sql(text, parameters)",
    "BEGIN": _ATOMIC,
    "START": _ATOMIC,
    "COMMIT": _ATOMIC,
    "ROLLBACK": _ATOMIC,
    "ABORT": _ATOMIC,
    "CHECKPOINT": "checkpoints belong to streaming queries: checkpoint_path",
    "VACUUM": None,
    "ANALYZE": None,
    "COMMENT": None,
    "GRANT": None,
    "REVOKE": None,
}
_UNSUPPORTED_CREATE: Final[Mapping[str, str | None]] = {
    "UNIQUE INDEX": "an index here is of a search; tables are scanned in columns",
    "FUNCTION": "register a Python function with the session",
    "MACRO": "register a Python function with the session",
    "TYPE": None,
    "SCHEMA": None,
    "DATABASE": "open another DataflowSession(path=...)",
    "SEQUENCE": "row_number() OVER () numbers rows",
    "SECRET": None,
    "EXTERNAL TABLE": "write CREATE TABLE name USING csv OPTIONS(path: '...')",
    "STREAM": "write CREATE SOURCE TABLE",
    "TRIGGER": None,
}
_UNSUPPORTED_INSERT: Final = {
    "OR REPLACE": _NO_KEYS,
    "OR IGNORE": _NO_KEYS,
    "OVERWRITE": "CREATE OR REPLACE TABLE name AS SELECT ... replaces the rows",
}
_UNSUPPORTED_AFTER_INSERT: Final = {"ON CONFLICT": _NO_KEYS, "RETURNING": "insert first, then query"}
_SHOWN: Final = {
    "TABLES": ShowKind.TABLES,
    "SOURCES": ShowKind.SOURCES,
    "SINKS": ShowKind.SINKS,
    "VIEWS": ShowKind.VIEWS,
    "STREAMS": ShowKind.STREAMS,
    "INDEXES": ShowKind.INDEXES,
    "FUNCTIONS": ShowKind.FUNCTIONS,
}
_CONSTRAINTS: Final = frozenset(
    {
        *("PRIMARY", "PRIMARY KEY", "FOREIGN", "FOREIGN KEY", "REFERENCES", "UNIQUE", "CHECK", "CONSTRAINT"),
        *("DEFAULT", "GENERATED", "COLLATE", "COMMENT"),
    }
)
_STATEMENT_WORDS: Final = (
    *("SELECT", "WITH", "FROM", "VALUES", "CREATE", "INSERT", "DROP", "DESCRIBE", "SHOW", "EXPLAIN"),
    *("SUMMARIZE", "PIVOT", "UNPIVOT", "REFRESH"),
)


def parse(text: str, engine_parses: EngineParses | None = None) -> tuple[Statement, ...]:
    """The statements of a text, separated by `;`.

    Args:
        text: SQL, with comments if you like. At least one statement.
        engine_parses: asks the engine's own parser what it thinks of a query: its error, with the place in the
            text it was given, or None. With it, a query that sqlglot cannot read but the engine can is a Select
            without a tree; without it, sqlglot alone judges, and lets some mistakes pass.
    Raises:
        SqlSyntaxError[sql.empty]: there is no statement.
        SqlSyntaxError[sql.syntax, sql.unterminated, sql.duration, sql.clause_order]: the text does not read.
        SqlUnsupportedError[sql.unsupported_statement, ...]: it reads, and is not run here.
    """
    statements = []
    for tokens in _split(tokenize(text)):
        statements.append(_Statement(Source(text, engine_parses), tokens).read())
    if not statements:
        raise SqlSyntaxError(
            "sql.empty",
            "there is no SQL statement",
            hint="the text is empty, or holds comments only",
            place=Place.in_text(text, 0) if text.strip() else None,
        )
    return tuple(statements)


def _split(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each statement; empty ones are left out."""
    made: list[list[Token]] = [[]]
    for token in tokens:
        if token.token_type == TokenType.SEMICOLON:
            made.append([])
        else:
            made[-1].append(token)
    return [one for one in made if one]


class _Statement:
    """One statement and the cursor through its tokens."""

    def __init__(self, source: Source, tokens: Sequence[Token]) -> None:
        tokens = _untold(source.text, tokens)
        if "?" in source.text:
            marks = (token for token in tokens if token.token_type in (TokenType.PLACEHOLDER, TokenType.QDCOLON))
            source.parameters.update({token.start: number for number, token in enumerate(marks, 1)})
        self._source = source
        self._text = source.text
        self._tokens = tokens
        self._cursor = Cursor(source.text, tokens)
        self._whole = span(tokens[0], tokens[-1])

    def read(self) -> Statement:
        first = self._tokens[0]
        opening = word(first)
        if opening in QUERY_WORDS or first.token_type == TokenType.L_PAREN:
            return self._query_or_refusal()
        readers: Mapping[str, Callable[[], Statement]] = {
            "CREATE": self._create,
            "INSERT": self._insert,
            "DROP": self._drop,
            "DESCRIBE": self._describe,
            "DESC": self._describe,
            "SUMMARIZE": self._summarize,
            "SHOW": self._show,
            "EXPLAIN": self._explain,
            "REFRESH": self._refresh,
        }
        if (reader := readers.get(opening)) is not None:
            return reader()
        if opening in _UNSUPPORTED:
            raise self._unsupported(opening, _UNSUPPORTED[opening], span(first))
        shown = self._text[first.start : first.end + 1]
        raise SqlSyntaxError(
            "sql.syntax",
            f'no statement begins with "{shown[:40]}"',
            hint=_statement_hint(opening or shown),
            place=span(first).place(self._text),
        )

    # --- queries -------------------------------------------------------------------------------------------

    def _query_or_refusal(self) -> Select:
        cursor = self._cursor
        if cursor.sees("WITH"):
            depth = 0
            for token in self._tokens:
                depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
                if depth == 0 and word(token) in {"INSERT", "UPDATE", "DELETE", "MERGE"}:
                    # A CTE may be called so, but then AS, a comma or a parenthesis follows.
                    at = self._tokens.index(token)
                    if cursor.tokens[at - 1].token_type == TokenType.R_PAREN:
                        hint = "write INSERT INTO name WITH ... SELECT ..." if word(token) == "INSERT" else None
                        raise self._unsupported(
                            f"WITH ... {word(token)}", hint or _UNSUPPORTED.get(word(token)), span(token)
                        )
        return self._rest_as_query()

    def _rest_as_query(self) -> Select:
        """Everything from here to the end of the statement, as a query."""
        if self._cursor.done:
            raise self._cursor.expected("a query")
        tokens = self._tokens[self._cursor.at :]
        if not _begins_query(tokens, 0):
            raise self._cursor.expected("a query", hint=_statement_hint(word(tokens[0])))
        self._cursor.at = len(self._tokens)
        return read_query(self._source, tokens)

    # --- CREATE --------------------------------------------------------------------------------------------

    def _create(self) -> CreateIndex | CreateTable | CreateView:
        cursor = self._cursor
        cursor.expect("CREATE")
        or_replace = cursor.accept("OR", "REPLACE")
        temp = cursor.accept("TEMP") or cursor.accept("TEMPORARY")
        for what, hint in _UNSUPPORTED_CREATE.items():
            if cursor.sees(*what.split()):
                last = cursor.tokens[cursor.at + len(what.split()) - 1]
                raise self._unsupported(f"CREATE {what}", hint, span(cursor.tokens[cursor.at], last))
        if cursor.accept("MATERIALIZED"):
            cursor.expect("VIEW", after="CREATE MATERIALIZED")
            return self._create_view(or_replace, temp, materialized=True)
        if cursor.accept("VIEW"):
            return self._create_view(or_replace, temp, materialized=False)
        if cursor.sees("INDEX") or cursor.sees("VECTOR", "INDEX") or cursor.sees("KEYWORD", "INDEX"):
            if or_replace or temp:
                raise self._unsupported("CREATE OR REPLACE or TEMP of an INDEX", "DROP INDEX name first", cursor.here())
            return self._create_index()
        kind = TableKind.TABLE
        for one in (TableKind.SOURCE, TableKind.SINK):
            if cursor.accept(one.name):
                kind = one
        if not cursor.accept("TABLE"):
            token = cursor.peek()
            raise cursor.expected(
                "TABLE" if kind != TableKind.TABLE else "TABLE, SOURCE TABLE, SINK TABLE, VIEW or MATERIALIZED VIEW",
                after="CREATE" if kind == TableKind.TABLE else kind.name,
                hint=did_you_mean(word(token), ("TABLE", "SOURCE", "SINK", "VIEW", "MATERIALIZED"), "words")
                if token is not None and word(token)
                else None,
            )
        return self._create_table(kind, or_replace, temp)

    def _create_index(self) -> CreateIndex:
        cursor = self._cursor
        kind = None if cursor.sees("INDEX") else word(cursor.next()).lower()
        cursor.expect("INDEX")
        if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
        name = str(cursor.name("a name for the index").text)
        cursor.expect("ON", after="the name of the index")
        table = self._name("a table after ON")
        start = cursor.here()
        if not cursor.sees("("):
            raise cursor.expected("( and the columns", after=f"ON {table}")
        columns, _ = self._names_in_parentheses()
        columns_span = Span(start.offset, span(cursor.previous()).end - start.offset)
        options, option_spans = self._options() if cursor.sees("WITH") else ({}, {})
        cursor.finish("the statement")
        return CreateIndex(name, kind, table, columns, columns_span, options, option_spans, if_not_exists, self._whole)

    def _create_table(self, kind: TableKind, or_replace: bool, temp: bool) -> CreateTable:
        cursor = self._cursor
        if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
        name = self._name("a table name")
        columns: tuple[ColumnDef, ...] = ()
        watermark: Watermark | None = None
        if cursor.sees("("):
            columns, watermark = self._column_list()
        using: str | None = None
        using_span: Span | None = None
        options: dict[str, OptionValue] = {}
        option_spans: dict[str, Span] = {}
        if cursor.accept("USING"):
            using, using_span = self._using()
        if cursor.sees("OPTIONS") or cursor.sees("WITH", "("):
            options, option_spans = self._options()
            if using is None and cursor.accept("USING"):
                using, using_span = self._using()
        as_select = self._rest_as_query() if cursor.accept("AS") else None
        if not cursor.done:
            raise cursor.expected("USING, OPTIONS, AS or the end of the statement")
        if as_select is None:
            for column in columns:
                if column.type_text is None:
                    raise SqlSyntaxError(
                        "sql.syntax",
                        f'the column "{column.name}" has no type',
                        hint=f"write {column.name} VARCHAR, or another type",
                        place=column.span.place(self._text),
                    )
            if not columns and not options and using is None:
                raise SqlSyntaxError(
                    "sql.syntax",
                    f"the table {name} has no columns",
                    hint="declare them: (a BIGINT, b VARCHAR); or OPTIONS(path: '...'); or AS SELECT ...",
                    place=name.span.place(self._text),
                )
        return CreateTable(
            name,
            kind,
            columns,
            watermark,
            using,
            options,
            as_select,
            or_replace,
            if_not_exists,
            temp,
            self._whole,
            option_spans,
            using_span,
        )

    def _using(self) -> tuple[str, Span]:
        if self._cursor.accept("TABLE"):
            return "table", span(self._cursor.previous())
        token = self._cursor.name("a format after USING")
        return str(token.text).lower(), span(token)

    def _create_view(self, or_replace: bool, temp: bool, *, materialized: bool) -> CreateView:
        cursor = self._cursor
        if_not_exists = cursor.accept("IF", "NOT", "EXISTS")
        name = self._name("a view name")
        columns = self._names_in_parentheses()[0] if cursor.sees("(") else ()
        options: dict[str, OptionValue] = {}
        option_spans: dict[str, Span] = {}
        if materialized and (cursor.sees("OPTIONS") or cursor.sees("WITH", "(")):
            options, option_spans = self._options()
        cursor.expect("AS", after="the name of the view")
        select = self._rest_as_query()
        return CreateView(
            name,
            columns,
            select,
            or_replace,
            temp,
            if_not_exists,
            materialized,
            self._whole,
            options,
            option_spans,
        )

    def _column_list(self) -> tuple[tuple[ColumnDef, ...], Watermark | None]:
        """`(a BIGINT NOT NULL, b VARCHAR, WATERMARK FOR ts AS ts - INTERVAL ...)`."""
        cursor = self._cursor
        cursor.expect("(")
        columns: list[ColumnDef] = []
        watermark: Watermark | None = None
        while not cursor.accept(")"):
            if cursor.sees("WATERMARK", "FOR"):
                if watermark is not None:
                    raise SqlSyntaxError(
                        "sql.syntax", "a table has one watermark", place=cursor.here().place(self._text)
                    )
                watermark = self._watermark()
            else:
                columns.append(self._column(columns))
            if not cursor.accept(","):
                cursor.expect(")", after="a column")
                break
        return tuple(columns), watermark

    def _column(self, earlier: Sequence[ColumnDef]) -> ColumnDef:
        cursor = self._cursor
        token = cursor.peek()
        # A column may be called `key` or `check_`; a constraint's word is reserved or followed by one.
        if token is not None and word(token) in _CONSTRAINTS and not self._types_follow():
            raise self._no_constraint(token)
        name = cursor.name("a column name")
        if any(one.name.lower() == str(name.text).lower() for one in earlier):
            raise SqlSyntaxError(
                "sql.duplicate_column",
                f'the column "{name.text}" is declared twice',
                place=span(name).place(self._text),
            )
        low, depth, not_null = cursor.at, 0, False
        high = low
        while (token := cursor.peek()) is not None:
            if depth == 0:
                if token.text in (",", ")") and not is_string(token):
                    break
                if cursor.accept("NOT", "NULL"):
                    not_null = True
                    continue
                if high > low and cursor.accept("NULL"):
                    continue
                if word(token) in _CONSTRAINTS:
                    raise self._no_constraint(token)
                if not_null:
                    raise cursor.expected("a comma or )", after="NOT NULL")
            depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
            cursor.next()
            high = cursor.at
        if high == low:
            return ColumnDef(str(name.text), None, not_null, span(name))
        kind = span(cursor.tokens[low], cursor.tokens[high - 1])
        return ColumnDef(str(name.text), self._text[kind.offset : kind.end], not_null, span(name), kind)

    def _types_follow(self) -> bool:
        """Whether the word at hand is a column's name after all: another word follows it, as its type."""
        following = self._cursor.peek(1)
        token = self._cursor.peek()
        return (
            token is not None
            and is_name(token)
            and following is not None
            and bool(word(following))
            and word(following) != "KEY"
        )

    def _no_constraint(self, token: Token) -> SqlUnsupportedError:
        what = word(token)
        what = what if " " in what or what not in {"PRIMARY", "FOREIGN"} else f"{what} KEY"
        return SqlUnsupportedError(
            "sql.unsupported_constraint",
            f"{what} is not supported in a table",
            hint="NOT NULL is; check values in a query: SELECT ... WHERE NOT (condition)",
            place=span(token).place(self._text),
        )

    def _watermark(self) -> Watermark:
        cursor = self._cursor
        start = cursor.expect("WATERMARK")
        cursor.expect("FOR", after="WATERMARK")
        column = cursor.name("the time column after WATERMARK FOR")
        cursor.expect("AS", after="the time column of WATERMARK FOR")
        low, depth = cursor.at, 0
        while (token := cursor.peek()) is not None and not (depth == 0 and token.text in (",", ")")):
            depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
            cursor.next()
        if cursor.at == low:
            raise cursor.expected(f"{column.text} - INTERVAL ...", after="AS")
        tokens = cursor.tokens[low : cursor.at]
        tree = read_expression(self._source, tokens)
        place = span(tokens[0], tokens[-1])
        base = tree.this if isinstance(tree, exp.Sub) else tree
        if not isinstance(base, exp.Column) or base.name.lower() != str(column.text).lower():
            raise self._bad_watermark(str(column.text), place)
        delay_ms = 0
        if isinstance(tree, exp.Sub):
            try:
                delay_ms = interval_milliseconds(tree.expression)
            except NotADuration as error:
                raise self._bad_watermark(str(column.text), place, str(error)) from error
        return Watermark(str(column.text), delay_ms, tree, span(start, tokens[-1]))

    def _bad_watermark(self, column: str, place: Span, reason: str | None = None) -> SqlUnsupportedError:
        return SqlUnsupportedError(
            "sql.watermark",
            "a watermark is the time column, less a fixed delay" + (f": {reason}" if reason else ""),
            hint=f"write WATERMARK FOR {column} AS {column} - INTERVAL 5 SECONDS",
            place=place.place(self._text),
        )

    def _options(self) -> tuple[dict[str, OptionValue], dict[str, Span]]:
        """`OPTIONS(key: value, key = value, 'key' 'value', )`."""
        cursor = self._cursor
        cursor.next()
        cursor.expect("(", after="OPTIONS")
        options: dict[str, OptionValue] = {}
        spans: dict[str, Span] = {}
        while not cursor.accept(")"):
            key = cursor.peek()
            if key is None or not (is_name(key) or is_string(key) or word(key)):
                raise cursor.expected("an option", hint="options look like path: 'data.csv', header: true")
            cursor.next()
            name = str(key.text).lower()
            if name in options:
                raise SqlSyntaxError(
                    "sql.duplicate_option",
                    f'the option "{name}" is given twice',
                    place=span(key).place(self._text),
                )
            if not (cursor.accept(":") or cursor.accept("=")):
                cursor.accept("=>")
            options[name] = self._option_value(name)
            spans[name] = span(key)
            if not cursor.accept(","):
                cursor.expect(")", after=f'the option "{name}"')
                break
        return options, spans

    def _option_value(self, option: str) -> OptionValue:
        cursor = self._cursor
        negative = cursor.accept("-")
        token = cursor.peek()
        if token is not None and token.token_type == TokenType.NUMBER:
            number = str(cursor.next().text)
            value = int(number) if number.isdigit() else float(number)
            return -value if negative else value
        if token is not None and not negative:
            if is_string(token):
                return str(cursor.next().text)
            if word(token) in {"TRUE", "FALSE"}:
                return word(cursor.next()) == "TRUE"
            if is_name(token):
                return str(cursor.next().text)
        raise cursor.expected(
            "a text, number, true or false", after=f'the option "{option}"', hint="texts go in single quotes"
        )

    # --- INSERT, DROP --------------------------------------------------------------------------------------

    def _insert(self) -> Insert:
        cursor = self._cursor
        cursor.expect("INSERT")
        for what, hint in _UNSUPPORTED_INSERT.items():
            if cursor.sees(*what.split()):
                raise self._unsupported(f"INSERT {what}", hint, cursor.here())
        cursor.expect("INTO", after="INSERT")
        cursor.accept("TABLE")
        table = self._name("a table name after INSERT INTO")
        columns: tuple[str, ...] | None = None
        column_spans: tuple[Span, ...] = ()
        if cursor.sees("(") and not _begins_query(self._tokens, cursor.at):
            columns, column_spans = self._names_in_parentheses()
        by_name = cursor.accept("BY", "NAME")
        if not by_name:
            cursor.accept("BY", "POSITION")
        if cursor.sees("DEFAULT", "VALUES"):
            raise self._unsupported("INSERT ... DEFAULT VALUES", "write VALUES (NULL, ...)", cursor.here())
        depth = 0
        for at in range(cursor.at, len(self._tokens)):
            token = self._tokens[at]
            depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
            for what, hint in _UNSUPPORTED_AFTER_INSERT.items():
                if depth == 0 and sees(self._tokens, at, *what.split()):
                    raise self._unsupported(f"INSERT ... {what}", hint, span(token))
        if cursor.done or not _begins_query(self._tokens, cursor.at):
            found = cursor.peek()
            near = found is not None and get_close_matches(word(found), ("VALUES", "SELECT"), 1)
            raise cursor.expected(
                "VALUES or SELECT",
                after=f"INSERT INTO {table}",
                hint=f'did you mean "{near[0]}"?' if near else None,
            )
        return Insert(table, columns, self._rest_as_query(), self._whole, by_name, column_spans)

    def _drop(self) -> Drop:
        cursor = self._cursor
        cursor.expect("DROP")
        kinds = (
            (("MATERIALIZED", "VIEW"), DropKind.MATERIALIZED_VIEW),
            (("VIEW",), DropKind.VIEW),
            (("SOURCE", "TABLE"), DropKind.SOURCE),
            (("SOURCE",), DropKind.SOURCE),
            (("SINK", "TABLE"), DropKind.SINK),
            (("SINK",), DropKind.SINK),
            (("TABLE",), DropKind.TABLE),
            (("INDEX",), DropKind.INDEX),
        )
        kind = next((kind for words, kind in kinds if cursor.accept(*words)), None)
        if kind is None:
            what = word(self._tokens[1]) if len(self._tokens) > 1 else ""
            if what in _UNSUPPORTED_CREATE:
                raise self._unsupported(f"DROP {what}", None, cursor.here())
            raise cursor.expected("TABLE, SOURCE, SINK, VIEW, MATERIALIZED VIEW or INDEX", after="DROP")
        if_exists = cursor.accept("IF", "EXISTS")
        name = self._name(f"the name of a {kind.value}")
        if cursor.sees("CASCADE"):
            raise self._unsupported("DROP ... CASCADE", "drop what depends on it first", cursor.here())
        cursor.accept("RESTRICT")
        cursor.finish("the statement")
        return Drop(kind, name, if_exists, self._whole)

    def _refresh(self) -> Refresh:
        cursor = self._cursor
        cursor.expect("REFRESH")
        cursor.expect("MATERIALIZED", after="REFRESH")
        cursor.expect("VIEW", after="REFRESH MATERIALIZED")
        name = self._name("the name of a materialized view")
        cursor.finish("the statement")
        return Refresh(name, self._whole)

    # --- DESCRIBE, SHOW, EXPLAIN ---------------------------------------------------------------------------

    def _describe(self) -> Describe:
        self._cursor.next()
        return Describe(self._table_or_query("DESCRIBE"), self._whole)

    def _summarize(self) -> Summarize:
        self._cursor.next()
        return Summarize(self._table_or_query("SUMMARIZE"), self._whole)

    def _table_or_query(self, statement: str) -> Name | Select:
        cursor = self._cursor
        if not cursor.done and _begins_query(self._tokens, cursor.at) and not cursor.sees("TABLE"):
            return self._rest_as_query()
        cursor.accept("TABLE")
        name = self._name(f"a table or a query after {statement}")
        cursor.finish("the statement")
        return name

    def _show(self) -> ShowTables | ShowCreate:
        cursor = self._cursor
        cursor.expect("SHOW")
        if cursor.accept("CREATE"):
            for kind in ("SOURCE", "SINK", "MATERIALIZED", "TABLE", "VIEW"):
                if cursor.peek(1) is not None:  # the last word is the name, whatever it is
                    cursor.accept(kind)
            name = self._name("the name of a table or view")
            cursor.finish("the statement")
            return ShowCreate(name, self._whole)
        cursor.accept("ALL")
        materialized = cursor.accept("MATERIALIZED")
        token = cursor.peek()
        what = word(token) if token is not None else ""
        if materialized and what != "VIEWS":
            raise cursor.expected("VIEWS", after="SHOW MATERIALIZED")
        if what in {"COLUMNS", "DATABASES", "SCHEMAS"}:
            hint = "DESCRIBE name shows the columns" if what == "COLUMNS" else None
            raise self._unsupported(f"SHOW {what}", hint, cursor.here())
        if what not in _SHOWN:
            raise cursor.expected(
                "TABLES, SOURCES, SINKS, VIEWS, MATERIALIZED VIEWS, INDEXES, STREAMS or FUNCTIONS",
                after="SHOW",
                hint="DESCRIBE name shows the columns of a table",
            )
        cursor.next()
        like: str | None = None
        if cursor.accept("LIKE"):
            pattern = cursor.peek()
            if pattern is None or not is_string(pattern):
                raise cursor.expected("a pattern in single quotes", after="LIKE")
            like = str(cursor.next().text)
        cursor.finish("the statement")
        return ShowTables(ShowKind.MATERIALIZED_VIEWS if materialized else _SHOWN[what], like, self._whole)

    def _explain(self) -> Explain:
        cursor = self._cursor
        cursor.expect("EXPLAIN")
        analyze = cursor.accept("ANALYZE") or cursor.accept("ANALYSE")
        if cursor.sees("(", "ANALYZE", ")"):
            cursor.at += 3
            analyze = True
        if cursor.sees("(") and not _begins_query(self._tokens, cursor.at):
            raise self._unsupported("EXPLAIN with options", "write EXPLAIN or EXPLAIN ANALYZE", cursor.here())
        if cursor.done:
            raise cursor.expected("a statement", after="EXPLAIN")
        inner = _Statement(self._source, self._tokens[cursor.at :]).read()
        if not isinstance(inner, Select | Insert | CreateTable | CreateView):
            raise self._unsupported(f"EXPLAIN of {word(self._tokens[cursor.at])}", "explain a query", cursor.here())
        return Explain(inner, analyze, self._whole)

    # --- pieces --------------------------------------------------------------------------------------------

    def _name(self, what: str) -> Name:
        cursor = self._cursor
        parts = [cursor.name(what)]
        while cursor.accept("."):
            parts.append(cursor.name("a name after the dot"))
        return Name(tuple(str(part.text) for part in parts), span(parts[0], parts[-1]))

    def _names_in_parentheses(self) -> tuple[tuple[str, ...], tuple[Span, ...]]:
        """`(a, "b c")`, each once."""
        cursor = self._cursor
        cursor.expect("(")
        names: list[Token] = []
        while not cursor.accept(")"):
            token = cursor.name("a column name")
            if any(str(one.text).lower() == str(token.text).lower() for one in names):
                raise SqlSyntaxError(
                    "sql.duplicate_column",
                    f'the column "{token.text}" is named twice',
                    place=span(token).place(self._text),
                )
            names.append(token)
            if not cursor.accept(","):
                cursor.expect(")", after="a column name")
                break
        return tuple(str(one.text) for one in names), tuple(span(one) for one in names)

    def _unsupported(self, what: str, hint: str | None, where: Span) -> SqlUnsupportedError:
        return SqlUnsupportedError(
            "sql.unsupported_statement", f"{what} is not supported", hint=hint, place=where.place(self._text)
        )


_OPENING: Final = (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.LT)
_CLOSING: Final = (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.GT)


def _untold(text: str, tokens: Sequence[Token]) -> Sequence[Token]:
    """The tokens of an EXPLAIN with those of what it explains: sqlglot keeps that part as one text."""
    if tokens[0].token_type != TokenType.COMMAND or word(tokens[0]) != "EXPLAIN":
        return tokens
    first, last = tokens[0], tokens[-1]
    rest = "".join("\n" if ch == "\n" else " " for ch in text[: first.end + 1]) + text[first.end + 1 : last.end + 1]
    return [first, *tokenize(rest)]


def _begins_query(tokens: Sequence[Token], at: int) -> bool:
    """Whether a query begins here, in parentheses or not."""
    while at < len(tokens) and tokens[at].token_type == TokenType.L_PAREN:
        at += 1
    return at < len(tokens) and word(tokens[at]) in QUERY_WORDS


def _statement_hint(opening: str) -> str:
    known = (*_STATEMENT_WORDS, *_UNSUPPORTED)
    near = get_close_matches(opening.upper(), known, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return "statements begin with " + ", ".join(_STATEMENT_WORDS[:-1]) + " or " + _STATEMENT_WORDS[-1]
