"""Functions: which calls are aggregates, window functions or volatile, and what a call by name means.

A call means what the engine says by that name. sqlglot knows some 800 functions and turns calls into typed nodes,
to print them in other dialects; on the way it renames some, drops arguments of others (`xor(a, b, c)` becomes
`xor(a, b)`), and swaps meanings where dialects differ. So `plain` hides the names from it, and every call arrives as
an exp.Anonymous with the name and all arguments as written. Typed stay what has syntax of its own (`CAST`,
`EXTRACT(year FROM x)`) and what needs its type to print right (`lag(x IGNORE NULLS)`): the table TYPED.

Names that the engine lacks, or takes too narrowly, are Velaria's own: the table VELARIA_FUNCTIONS says what each
stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.parsers.duckdb import DuckDBParser
from sqlglot.tokenizer_core import Token, TokenType

from velaria_core.errors import InputError, Place
from velaria_core.logical.similarity import SIMILARITIES, similarity_call
from velaria_core.logical.snippets import snippet_call

_DUCKDB: Final = Dialect.get_or_raise("duckdb")
_DAY_OF: Final = "TIMESTAMP"

# --- what the engine has -----------------------------------------------------------------------------------
# Held against duckdb_functions() by core/tests/test_functions.py. Names are lower-case.

# The last two lines: macros over aggregates, and those that exist as syntax only (WITHIN GROUP).
AGGREGATES: Final[frozenset[str]] = frozenset(
    """
    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last
    arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bitstring_agg bool_and
    bool_or combine_aggr corr count count_if count_star countif covar_pop covar_samp decimal_average entropy favg first
    fsum group_concat histogram histogram_exact kahan_sum kurtosis kurtosis_pop last list listagg lttb mad max max_by
    mean median min min_by mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count
    regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev stddev_pop
    stddev_samp string_agg sum sum_no_overflow sumkahan var_pop var_samp variance variant_group_object
    geomean geometric_mean json_group_array json_group_object json_group_structure variant_group_array wavg weighted_avg
    percentile_cont percentile_disc
    """.split()  # noqa: SIM905 -- a block of words reads better than a list
)

WINDOWS: Final[frozenset[str]] = frozenset(
    """
    cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number
    """.split()  # noqa: SIM905 -- a block of words reads better than a list
)

# Calls whose result is more than a function of their arguments: chance, sequences, clocks, sessions, and side effects.
VOLATILE: Final[frozenset[str]] = frozenset(
    """
    random uuid uuidv4 uuidv7 gen_random_uuid setseed nextval currval setval
    now today current_date current_time current_timestamp current_localtime current_localtimestamp localtime
    localtimestamp get_current_time get_current_timestamp transaction_timestamp ago currenttimestamp
    current_connection_id current_query current_query_id current_transaction_id txid_current
    current_catalog current_database current_role current_schema current_schemas current_setting current_user
    session_user user getvariable in_search_path pg_postmaster_start_time pg_conf_load_time
    error sleep_ms pg_sleep stats vector_type write_log
    """.split()  # noqa: SIM905 -- a block of words reads better than a list
)

# Volatile with this many arguments only: age(ts) counts from today, unix_timestamp() is the clock.
_VOLATILE_WITH: Final = {"age": 1, "unix_timestamp": 0}

_CLOCKS: Final = (
    exp.CurrentDate,
    exp.CurrentDatetime,
    exp.CurrentTime,
    exp.CurrentTimestamp,
    exp.Localtime,
    exp.Localtimestamp,
    exp.CurrentUser,
    exp.SessionUser,
    exp.CurrentRole,
    exp.CurrentCatalog,
    exp.CurrentSchema,
)


def name_of(node: exp.Expr) -> str | None:
    """The lower-case name of a call, or None for anything else."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    if isinstance(node, exp.Func):
        return str(node.sql_name()).lower()
    return None


def is_aggregate(node: exp.Expr) -> bool:
    """Whether the node itself is a call of an aggregate function."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower() in AGGREGATES
    return isinstance(node, exp.AggFunc) and name_of(node) not in WINDOWS


def is_window(node: exp.Expr) -> bool:
    """Whether the node itself is a call of a function that only exists with OVER."""
    return name_of(node) in WINDOWS


def is_volatile(node: exp.Expr) -> bool:
    """Whether the node itself is a call that may give something else the next time."""
    if isinstance(node, _CLOCKS):
        return True
    name = name_of(node)
    if name in _VOLATILE_WITH:
        return len(_arguments(node)) == _VOLATILE_WITH[name]
    return name in VOLATILE


def _arguments(node: exp.Expr) -> list[exp.Expr]:
    return list(node.expressions) if isinstance(node, exp.Anonymous) else list(node.iter_expressions())


# --- calls as written -------------------------------------------------------------------------------------

# Calls that sqlglot may type: special syntax inside the parentheses, `columns`, and windows with IGNORE NULLS.
TYPED: Final[frozenset[str]] = frozenset(
    """
    cast try_cast extract position substring trim overlay columns unnest
    first_value last_value nth_value lag lead
    """.split()  # noqa: SIM905 -- a block of words reads better than a list
)
# Words that are tokens of their own and still name functions, when a parenthesis follows.
_KEYWORD_CALLS: Final = frozenset(
    {
        *(TokenType.LEFT, TokenType.RIGHT, TokenType.XOR, TokenType.RANGE, TokenType.FORMAT, TokenType.LIST),
        *(TokenType.JSON, TokenType.UUID, TokenType.APPLY, TokenType.FIRST, TokenType.FILTER),
    }
)
# After these, FILTER begins a clause.
_CLOSING: Final = frozenset({TokenType.R_PAREN})
_KNOWN: Final = frozenset(DuckDBParser.FUNCTIONS) | frozenset(DuckDBParser.FUNCTION_PARSERS) | {"APPLY", "XOR"}
_CLOSE_OPERATORS: Final = frozenset({TokenType.DCOLON, TokenType.L_BRACKET, TokenType.DOT})
_ARROWS: Final = frozenset({TokenType.ARROW, TokenType.DARROW})
# Stands before a name so that sqlglot does not know it. No text that is SQL holds this character.
_HIDDEN: Final = "\x01"
_NULLS_WINDOWS: Final = (exp.FirstValue, exp.LastValue, exp.NthValue, exp.Lag, exp.Lead)


def plain(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with the names of calls hidden from sqlglot; `shown` undoes it in what it makes of them."""
    made: list[Token] = []
    last = len(tokens) - 1
    for at, token in enumerate(tokens):
        kind = token.token_type
        if (
            (kind == TokenType.VAR or kind in _KEYWORD_CALLS)
            and at < last
            and tokens[at + 1].token_type == TokenType.L_PAREN
            and token.text.upper() in _KNOWN
            and token.text.lower() not in TYPED
            and not (kind == TokenType.FILTER and at > 0 and tokens[at - 1].token_type in _CLOSING)
        ):
            name = _HIDDEN + token.text
            token = Token(TokenType.VAR, name, token.line, token.col, token.start, token.end, token.comments)
        if kind == TokenType.STRING and at > 0 and _is_hex_prefix(tokens[at - 1], token):
            made[-1:] = _hex_bytes(tokens[at - 1], token)
        elif kind == TokenType.STRING and 0 < at < last and _is_typed(tokens[at - 1], tokens[at + 1]):
            # DATE '2024-01-01'::VARCHAR: sqlglot applies what follows to the text alone.
            made[-1:] = [_sign(TokenType.L_PAREN, "(", token), made[-1], token, _sign(TokenType.R_PAREN, ")", token)]
        elif kind == TokenType.STRING and at > 0 and tokens[at - 1].token_type in _ARROWS:
            # A key such as 'a.b' is one key to the engine, and a path to sqlglot unless it is in parentheses.
            made += [_sign(TokenType.L_PAREN, "(", token), token, _sign(TokenType.R_PAREN, ")", token)]
        else:
            made.append(token)
    return made


def _is_hex_prefix(token: Token, string: Token) -> bool:
    return token.token_type == TokenType.VAR and token.text.lower() == "x" and token.end + 1 == string.start


def _is_typed(before: Token, behind: Token) -> bool:
    """Whether a text has its type before it, and an operator behind it that binds closer than that to sqlglot."""
    return before.token_type in DuckDBParser.TYPE_TOKENS and behind.token_type in _CLOSE_OPERATORS


def _sign(kind: TokenType, text: str, near: Token) -> Token:
    return Token(kind, text, near.line, near.col, near.start, near.end)


def _hex_bytes(prefix: Token, string: Token) -> list[Token]:
    """`x'AB'` as unhex('AB'): sqlglot reads an alias before a text."""
    here = (prefix.line, prefix.col, prefix.start, string.end)
    words = ((TokenType.VAR, _HIDDEN + "unhex"), (TokenType.L_PAREN, "("), (TokenType.STRING, string.text))
    return [Token(kind, text, *here) for kind, text in (*words, (TokenType.R_PAREN, ")"))]


def parsed(tokens: Sequence[Token], text: str) -> exp.Expr | None:
    """The tree of one statement, calls as written and Velaria's own names resolved.

    Args:
        tokens: of one statement, by sqlglot's DuckDB tokenizer.
        text: the text that their offsets refer to.
    Returns:
        None where sqlglot reads the tokens, but would print something else than they say.
    Raises:
        SqlglotError: sqlglot cannot read them.
    """
    if any(_is_misread(token, tokens[at + 1 : at + 2]) for at, token in enumerate(tokens)):
        return None
    trees = _DUCKDB.parser().parse(plain(tokens), text)
    tree = trees[0] if len(trees) == 1 else None
    if not isinstance(tree, exp.Expr):
        return None
    faithful_all = True
    calls: list[exp.Expr] = []
    for node in tree.walk():
        if isinstance(node, (exp.Anonymous, exp.WithinGroup)):
            calls.append(node)
        this = node.args.get("this")
        if isinstance(this, str) and this[:1] == _HIDDEN:
            node.set("this", this[1:])
        elif isinstance(node, (exp.JSONExtract, exp.JSONExtractScalar)) and isinstance(node.expression, exp.Paren):
            node.set("expression", node.expression.unnest())
        elif isinstance(node, (exp.IgnoreNulls, exp.RespectNulls)):
            # sqlglot prints it for these alone, and leaves it out elsewhere.
            faithful_all = faithful_all and isinstance(_within(node), _NULLS_WINDOWS)
    return _resolved(tree, calls, text) if faithful_all else None


def _is_misread(token: Token, behind: Sequence[Token]) -> bool:
    """`a <=> b` is a distance and `a !` a factorial; sqlglot takes the first for IS NOT DISTINCT FROM, the second for
    NOT. (`!~` begins with the same sign.)"""
    if token.token_type == TokenType.NOT and token.text == "!":
        return not (behind and behind[0].text.startswith("~"))
    return token.token_type == TokenType.NULLSAFE_EQ


def _within(node: exp.Expr) -> exp.Expr | None:
    """The call that IGNORE NULLS belongs to: it stands around the call, or around its argument."""
    return node.this if isinstance(node.this, exp.Func) else node.parent


def faithful(tree: exp.Expr) -> exp.Expr:
    """A tree in which every call means what its name says: Velaria's own names are resolved.

    What the parser gives is so already and comes back as it is; anything else is copied first.
    """
    if tree.meta.get("faithful"):
        return tree
    copied = tree.copy()
    return _resolved(copied, list(copied.find_all(exp.Anonymous, exp.WithinGroup)))


def _resolved(tree: exp.Expr, calls: Sequence[exp.Expr], text: str | None = None) -> exp.Expr:
    """Resolve Velaria's own names among the calls of `tree`, in place; the tree, or what stands for it."""
    # Innermost first, so that what is moved into a new node is resolved by then.
    for node in reversed(calls):
        try:
            made = _made(node)
        except InputError as error:
            if text is not None and "start" in node.meta:
                error.place = Place.in_text(text, node.meta["start"], node.meta["end"] - node.meta["start"] + 1)
            raise
        if made is None:
            continue
        if node is tree:
            tree = made
        else:
            node.replace(made)
    tree.meta["faithful"] = True
    return tree


def _made(node: exp.Expr) -> exp.Expr | None:
    """What stands for a call of Velaria's own, or None for any other call."""
    if isinstance(node, exp.WithinGroup):
        return _ordered_aggregate(node)
    written = str(node.name).lower()
    builder = VELARIA_FUNCTIONS.get(written)
    made = builder([argument.copy() for argument in node.expressions]) if builder is not None else None
    if made is not None:
        # Columns are named after what was written.
        made.meta["written"] = written
        made.meta.update({key: node.meta[key] for key in ("line", "col", "start", "end") if key in node.meta})
    return made


def _ordered_aggregate(node: exp.WithinGroup) -> exp.Expr | None:
    """`percentile_cont(p) WITHIN GROUP (ORDER BY x)` as `quantile_cont(x, p ORDER BY x)`: sqlglot prints that right."""
    call, order = node.this, node.args.get("expression")
    name = name_of(call)
    engine_name = {"percentile_cont": "quantile_cont", "percentile_disc": "quantile_disc", "mode": "mode"}.get(
        name or ""
    )
    if engine_name is None or not isinstance(order, exp.Order) or len(order.expressions) != 1:
        return None
    key = order.expressions[0]
    arguments = [key.this.copy(), *(argument.copy() for argument in _arguments(call))]
    arguments[-1] = exp.Order(this=arguments[-1], expressions=[key.copy()])
    made = exp.Anonymous(this=engine_name, expressions=arguments)
    made.meta["written"] = name
    return made


# --- Velaria's own names ----------------------------------------------------------------------------------

Arguments = list[exp.Expr]
Builder = Callable[[Arguments], exp.Expr | None]


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _cast(tree: exp.Expr, kind: str) -> exp.Expr:
    return exp.Cast(this=tree, to=exp.DataType.build(kind, dialect="duckdb"))


def _renamed(name: str) -> Builder:
    """The engine's function of another name."""
    return lambda arguments: _call(name, *arguments)


def _of_day(name: str) -> Builder:
    """A part of a date, from text too: the engine takes dates and timestamps only, not even a literal text."""

    def build(arguments: Arguments) -> exp.Expr | None:
        if len(arguments) != 1 or isinstance(arguments[0], exp.Interval):
            return _call(name, *arguments)
        day = arguments[0]
        if isinstance(day, exp.Cast) and day.is_type(*exp.DataType.TEMPORAL_TYPES):
            return _call(name, day)
        return _call(name, _cast(day, _DAY_OF))

    return build


def _unix_timestamp(arguments: Arguments) -> exp.Expr | None:
    """Whole seconds since 1970 in UTC: of now, or of a date, timestamp or text."""
    if len(arguments) > 1:
        return None
    moment = _cast(arguments[0], _DAY_OF) if arguments else _call("now")
    return _cast(_call("floor", _call("epoch", moment)), "BIGINT")


def _current_timestamp(arguments: Arguments) -> exp.Expr | None:
    return None if arguments else _call("now")


VELARIA_FUNCTIONS: Final[Mapping[str, Builder]] = {
    "btrim": _renamed("trim"),
    "currenttimestamp": _current_timestamp,
    "year": _of_day("year"),
    "month": _of_day("month"),
    "day": _of_day("day"),
    "week": _of_day("week"),
    "yearweek": _of_day("yearweek"),
    "iso_year": _of_day("isoyear"),
    "iso_week": _of_day("week"),
    "unix_timestamp": _unix_timestamp,
    "snippet": snippet_call,
    **{name: partial(similarity_call, name) for name in SIMILARITIES},
}
