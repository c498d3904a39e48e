"""Queries: Velaria's clauses are cut out of the tokens of a SELECT, sqlglot reads the rest.

`WINDOW BY ... EVERY ...`, `KEYWORD SEARCH (...) QUERY ...`, `HYBRID SEARCH ... QUERY ...` (or `VECTOR SEARCH`) and
`EMIT ...` are found by looking ahead far enough that no valid SQL is mistaken for them, so none of their words is
reserved. Places stay true, since tokens keep their offsets and what is cut from the text leaves blanks (ADR 0003).

What sqlglot makes of the window table functions, for the binder (each is the `this` of an exp.Table in FROM):

    TUMBLE(t, DESCRIPTOR(ts), INTERVAL 5 MINUTES)
        Anonymous("TUMBLE", [Column(t), Anonymous("DESCRIPTOR", [Column(ts)]), Interval('5', MINUTES)])
    TUMBLE(TABLE s.t, ts, INTERVAL '5 minutes')     TABLE is dropped, a qualified table is a qualified column
        Anonymous("TUMBLE", [Column(t, table=s), Column(ts), Interval('5', MINUTES)])
    HOP(t, ts, slide, size), SESSION(t, ts, gap)    the same shape under their own names
    SESSION(TABLE t PARTITION BY k, ts, gap)        SESSION(t, KEY => DESCRIPTOR(k), ts, gap)
    TUMBLE(DATA => TABLE t, SIZE => ...)            Kwarg(this=Var(DATA), expression=Column(t)) for each

`durations.interval_milliseconds` reads the lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from velaria_core.contract.modes import Metric
from velaria_core.errors import (
    Place,
    SqlSemanticError,
    SqlSyntaxError,
    SqlUnsupportedError,
    VelariaError,
)
from velaria_core.logical.expr import DIALECT
from velaria_core.logical.functions import parsed
from velaria_core.logical.searching import TOP_K
from velaria_core.logical.similarity import metric_named
from velaria_core.logical.sql.durations import NotADuration, is_unit, milliseconds
from velaria_core.logical.sql.statements import (
    Emit,
    Fuse,
    HybridSearch,
    KeywordSearch,
    Parameter,
    Select,
    WindowBy,
)
from velaria_core.logical.sql.syntax import Trial, diagnosed
from velaria_core.logical.sql.tokens import (
    Cursor,
    Span,
    depths,
    ends_operand,
    is_name,
    is_string,
    sees,
    span,
    tokenize,
    word,
)

_DUCKDB: Final = Dialect.get_or_raise(DIALECT)

EngineParses = Callable[[str], VelariaError | None]
Clause = WindowBy | KeywordSearch | HybridSearch

QUERY_WORDS: Final = frozenset({"SELECT", "WITH", "FROM", "VALUES", "PIVOT", "UNPIVOT", "TABLE"})
_CLAUSE_WORDS: Final = frozenset({"WINDOW", "KEYWORD", "HYBRID", "VECTOR"})
_SET_OPERATORS: Final = frozenset({"UNION", "INTERSECT", "EXCEPT"})
_TAIL_WORDS: Final = frozenset({"ORDER BY", "LIMIT", "OFFSET", "FETCH"})
_AFTER_CLAUSES: Final = frozenset({"GROUP BY", "HAVING", "QUALIFY", "ORDER BY", "LIMIT", "OFFSET", "FETCH"})
_WINDOW_FUNCTIONS: Final = frozenset({"TUMBLE", "HOP", "SESSION"})
_PREPARED_WORDS: Final = ("?", "TABLE", "SESSION", "WINDOW", "PIVOT")
_LACKING_WORDS: Final = ("POSITION", "TABLE", "WINDOW")
_CHANGING: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
# Trees are walked by recursion, a few frames to a level.
_DEPTH_MAX: Final = 200


@dataclass(slots=True)
class Source:
    """The text of one call of the parser, and what its queries share."""

    text: str
    engine_parses: EngineParses | None
    upper: str = field(init=False)
    """The text in capitals: a word that is not in it need not be looked for among the tokens."""
    parameters: dict[int, int] = field(default_factory=dict)
    """The number of each `?` in its statement, by its offset."""
    parts: int = 0

    def __post_init__(self) -> None:
        self.upper = self.text.upper()

    def mentions(self, words: Iterable[str]) -> bool:
        """Whether any of these words may stand in the text."""
        return any(word in self.upper for word in words)

    def part_name(self) -> str:
        """A table name for a query that is bound apart; no text can hold it by accident."""
        while True:
            self.parts += 1
            name = f"part {self.parts}"
            if f'"{name}"' not in self.text:
                return name


def read_query(source: Source, tokens: Sequence[Token], *, nested: bool = False) -> Select:
    """The query that all of `tokens` are.

    Raises:
        SqlSyntaxError: it is no query; at the first token that cannot stand where it does.
        SqlUnsupportedError: it changes data, or a clause stands where it has no meaning.
    """
    text = source.text
    whole = span(tokens[0], tokens[-1])
    if source.mentions((*_CHANGING, "INTO")):
        _refuse_changes(text, tokens)
    emit, kept = _emit(text, tokens, nested=nested)
    starts = []
    if source.mentions(_CLAUSE_WORDS):
        starts = [at for at in range(len(kept)) if _starts_clause(kept, at)]
    cut = _Cut(text, whole, kept)
    if len(kept) < len(tokens):
        cut.blank(span(tokens[len(kept)], tokens[-1]))
    clauses: dict[type[Clause], Clause] = {}
    parts: dict[str, Select] = {}
    if starts:
        own, ranges = _sorted_out(text, kept, starts)
        for low, high in ranges:
            name = source.part_name()
            parts[name] = read_query(source, kept[low:high], nested=True)
            cut.replace(low, high, name)
        for at in own:
            cursor = Cursor(text, kept, at)
            clause = _clause(source, cursor)
            _check_order(text, kept, at, cursor.at, clause, clauses)
            clauses[type(clause)] = clause
            cut.remove(at, cursor.at)
    window, keyword, hybrid = (clauses.get(kind) for kind in (WindowBy, KeywordSearch, HybridSearch))
    assert isinstance(window, WindowBy | None)
    assert isinstance(keyword, KeywordSearch | None)
    assert isinstance(hybrid, HybridSearch | None)
    tree = _tree(source, cut.tokens() if starts else kept, cut.text(), whole)
    emit_span = span(tokens[len(kept)], tokens[-1]) if emit is not None else None
    return Select(tree, cut.text(), whole, window, keyword, hybrid, emit, parts, emit_span)


def read_expression(source: Source, tokens: Sequence[Token]) -> exp.Expr:
    """The scalar expression that all of `tokens` are."""
    first = tokens[0]
    select = Token(TokenType.SELECT, "SELECT", first.line, first.col, first.start, first.start)
    try:
        tree = parsed([select, *_prepared(source, tokens)], source.text)
    except RecursionError as error:
        raise _too_deep(source.text, span(first, tokens[-1])) from error
    except SqlglotError as error:
        raise diagnosed(source.text, tokens, _offset(tokens, error), error) from error
    if not isinstance(tree, exp.Select) or len(tree.expressions) != 1:
        raise SqlSyntaxError("sql.syntax", "expected one expression", place=span(first, tokens[-1]).place(source.text))
    made: exp.Expr = tree.expressions[0]
    return made


# --- cutting ----------------------------------------------------------------------------------------------


class _Cut:
    """The tokens and the text of a query while pieces are taken out of both."""

    def __init__(self, text: str, whole: Span, tokens: Sequence[Token]) -> None:
        self._tokens: list[Token | None] = list(tokens)
        self._added: dict[int, list[Token]] = {}
        self._text = text[whole.offset : whole.end]
        self._offset = whole.offset

    def blank(self, gone: Span, instead: str = "") -> None:
        start = gone.offset - self._offset
        piece = self._text[start : start + gone.length]
        blanks = "".join("\n" if ch == "\n" else " " for ch in piece[len(instead) :])
        self._text = self._text[:start] + instead + blanks + self._text[start + gone.length :]

    def remove(self, low: int, high: int) -> None:
        """Take out the tokens from `low` up to `high`."""
        first, last = self._tokens[low], self._tokens[high - 1]
        assert first is not None
        assert last is not None
        self.blank(span(first, last))
        self._tokens[low:high] = [None] * (high - low)

    def replace(self, low: int, high: int, name: str) -> None:
        """Put `FROM "name"` in the place of the tokens from `low` up to `high`."""
        first, last = self._tokens[low], self._tokens[high - 1]
        assert first is not None
        assert last is not None
        gone = span(first, last)
        self.remove(low, high)
        self.blank(gone, f'FROM "{name}"')
        here = (first.line, first.col, first.start, last.end)
        self._added[low] = [Token(TokenType.FROM, "FROM", *here), Token(TokenType.IDENTIFIER, name, *here)]

    def tokens(self) -> list[Token]:
        made = []
        for at, token in enumerate(self._tokens):
            made += self._added.get(at, [])
            if token is not None:
                made.append(token)
        return made

    def text(self) -> str:
        return self._text


def _sorted_out(text: str, tokens: Sequence[Token], starts: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Which clauses belong to the outermost SELECT, and which stretches of tokens are queries bound apart."""
    depth = depths(tokens)
    ranges = [_group_around(text, tokens, depth, at) for at in starts if depth[at] > 0]
    own = [at for at in starts if depth[at] == 0]
    operators = [at for at, token in enumerate(tokens) if depth[at] == 0 and word(token) in _SET_OPERATORS]
    if operators and own:
        ranges += [_branch_around(tokens, depth, operators, at) for at in own]
        own = []
    outermost = [
        one
        for one in dict.fromkeys(ranges)
        if not any(low <= one[0] and one[1] <= high and (low, high) != one for low, high in ranges)
    ]
    return own, outermost


def _group_around(text: str, tokens: Sequence[Token], depth: Sequence[int], at: int) -> tuple[int, int]:
    """The query in parentheses that a clause stands in."""
    low = next(one for one in range(at, -1, -1) if depth[one] < depth[at])
    high = next((one for one in range(at, len(tokens)) if depth[one] < depth[at]), len(tokens))
    if word(tokens[low + 1]) not in QUERY_WORDS:
        raise SqlSyntaxError(
            "sql.syntax",
            f"{_clause_name(tokens, at)} stands outside of a SELECT",
            place=span(tokens[at]).place(text),
        )
    return low + 1, high


def _branch_around(tokens: Sequence[Token], depth: Sequence[int], operators: Sequence[int], at: int) -> tuple[int, int]:
    """The branch of a set operation that a clause stands in: no WITH before, no ORDER BY behind."""
    before = [one for one in operators if one < at]
    low = before[-1] + 1 if before else 0
    while word(tokens[low]) not in {"SELECT", "FROM", "VALUES"} or depth[low] != 0:
        low += 1
    after = [one for one in operators if one > at]
    if after:
        return low, after[0]
    tail = (one for one in range(at, len(tokens)) if depth[one] == 0 and word(tokens[one]) in _TAIL_WORDS)
    return low, next(tail, len(tokens))


def _check_order(
    text: str,
    tokens: Sequence[Token],
    at: int,
    end: int,
    clause: Clause,
    earlier: dict[type[Clause], Clause],
) -> None:
    """Refuse a clause that is given twice, or stands before WHERE, or after GROUP BY."""
    name = _clause_name(tokens, at)
    place = span(tokens[at], tokens[at + 1]).place(text)
    if type(clause) in earlier:
        raise SqlSyntaxError("sql.clause_order", f"{name} is given twice", place=place)
    if isinstance(clause, KeywordSearch) and HybridSearch in earlier:
        raise SqlSyntaxError(
            "sql.clause_order",
            "KEYWORD SEARCH goes before HYBRID SEARCH",
            hint="swap the two clauses",
            place=place,
        )
    if isinstance(clause, WindowBy) and earlier:
        raise SqlSyntaxError("sql.clause_order", "WINDOW BY goes before a search", place=place)
    depth = depths(tokens)
    before = {word(token) for token, deep in zip(tokens[:at], depth[:at], strict=True) if deep == 0}
    if "FROM" not in before:
        raise SqlSyntaxError("sql.clause_order", f"{name} goes after FROM", place=place)
    if late := before & _AFTER_CLAUSES:
        raise SqlSyntaxError(
            "sql.clause_order",
            f"{name} goes before {min(late)}",
            hint="move it right after WHERE",
            place=place,
        )
    for token, deep in zip(tokens[end:], depth[end:], strict=True):
        if deep == 0 and word(token) in {"WHERE", "JOIN"}:
            raise SqlSyntaxError(
                "sql.clause_order",
                f"{name} goes after {word(token)}",
                hint=f"move {name} right before GROUP BY, or to the end",
                place=span(token).place(text),
            )


def _refuse_changes(text: str, tokens: Sequence[Token]) -> None:
    """A query only reads: WITH may not hold INSERT, UPDATE or DELETE, and SELECT has no INTO."""
    for at, token in enumerate(tokens):
        if (
            token.token_type == TokenType.L_PAREN
            and at + 1 < len(tokens)
            and word(tokens[at + 1]) in _CHANGING
            and at > 0
            and word(tokens[at - 1]) in {"AS", "MATERIALIZED"}
        ):
            raise SqlUnsupportedError(
                "sql.unsupported_statement",
                f"{word(tokens[at + 1])} cannot stand inside a query",
                hint="run it as a statement of its own, before the query",
                place=span(tokens[at + 1]).place(text),
            )
        # UNPIVOT ... INTO NAME ... VALUE is another thing.
        if token.token_type == TokenType.INTO and not sees(tokens, at + 1, "NAME"):
            raise SqlUnsupportedError(
                "sql.unsupported",
                "SELECT ... INTO is not supported",
                hint="write CREATE TABLE name AS SELECT ...",
                place=span(token).place(text),
            )


# --- our clauses ------------------------------------------------------------------------------------------


def _starts_clause(tokens: Sequence[Token], at: int) -> bool:
    """Whether a clause of ours begins here: a word lies ahead that no other SQL has in that place."""
    if word(tokens[at]) not in _CLAUSE_WORDS:
        return False
    if sees(tokens, at, "WINDOW", "BY"):
        return sees(tokens, _after_path(tokens, at + 2), "EVERY")
    if sees(tokens, at, "KEYWORD", "SEARCH", "("):
        return sees(tokens, _after_group(tokens, at + 2), "QUERY")
    if _sees_vectors(tokens, at):
        return sees(tokens, _after_path(tokens, at + 2), "QUERY")
    return False


def _sees_vectors(tokens: Sequence[Token], at: int) -> bool:
    return sees(tokens, at, "HYBRID", "SEARCH") or sees(tokens, at, "VECTOR", "SEARCH")


def _after_path(tokens: Sequence[Token], at: int) -> int:
    """The position after `a.b.c`, or -1."""
    while at < len(tokens) and is_name(tokens[at]):
        if not sees(tokens, at + 1, "."):
            return at + 1
        at += 2
    return -1


def _after_group(tokens: Sequence[Token], at: int) -> int:
    """The position after `( ... )`, or -1."""
    depth = 0
    for one in range(at, len(tokens)):
        kind = tokens[one].token_type
        depth += (kind == TokenType.L_PAREN) - (kind == TokenType.R_PAREN)
        if depth == 0:
            return one + 1
    return -1


def _clause_name(tokens: Sequence[Token], at: int) -> str:
    return f"{word(tokens[at])} {word(tokens[at + 1])}"


def _clause(source: Source, cursor: Cursor) -> Clause:
    """Read one clause; the cursor moves to its end."""
    if cursor.sees("WINDOW"):
        return _window_by(source, cursor)
    return _keyword_search(source, cursor) if cursor.sees("KEYWORD") else _hybrid_search(source, cursor)


def _window_by(source: Source, cursor: Cursor) -> WindowBy:
    start = cursor.expect("WINDOW")
    cursor.expect("BY", after="WINDOW")
    column = _column(cursor, "a time column after WINDOW BY")
    cursor.expect("EVERY", after="the time column of WINDOW BY")
    every, every_span = _duration(cursor, "EVERY")
    slide, slide_span = every, every_span
    if cursor.accept("SLIDE"):
        slide, slide_span = _duration(cursor, "SLIDE")
    cursor.expect("AS", after="the length of the window")
    name = cursor.name("a name for the window after AS")
    text = source.text
    if every <= 0:
        raise SqlSemanticError(
            "sql.window_length", "a window must be longer than nothing", place=every_span.place(text)
        )
    if not 0 < slide <= every:
        raise SqlUnsupportedError(
            "sql.window_slide",
            f"SLIDE must be more than 0 and at most EVERY ({every} ms), not {slide} ms",
            hint="a longer slide would leave rows out; filter them with WHERE instead",
            place=slide_span.place(text),
        )
    return WindowBy(column, every, slide, str(name.text), span(start, name))


def _keyword_search(source: Source, cursor: Cursor) -> KeywordSearch:
    start = cursor.expect("KEYWORD")
    cursor.expect("SEARCH", "(", after="KEYWORD")
    columns: list[exp.Column] = []
    weights: list[float] = []
    while not columns or cursor.accept(","):
        columns.append(_column(cursor, "a text column"))
        weights.append(_number(cursor, "^") if cursor.accept("^") else 1.0)
    cursor.expect(")", after="the columns of KEYWORD SEARCH")
    cursor.expect("QUERY", after="the columns of KEYWORD SEARCH")
    query = _text(source, cursor, "the words to search for, in single quotes")
    query_span = query.span if isinstance(query, Parameter) else span(cursor.previous())
    top_k: int | Parameter | None = None
    analyzer: str | None = None
    for option in _options(source, cursor, ("TOP_K", "ANALYZER")):
        if option == "TOP_K":
            top_k = _count(source, cursor)
        else:
            analyzer = str(cursor.next().text) if cursor.sees_string() else str(cursor.name("an analyzer").text)
    where = span(start, cursor.previous())
    return KeywordSearch(tuple(columns), query, query_span, top_k, where, tuple(weights), analyzer)


def _options(source: Source, cursor: Cursor, known: Iterable[str]) -> Iterator[str]:
    """The words of options that follow, each once, in any order; the caller reads what comes after each."""
    given: set[str] = set()
    while (token := cursor.peek()) is not None and (option := word(token)) in known:
        cursor.next()
        if option in given:
            raise SqlSyntaxError("sql.clause_order", f"{option} is given twice", place=span(token).place(source.text))
        given.add(option)
        yield option


def _hybrid_search(source: Source, cursor: Cursor) -> HybridSearch:
    start = cursor.next()
    name = f"{word(start)} SEARCH"
    cursor.expect("SEARCH", after=word(start))
    column = _column(cursor, f"a vector column after {name}")
    cursor.expect("QUERY", after=f"the column of {name}")
    query, query_span = _query_vector(source, cursor)
    metric = Metric.COSINE
    top_k: int | Parameter = TOP_K
    threshold: float | Parameter | None = None
    fusion: tuple[str, float | None, Span] | None = None
    candidates: int | Parameter | None = None
    for option in _options(source, cursor, ("METRIC", "TOP_K", "SCORE_THRESHOLD", "FUSE", "CANDIDATES")):
        match option:
            case "FUSE":
                fusion = _fusion(cursor)
            case "CANDIDATES":
                candidates = _count(source, cursor, after="CANDIDATES")
            case "METRIC":
                metric = _metric(cursor)
            case "TOP_K":
                top_k = _count(source, cursor)
            case _:
                threshold = _parameter(source, cursor) or _number(cursor, "SCORE_THRESHOLD")
    where = span(start, cursor.previous())
    fuse = None
    if fusion is not None:
        fuse = Fuse(*fusion[:2], candidates, fusion[2])
    elif candidates is not None:
        raise SqlSyntaxError(
            "sql.syntax",
            "CANDIDATES are of searches that are fused",
            hint="add FUSE RRF",
            place=where.place(source.text),
        )
    return HybridSearch(column, query, query_span, metric, top_k, threshold, where, fuse)


def _fusion(cursor: Cursor) -> tuple[str, float | None, Span]:
    """`RRF`, `RRF 60`, `WEIGHTED 0.3`."""
    name = cursor.name("RRF or WEIGHTED after FUSE")
    token = cursor.peek()
    constant = _number(cursor, str(name.text)) if token is not None and token.token_type == TokenType.NUMBER else None
    return str(name.text), constant, span(name, cursor.previous())


def _query_vector(source: Source, cursor: Cursor) -> tuple[str | Parameter | exp.Column, Span]:
    """What is searched for, and where it stands: a text, a parameter, or the column of a table, as `q.embedding`."""
    first, dot = cursor.peek(), cursor.peek(1)
    query: str | Parameter | exp.Column
    if first is not None and is_name(first) and dot is not None and dot.text == ".":
        query = _column(cursor, "a table and its column of vectors")
    else:
        query = _text(source, cursor, "a vector in single quotes, as '[0.1, 0.2]', or a column, as q.embedding")
    assert first is not None, "something was read"
    return query, span(first, cursor.previous())


def _emit(text: str, tokens: Sequence[Token], *, nested: bool) -> tuple[Emit | None, Sequence[Token]]:
    """The EMIT clause at the end of a query, and the tokens before it."""
    for words, emit in (
        (("EMIT", "ON", "WINDOW", "CLOSE"), Emit.ON_WINDOW_CLOSE),
        (("EMIT", "CHANGES"), Emit.CHANGES),
    ):
        at = len(tokens) - len(words)
        # `FROM emit changes` is a table and its alias: the clause comes after something complete.
        if sees(tokens, at, *words) and at > 0 and ends_operand(tokens[at - 1]):
            if nested:
                raise SqlSyntaxError(
                    "sql.clause_order",
                    "EMIT belongs to the whole statement, not to a query inside it",
                    hint="move it to the end",
                    place=span(tokens[at], tokens[-1]).place(text),
                )
            return emit, tokens[:at]
    return None, tokens


# --- their pieces -----------------------------------------------------------------------------------------


def _column(cursor: Cursor, what: str) -> exp.Column:
    """`a` or `t.a`, as sqlglot would read it."""
    parts = [cursor.name(what)]
    while cursor.accept("."):
        parts.append(cursor.name("a column after the dot"))
    if len(parts) > 4:
        raise SqlSyntaxError(
            "sql.syntax",
            "a column has at most three names before it",
            place=span(parts[0], parts[-1]).place(cursor.text),
        )
    names = [_identifier(token) for token in reversed(parts)]
    keys = ("this", "table", "db", "catalog")
    return exp.Column(**dict(zip(keys, names, strict=False)))


def _identifier(token: Token) -> exp.Identifier:
    made = exp.Identifier(this=token.text, quoted=token.token_type == TokenType.IDENTIFIER)
    made.update_positions(token)
    return made


def _duration(cursor: Cursor, clause: str) -> tuple[int, Span]:
    """A length of time in milliseconds: `5000`, `'5 minutes'`, `INTERVAL 5 MINUTES`, `5 MINUTES`."""
    start = cursor.peek()
    if start is None:
        raise cursor.expected("a length of time", after=clause)
    interval = cursor.accept("INTERVAL")
    token = cursor.peek()
    if token is None or not (is_string(token) or token.token_type in (TokenType.NUMBER, TokenType.DASH)):
        raise cursor.expected(
            "a length of time",
            after="INTERVAL" if interval else clause,
            hint="write milliseconds (5000), '5 minutes', or INTERVAL 5 MINUTES",
        )
    sign = "-" if cursor.accept("-") else ""
    amount = cursor.next()
    unit = cursor.peek()
    number = f"{sign}{amount.text}"
    # Bare, `5 w` is a number and a name; the short units are for texts.
    bare = not interval and not is_string(amount) and unit is not None and len(unit.text) > 2
    if unit is not None and (interval or bare) and is_unit(word(unit)):
        cursor.next()
        number += f" {unit.text}"
    elif not is_string(amount):
        number += " milliseconds" if not interval else ""
    found = span(start, cursor.previous())
    try:
        return milliseconds(number), found
    except NotADuration as error:
        raise SqlSyntaxError(
            "sql.duration",
            f"{clause}: {error}",
            hint="write milliseconds (5000), '5 minutes', or INTERVAL 5 MINUTES",
            place=found.place(cursor.text),
        ) from error


def _text(source: Source, cursor: Cursor, what: str) -> str | Parameter:
    token = cursor.peek()
    if token is not None and is_string(token):
        return str(cursor.next().text)
    parameter = _parameter(source, cursor)
    if parameter is None:
        raise cursor.expected(what, after="QUERY")
    return parameter


def _count(source: Source, cursor: Cursor, after: str = "TOP_K") -> int | Parameter:
    parameter = _parameter(source, cursor)
    if parameter is not None:
        return parameter
    token = cursor.peek()
    if token is None or token.token_type != TokenType.NUMBER or not token.text.isdigit() or int(token.text) == 0:
        raise cursor.expected("a whole number of at least 1", after=after)
    return int(cursor.next().text)


def _parameter(source: Source, cursor: Cursor) -> Parameter | None:
    token = cursor.peek()
    if token is not None and token.token_type == TokenType.PLACEHOLDER:
        return Parameter(source.parameters[token.start], span(cursor.next()))
    if token is not None and token.token_type == TokenType.PARAMETER and (key := cursor.peek(1)) is not None:
        cursor.at += 2
        return Parameter(int(key.text) if key.text.isdigit() else str(key.text), span(token, key))
    return None


def _number(cursor: Cursor, after: str) -> float:
    sign = -1.0 if cursor.accept("-") else 1.0
    token = cursor.peek()
    if token is None or token.token_type != TokenType.NUMBER:
        raise cursor.expected("a number", after=after)
    return sign * float(cursor.next().text)


def _metric(cursor: Cursor) -> Metric:
    token = cursor.peek()
    if token is None or not (is_name(token) or is_string(token)):
        raise cursor.expected("cosine, dot or l2", after="METRIC")
    try:
        found = metric_named(str(token.text))
    except SqlSemanticError as error:
        error.place = span(token).place(cursor.text)
        raise
    cursor.next()
    return found


# --- the rest, by sqlglot ---------------------------------------------------------------------------------


def _tree(source: Source, tokens: Sequence[Token], text: str, whole: Span) -> exp.Expr | None:
    """The tree of a query without our clauses; None where only the engine can read it."""
    if source.engine_parses is not None:
        refused = source.engine_parses(_for_engine(tokens, text, whole) if source.mentions(_LACKING_WORDS) else text)
        if refused is not None:
            at = refused.place.offset if refused.place is not None else None
            offset = whole.offset + at if at is not None else None
            if "expression depth" in refused.message:
                raise _too_deep(source.text, whole) from refused
            _explain_near_miss(source, tokens)
            raise diagnosed(source.text, tokens, offset, refused, Trial(text, _checker(source))) from refused
    try:
        tree = parsed(_prepared(source, tokens), source.text)
    except RecursionError as error:
        raise _too_deep(source.text, whole) from error
    except SqlglotError as error:
        if source.engine_parses is not None:
            return None
        _explain_near_miss(source, tokens)
        raise diagnosed(source.text, tokens, _offset(tokens, error), error, Trial(text, _checker(source))) from error
    if not isinstance(tree, (exp.Query, exp.Values, exp.Pivot)):
        return None
    # A tree is no deeper than its text is long.
    if len(tokens) > _DEPTH_MAX and _depth_of(_balanced(tree)) > _DEPTH_MAX:
        raise _too_deep(source.text, whole)
    return tree


def _too_deep(text: str, where: Span) -> SqlUnsupportedError:
    return SqlUnsupportedError(
        "sql.too_deep",
        f"the query is nested too deeply: at most {_DEPTH_MAX} levels",
        hint="IN (...) takes long lists, WITH names what is nested",
        place=Place.in_text(text, where.offset),
    )


def _balanced(tree: exp.Expr) -> exp.Expr:
    """Long chains of AND or OR, which programs write, as trees of little depth."""
    for node in list(tree.find_all(exp.And, exp.Or)):
        if type(node.parent) is type(node):
            continue
        operands = list(node.flatten(unnest=False))
        if len(operands) > _DEPTH_MAX // 4:
            node.replace(_halved(type(node), operands))
    return tree


def _halved(kind: type[exp.Expr], operands: Sequence[exp.Expr]) -> exp.Expr:
    if len(operands) == 1:
        return operands[0]
    middle = len(operands) // 2
    return kind(this=_halved(kind, operands[:middle]), expression=_halved(kind, operands[middle:]))


def _depth_of(tree: exp.Expr) -> int:
    level, depth = [tree], 0
    while level:
        level = [child for node in level for child in node.iter_expressions()]
        depth += 1
    return depth


def _prepared(source: Source, tokens: Sequence[Token]) -> Sequence[Token]:
    """The tokens as sqlglot needs them: parameters numbered, the table functions' own words made plain."""
    if not source.mentions(_PREPARED_WORDS):
        return tokens
    if source.mentions(("PIVOT",)):
        tokens = _pivot_in_parentheses(tokens)
    if source.mentions(("PARTITION",)):
        tokens = _keys_as_argument(tokens)
    made: list[Token] = []
    for at, token in enumerate(tokens):
        here = (token.line, token.col, token.start, token.end)
        kind = token.token_type
        if kind in (TokenType.PLACEHOLDER, TokenType.QDCOLON):
            number = source.parameters[token.start]
            made += [Token(TokenType.PARAMETER, "$", *here), Token(TokenType.NUMBER, str(number), *here)]
            if kind == TokenType.QDCOLON:
                made.append(Token(TokenType.DCOLON, "::", *here))
        elif _is_table_word(tokens, at):
            continue
        elif (kind == TokenType.SESSION and sees(tokens, at + 1, "(")) or _is_named_window(tokens, at):
            made.append(Token(TokenType.VAR, token.text, *here, token.comments))
        else:
            made.append(token)
    return made


def _pivot_in_parentheses(tokens: Sequence[Token]) -> Sequence[Token]:
    """`PIVOT ... ORDER BY ...` as `SELECT * FROM (PIVOT ...) ORDER BY ...`: sqlglot reads no clause behind it."""
    depth = depths(tokens)
    top = [at for at in range(len(tokens)) if depth[at] == 0]
    main = next((word(tokens[at]) for at in top if word(tokens[at]) in QUERY_WORDS - {"WITH"}), "")
    tail = next((at for at in top if word(tokens[at]) in _TAIL_WORDS), None)
    if main not in {"PIVOT", "UNPIVOT"} or tail is None:
        return tokens
    first, last = tokens[0], tokens[tail - 1]
    before = ((TokenType.SELECT, "SELECT"), (TokenType.STAR, "*"), (TokenType.FROM, "FROM"), (TokenType.L_PAREN, "("))
    opening = [Token(kind, text, first.line, first.col, first.start, first.start) for kind, text in before]
    closing = Token(TokenType.R_PAREN, ")", last.line, last.col, last.end, last.end)
    return [*opening, *tokens[:tail], closing, *tokens[tail:]]


def _keys_as_argument(tokens: Sequence[Token]) -> Sequence[Token]:
    """`SESSION(TABLE t PARTITION BY k, ...)` as `SESSION(TABLE t, KEY => DESCRIPTOR(k), ...)`."""
    made = list(tokens)
    for at in reversed(range(len(tokens))):
        if (after := _after_keys(tokens, at)) < 0:
            continue
        start, end = tokens[at], tokens[after - 1]
        named = (
            (TokenType.COMMA, ","),
            (TokenType.VAR, "KEY"),
            (TokenType.FARROW, "=>"),
            (TokenType.VAR, "DESCRIPTOR"),
        )
        opening = [Token(kind, text, start.line, start.col, start.start, start.end) for kind, text in named]
        inner = made[at + 1 : after]
        if not sees(inner, 0, "("):
            inner.insert(0, Token(TokenType.L_PAREN, "(", start.line, start.col, start.start, start.end))
            inner.append(Token(TokenType.R_PAREN, ")", end.line, end.col, end.end, end.end))
        made[at:after] = [*opening, *inner]
    return made


def _after_keys(tokens: Sequence[Token], at: int) -> int:
    """The position after `PARTITION BY k` or `PARTITION BY (k, l)` of a table function's table, or -1."""
    if tokens[at].token_type != TokenType.PARTITION_BY:
        return -1
    table = at - 1
    while table > 1 and (is_name(tokens[table]) or tokens[table].text == "."):
        table -= 1
    if not _is_table_word(tokens, table):
        return -1
    end = _after_group(tokens, at + 1) if sees(tokens, at + 1, "(") else _after_path(tokens, at + 1)
    return end if sees(tokens, end, ",") or sees(tokens, end, ")") else -1


def _is_named_window(tokens: Sequence[Token], at: int) -> bool:
    """Whether the word `window` is a name here, and not the clause `WINDOW w AS (...)`."""
    return tokens[at].token_type == TokenType.WINDOW and not sees(tokens, _after_path(tokens, at + 1), "AS", "(")


def _is_table_word(tokens: Sequence[Token], at: int) -> bool:
    """Whether this is the word TABLE of `TUMBLE(TABLE t, ...)` or `TUMBLE(DATA => TABLE t, ...)`."""
    if tokens[at].token_type != TokenType.TABLE or at < 2:
        return False
    if sees(tokens, at - 1, "("):
        return word(tokens[at - 2]) in _WINDOW_FUNCTIONS
    return word(tokens[at - 2]) == "DATA" and tokens[at - 1].text == "=>"


def _for_engine(tokens: Sequence[Token], text: str, whole: Span) -> str:
    """The text of a query with what the engine's grammar lacks replaced, character for character."""
    made = text
    for at, token in enumerate(tokens):
        instead = ""
        if _is_table_word(tokens, at):
            instead = " " * len(token.text)
        elif (after := _after_keys(tokens, at)) >= 0:
            instead = " " * span(token, tokens[after - 1]).length
        elif _is_named_window(tokens, at):
            instead = "windo_"
        elif word(token) == "POSITION" and sees(tokens, at + 1, "("):
            # The engine knows POSITION(a IN b) only; POSITION(a, b) is ours (logical/functions.py).
            end = _after_group(tokens, at + 1)
            if not any(word(inner) == "IN" for inner in tokens[at:end]):
                instead = "positio_"
        if instead:
            start = token.start - whole.offset
            made = made[:start] + instead + made[start + len(instead) :]
    return made


def _offset(tokens: Sequence[Token], error: Exception) -> int | None:
    """Where sqlglot stopped: it tells the line and column of the end of a token."""
    if not isinstance(error, ParseError) or not error.errors:
        return None
    line, column = error.errors[0].get("line"), error.errors[0].get("col")
    return next((token.start for token in tokens if (token.line, token.col) == (line, column)), None)


def _checker(source: Source) -> Callable[[str], int | None]:
    """A function that tells where another text for a query fails: -1 for nowhere, None for somewhere."""

    def check(changed: str) -> int | None:
        try:
            tokens = tokenize(changed)
        except SqlSyntaxError:
            return None
        if source.engine_parses is not None:
            refused = source.engine_parses(_for_engine(tokens, changed, Span(0, len(changed))))
            if refused is None:
                return -1
            return refused.place.offset if refused.place is not None else None
        try:
            _DUCKDB.parser().parse(tokens, changed)
        except SqlglotError as error:
            return _offset(tokens, error)
        return -1

    return check


def _explain_near_miss(source: Source, tokens: Sequence[Token]) -> None:
    """Where the text fails and something looks like a clause of ours, say what that clause lacks."""
    for at in range(len(tokens)):
        if (
            sees(tokens, at, "WINDOW", "BY")
            or sees(tokens, at, "KEYWORD", "SEARCH", "(")
            or (_sees_vectors(tokens, at) and not sees(tokens, at + 2, ","))
        ) and not _starts_clause(tokens, at):
            _clause(source, Cursor(source.text, tokens, at))
        if sees(tokens, at, "EMIT") and at > 0 and ends_operand(tokens[at - 1]):
            raise SqlSyntaxError(
                "sql.syntax",
                "EMIT goes to the very end, as EMIT CHANGES or EMIT ON WINDOW CLOSE",
                place=span(tokens[at]).place(source.text),
            )
