"""The SQL of declared filters: what keeps the entries, and what looks items up by them.

The statements of what `kvstore.sqlite.declared` is about. Each entry is a row of `filter_scalars`,
whose primary key they all go by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from kvstore.filters import And, Compare, Contains, Exists, Filter, In, Or, best_lookup
from kvstore.paths import EACH, Path
from kvstore.sql import Sql, all_of
from kvstore.sqlite.filters import is_exact_number, json_path
from kvstore.sqlite.layout import made_later

__all__ = [
    "ADD_ENTRIES",
    "COUNT_OTHERS",
    "CREATE_TABLE",
    "DROP_TRIGGER",
    "GET_NAMES",
    "GET_TRIGGERS",
    "HAS_MORE",
    "HELD_ENTRIES",
    "candidates",
    "entries",
    "first_entries",
    "is_told",
    "place_of",
    "triggers_of",
]

_MOST_PARTS = 20  # of an $or that are looked up; SQLite joins no more than 500 of them
_CLOSE = 1e-9  # as near as two versions of SQLite read the same number, relative to it, and more

# What stands for some values, above all texts: those without an order, of which it is known that
# they are there; true and false, which are no numbers; a text in a list's place; any value at all.
_LEAST = "x''"
_NULL, _FALSE, _TRUE, _ORDERLESS, _TEXT, _UNSURE = (f"x'0{number}'" for number in range(1, 7))

CREATE_TABLE = """
CREATE TABLE filter_scalars (
    field INTEGER NOT NULL,        -- of a declared path: its place in the list in meta
    path TEXT NOT NULL,            -- of the item's namespace
    scalar NOT NULL,
    item INTEGER NOT NULL,         -- items.id
    PRIMARY KEY (field, path, scalar, item)
) WITHOUT ROWID
"""

_BY_TYPE = (
    f"WHEN 'null' THEN {_NULL} WHEN 'false' THEN {_FALSE} WHEN 'true' THEN {_TRUE}"
    f" WHEN 'array' THEN {_ORDERLESS} WHEN 'object' THEN {_ORDERLESS}"
)

# What is at a path, or in the list there: an expression, and on what condition.
_IS_THERE = "json_type({value}, '{at}') IS NOT NULL"
_SCALAR = (
    f"CASE json_type({{value}}, '{{at}}') {_BY_TYPE} ELSE json_extract({{value}}, '{{at}}') END",
    _IS_THERE,
)
_ELEMENT = (
    f"CASE element.type {_BY_TYPE} ELSE element.value END",
    "json_type({value}, '{at}') = 'array'",
)
_NUL = r"GLOB '*\u0000*'"
_IS_TEXT = (_TEXT, "json_type({value}, '{at}') = 'text'")
_HAS_NUL = (_UNSURE, f"{{value}} {_NUL}")
_EACH = "json_each({value}, '{at}') AS element"


def _found(is_list: bool, value: str, before: str = "", source: str = "", after: str = "") -> str:
    """Write what selects the scalars of a value, some perhaps twice.

    Args:
        is_list: whether it is the elements of a list.
        value: the value, as SQL.
        before: what is selected before the scalar.
        source: the table that the value is of.
        after: what is selected after the scalar.
    """
    selects = []
    for scalar, where in _parts(is_list):
        tables = [table for table in (source, _EACH if scalar == _ELEMENT[0] else "") if table]
        begin = " ".join((*(("FROM", ", ".join(tables)) if tables else ()), "WHERE"))
        selects.append(" ".join(("SELECT", f"{before}{scalar} AS scalar{after}", begin, where)))
    return " UNION ALL ".join(selects).replace("{value}", value)


def _parts(is_list: bool) -> tuple[tuple[str, str], ...]:
    return (_ELEMENT, _IS_TEXT, _HAS_NUL) if is_list else (_SCALAR, _HAS_NUL)


_OLD = "CASE WHEN json_valid(old.value) THEN old.value END"  # a damaged row can be dropped, too
_ALL = "CASE WHEN json_valid(items.value) THEN items.value END"

# Keeping the entries. A statement for each thing that may be there takes two thirds of the time of
# one for all of them, as older files have it, which must put them together first.

_DIFFERS = """json_extract(old.value, '{at}') IS NOT json_extract(new.value, '{at}')
    OR json_type(old.value, '{at}') IS NOT json_type(new.value, '{at}')"""
_IS_ODD = f"old.value {_NUL} OR new.value {_NUL}"
_CHANGED = f"NOT json_valid(old.value) OR {_DIFFERS} OR {_IS_ODD}"
_CHANGED_OLDER = f"NOT json_valid(old.value) OR {_IS_ODD} OR {_DIFFERS}"

_TAKE = """
    DELETE FROM filter_scalars WHERE field = {{field}} AND path = old.path AND item = old.id
        AND scalar {among};
"""
# An upsert has its own way with OR IGNORE in a trigger (https://sqlite.org/lang_createtrigger.html).
_ADD = """
    INSERT INTO filter_scalars (field, path, scalar, item)
    SELECT {{field}}, new.path, {scalar}, new.id {source} WHERE {where} ON CONFLICT DO NOTHING;
"""
_ADD_OLDER = """
    INSERT INTO filter_scalars (field, path, scalar, item)
    SELECT {{field}}, new.path, found.scalar, new.id
    FROM ({found}) AS found WHERE found.scalar IS NOT NULL ON CONFLICT DO NOTHING;
"""


def triggers_of(number: int, place: tuple[bool, str]) -> dict[str, str]:
    """Write the triggers that keep the entries of a path, by name."""
    is_list, at = place
    return {
        name.replace("{field}", str(number)): (
            text.replace("{field}", str(number)).replace("{at}", at)
        )
        for name, text in _triggers(is_list).items()
    }


def _triggers(is_list: bool) -> dict[str, str]:
    """Write them with `{field}` and `{at}` for the path."""
    take, add = "", ""
    for scalar, where in _parts(is_list):
        is_element = scalar == _ELEMENT[0]
        among = f"IN (SELECT {scalar} FROM {_EACH} WHERE {where})"
        among = among if is_element else f"= {scalar} AND {where}"
        take += _TAKE.format(among=among)
        add += _ADD.format(scalar=scalar, source=f"FROM {_EACH}" if is_element else "", where=where)
    return _named(take.replace("{value}", _OLD), add.replace("{value}", "new.value"), _CHANGED)


def _older_triggers(is_list: bool) -> dict[str, str]:
    found = _found(is_list, "{value}").replace(_IS_THERE, "TRUE")
    old, new = (found.replace("{value}", each) for each in (_OLD, "new.value"))
    take = _TAKE.format(among=f"IN (SELECT found.scalar FROM ({old}) AS found)")
    return _named(take, _ADD_OLDER.format(found=new), _CHANGED_OLDER)


def _named(take: str, add: str, changed: str) -> dict[str, str]:
    return {
        f"filters_{{field}}_{kind}": (
            f"CREATE TRIGGER filters_{{field}}_{kind} {when} BEGIN {body} END"
        )
        for kind, when, body in (
            ("put", "AFTER INSERT ON items", add),
            ("change", f"AFTER UPDATE OF value ON items WHEN {changed}", take + add),
            ("drop", "AFTER DELETE ON items", take),
        )
    }


made_later("table", "filter_scalars", "filter_scalars", CREATE_TABLE)
for _name in _triggers(is_list=False):
    made_later(
        *("trigger", _name, "items"),
        *(
            made(is_list)[_name]
            for made in (_triggers, _older_triggers)
            for is_list in (False, True)
        ),
        field=r"\d+",
        at="(?:[^']|'')*",
    )


GET_NAMES = "SELECT value FROM meta WHERE name = 'filters'"
DROP_TRIGGER = "DROP TRIGGER {name}"
GET_TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
HAS_MORE = "SELECT 1 FROM items LIMIT 1 OFFSET +?"
ADD_ENTRIES = "INSERT OR IGNORE INTO filter_scalars {entries}"
HELD_ENTRIES = "SELECT field, path, scalar, item FROM filter_scalars WHERE field = {field}"
COUNT_OTHERS = "SELECT count(*) FROM (SELECT * FROM ({some}) EXCEPT SELECT * FROM ({others}))"


def place_of(path: Path) -> tuple[bool, str] | None:
    """Return whether a path is of the elements of a list, and where that is, in SQLite's words."""
    is_list = bool(path) and path[-1] is EACH
    at = json_path(path[:-1] if is_list else path)
    return None if at is None else (is_list, at.replace("'", "''"))


def entries(number: int, place: tuple[bool, str]) -> str:
    """Write what selects all entries of a path, as they should be."""
    is_list, at = place
    found = _found(is_list, _ALL, f"{number} AS field, items.path AS path, ", "items", ", items.id")
    return found.replace("{at}", at)


# Looking up


def candidates(node: Filter, declared: dict[Path, int], within: Sql) -> Sql | None:
    """Select the ids of all items that may pass a filter, or `None`: ask every item.

    Args:
        node: the filter.
        declared: the paths that the file has entries of.
        within: the condition on `path`.
    """
    match node:
        case Or(parts):
            found = [candidates(part, declared, within) for part in parts]
            known = [each for each in found if each is not None]
            if not 0 < len(known) == len(found) <= _MOST_PARTS:
                return None
            statement = known[0]
            for each in known[1:]:
                statement += Sql("UNION") + each
            return statement
        case And(parts):
            return best_lookup(
                parts,
                lambda part: candidates(part, declared, within),
                lambda compared: _ranged(compared, declared, within),
            )
    scalars = _scalars(node, declared)
    if scalars is None:
        return None
    return _entries_that(scalars[0], within, scalars[1])


def is_told(node: Filter, declared: dict[Path, int]) -> bool:
    """Whether next to none of a filter's `candidates` fail it."""
    match node:
        case Or(parts):
            return all(is_told(part, declared) for part in parts)
        case And(parts):
            ranges = [part for part in parts if isinstance(part, Compare) and part.op != "eq"]
            return len(ranges) == len(parts) and len({part.path for part in ranges}) == 1
    return not isinstance(node, Contains) and _scalars(node, declared) is not None


def _ranged(compared: Sequence[Compare], declared: dict[Path, int], within: Sql) -> Sql | None:
    number = declared.get(compared[0].path)
    bounds = None if number is None else _bounds(compared)
    return None if number is None or bounds is None else _entries_that(number, within, bounds)


def _entries_that(number: int, within: Sql, condition: Sql) -> Sql:
    """Select the items of which an entry of a path meets a condition, or that are to be asked."""
    begin = Sql("SELECT item FROM filter_scalars WHERE field = ? AND", (number,)) + within
    sure = begin + Sql("AND") + condition if condition.text else begin
    return sure + Sql("UNION ALL") + begin + Sql(f"AND scalar = {_UNSURE}")


def _scalars(node: Filter, declared: dict[Path, int]) -> tuple[int, Sql] | None:
    """Return the number of a path, and what the scalars meet of those that pass."""
    match node:
        case Contains(path, operand) if (*path, EACH) in declared:
            among = _among((operand,), *((_TEXT,) if isinstance(operand, str) else ()))
            return None if among is None else (declared[(*path, EACH)], among)
        case Exists(path) if path in declared:
            return declared[path], Sql("")
        case In(path, operands) if path in declared:
            among = _among(operands)
            return None if among is None else (declared[path], among)
        case Compare(path, "eq", operand) if path in declared:
            among = _among((operand,))
            return None if among is None else (declared[path], among)
        case Compare(path) if path in declared:
            bounds = _bounds([node])
            return None if bounds is None else (declared[path], bounds)
    return None


def _among(operands: Sequence[Any], *others: str) -> Sql | None:
    """Be one of some values, or what stands for it, or one of those that stand for `others`."""
    exact: list[Any] = []
    near: list[Sql] = []
    stands = set(others)
    for operand in operands:
        match operand:
            case bool():
                stands.add(_TRUE if operand else _FALSE)
            case None:
                stands.add(_NULL)
            case float() if not operand.is_integer():
                width = abs(operand) * _CLOSE
                near.append(Sql("scalar BETWEEN ? AND ?", (operand - width, operand + width)))
            case int() | float():
                if not is_exact_number(operand):
                    return None
                exact.append(int(operand))
            case str():
                exact.append(operand)
            case _:
                stands.add(_ORDERLESS)
    if near:  # not with others: an OR has no range
        return near[0] if len(operands) == 1 and not stands else None
    if len(exact) == 1 and not stands:
        return Sql("scalar = ?", (exact[0],))
    if len(stands) == 1 and not exact:
        return Sql(f"scalar = {stands.pop()}")
    listed = "SELECT value FROM json_each(?)" + "".join(
        f" UNION ALL SELECT {each}" for each in sorted(stands)
    )
    return Sql(f"scalar IN ({listed})", (orjson.dumps(exact).decode(),))


def _bounds(compared: Sequence[Compare]) -> Sql | None:
    """Lie between the bounds of a path that can be told; one of each side, so that it is a range.

    Those of the other type let nothing pass, and are left to the filter itself.
    """
    low = high = None
    kind: type | None = None
    for each in compared:
        operand = each.operand
        if isinstance(operand, bool) or not (isinstance(operand, str) or is_exact_number(operand)):
            continue
        if kind not in (None, str if isinstance(operand, str) else float):
            continue
        kind = str if isinstance(operand, str) else float
        if isinstance(operand, float) and not operand.is_integer():
            width = abs(operand) * _CLOSE
            operand += -width if each.op in ("gt", "gte") else width
        if each.op in ("gt", "gte"):
            low = operand if low is None else max(low, operand)
        else:
            high = operand if high is None else min(high, operand)
    if kind is None:
        return None
    parts = []
    if low is not None:
        parts.append(Sql("scalar >= ?", (low,)))
    elif kind is str:
        parts.append(Sql("scalar >= ''"))
    if high is not None:
        parts.append(Sql("scalar <= ?", (high,)))
    else:
        parts.append(Sql(f"scalar < {_LEAST if kind is str else repr('')}"))
    return all_of(parts)


# Ordering


_AT_LEAST, _AT_MOST = "scalar >= ?", "scalar <= ?"
_IN_ORDER = (
    *((_NULL, _NULL), (_FALSE, _FALSE), (_TRUE, _TRUE)),
    *((None, "''"), ("''", _LEAST), (_ORDERLESS, _ORDERLESS)),
)
"""The ranges of the entries of a path, in the order of `kvstore.ordering`: from, and below.

Where the two are equal, it is that scalar alone.
"""


def first_entries(
    number: int, path: str, descends: bool, most: int, ask: Callable[[Sql], Any]
) -> Sql | None:
    """Select the ids of the items of a namespace whose place in an order is before all others'.

    Those that are equal to the last one of them are among them.

    Args:
        number: of the path that they are ordered by.
        path: of the namespace.
        descends: whether the greatest comes first.
        most: how many ids are enough.
        ask: runs a statement; returns the first column of its row, or `None`.

    Returns:
        The statement; `None`: there are not as many, or of some it is not known where they belong.
    """
    begin = Sql("FROM filter_scalars WHERE field = ? AND path = ? AND", (number, path))
    way = "DESC" if descends else "ASC"
    if ask(Sql("SELECT 1") + begin + Sql(f"scalar = {_UNSURE} LIMIT 1")) is not None:
        return None
    found: list[Sql] = []
    for low, high in reversed(_IN_ORDER) if descends else _IN_ORDER:
        part = begin + Sql(_between(low, high))
        nth = Sql(f"ORDER BY scalar {way} LIMIT 1 OFFSET +?", (most - 1,))
        last = ask(Sql("SELECT scalar") + part + nth)
        if last is None:
            found.append(part)
            most -= ask(Sql("SELECT count(*)") + part)
            continue
        if low != high:  # one bound a side: SQLite takes but one of several as a range's
            bound = Sql(_AT_LEAST if descends else _AT_MOST, (_beyond(last, descends),))
            other = Sql(_between(None, high) if descends else _between(low, None))
            part = begin + (all_of([bound, other]) if other.text else bound)
        selected = Sql("SELECT item") + part
        for each in found:
            selected += Sql("UNION ALL SELECT item") + each
        return selected
    return None


def _between(low: str | None, high: str | None) -> str:
    if low and low == high:
        return f"scalar = {low}"
    parts = [f"scalar >= {low}"] if low else []
    return " AND ".join((*parts, f"scalar < {high}") if high else parts)


def _beyond(scalar: Any, descends: bool) -> Any:
    """Return a bound for what is equal to a scalar, however a version of SQLite reads it."""
    if not isinstance(scalar, float):
        return scalar
    width = abs(scalar) * _CLOSE
    return scalar - width if descends else scalar + width
