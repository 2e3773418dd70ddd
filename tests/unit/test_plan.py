"""What operations come to, decided on rows alone."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import pytest

from kvstore import ConflictError, IndexConfig, InMemoryStore, SQLiteStore, Store, codec
from kvstore.operations import (
    Check,
    Delete,
    Embedded,
    Expire,
    Mutate,
    Named,
    Operation,
    Put,
    Record,
    Restore,
    Touch,
)
from kvstore.plan import Admission, Effects, decide, gone, named

NS, PATH, KEY = ("ns",), "ns\t", "k"
NOW = 1_000
ROW = Record(PATH, KEY, b"1", 7, 100, 200)


def decided(op: Named, *rows: Record, is_watched: bool = True) -> Effects:
    there = {(row.path, row.key): row for row in rows}
    return decide([op], there, NOW, 10, is_watched=is_watched)


def test_what_has_a_place_for_vectors_is_embedded() -> None:
    kinds = {kind for kind in get_args(Operation) if "vectors" in {it.name for it in fields(kind)}}
    assert kinds == set(get_args(Embedded))


def test_a_put_over_nothing_begins_an_item() -> None:
    effects = decided(Put(NS, PATH, KEY, b"2", ttl=5, indexing=("a",)))
    ((row, _),) = effects.writes
    assert row == Record(PATH, KEY, b"2", 11, NOW, NOW, NOW + 5, 5, ("a",))
    assert effects.notes == [(11, "put", PATH, KEY, NOW)]
    assert effects.version == 11
    assert effects.answers[0].value == 2


@pytest.mark.parametrize("keep", [False, True])
def test_a_put_over_an_item_keeps_its_begin_and_what_it_is_told_to(keep: bool) -> None:
    before = replace(ROW, expires_at=NOW + 9, ttl=9, indexing=("a",))
    effects = decided(Put(NS, PATH, KEY, b"2", keep=keep), before)
    ((row, _),) = effects.writes
    kept = (NOW + 9, 9, ("a",)) if keep else (None, None, None)
    assert (row.created_at, row.updated_at, row.version) == (100, NOW, 11)
    assert (row.expires_at, row.ttl, row.indexing) == kept


def test_a_clock_that_was_ahead_is_believed_no_longer() -> None:
    ahead = replace(ROW, created_at=NOW + 1, updated_at=NOW + 1)
    ((row, _),) = decided(Put(NS, PATH, KEY, b"2"), ahead).writes
    assert (row.created_at, row.updated_at) == (NOW + 1, NOW)


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_an_expired_item_is_not_there_any_more(is_watched: bool, keep: bool) -> None:
    over = replace(ROW, expires_at=NOW, ttl=9, indexing=())
    effects = decided(Put(NS, PATH, KEY, b"2", None, 0, keep=keep), over, is_watched=is_watched)
    ((row, _),) = effects.writes
    assert row == Record(PATH, KEY, b"2", effects.version, NOW, NOW)
    kinds = [(note.kind, note.version) for note in effects.notes]
    assert kinds == ([("expire", 11), ("put", 12)] if is_watched else [])
    assert decided(Delete(NS, PATH, KEY), over).answers == [False]
    assert decided(Touch(NS, PATH, (KEY,)), over).renewals == []
    seen = decided(Mutate(NS, PATH, KEY, lambda data: (None, data)), over)
    assert (seen.answers, seen.writes) == ([None], [])


def test_a_deletion_is_a_change_and_a_miss_is_none() -> None:
    effects = decided(Delete(NS, PATH, KEY), ROW)
    assert (effects.answers, effects.drops) == ([True], [(PATH, KEY)])
    assert effects.notes == [(11, "delete", PATH, KEY, NOW)]
    missed = decided(Delete(NS, PATH, KEY))
    assert (missed.answers, missed.drops, missed.version) == ([False], [], 10)


def test_a_change_keeps_lifetime_and_indexing() -> None:
    def double(data: bytes | None) -> tuple[bytes, str]:
        assert data is not None
        return data * 2, "doubled"

    before = replace(ROW, expires_at=NOW + 9, ttl=9, indexing=())
    effects = decided(Mutate(NS, PATH, KEY, double, ttl=500), before)
    ((row, _),) = effects.writes
    assert effects.answers == ["doubled"]
    assert row == replace(before, data=b"11", version=11, updated_at=NOW)
    ((row, _),) = decided(Mutate(NS, PATH, KEY, lambda _: (b"0", None), ttl=500)).writes
    assert (row.ttl, row.expires_at) == (500, NOW + 500)


def test_a_renewal_is_no_change() -> None:
    lasting, other = replace(ROW, key="l"), replace(ROW, expires_at=NOW + 1, ttl=50)
    effects = decided(Touch(NS, PATH, (KEY, "l", "none")), lasting, other)
    assert effects.answers == [{KEY: NOW + 50}]
    assert effects.renewals == [replace(other, expires_at=NOW + 50)]
    assert (effects.version, effects.notes) == (10, [])


def test_another_lifetime_is_no_change_either() -> None:
    lasting = replace(ROW, expires_at=NOW + 9, ttl=9)
    for ttl, until in ((50, NOW + 50), (None, None)):
        effects = decided(Expire(NS, PATH, KEY, ttl), lasting)
        assert effects.answers == [True]
        assert effects.renewals == [replace(ROW, expires_at=until, ttl=ttl)]
        assert (effects.version, effects.notes) == (10, [])
    over = decided(Expire(NS, PATH, KEY, 50), replace(ROW, expires_at=NOW, ttl=9))
    assert (over.answers, over.renewals) == ([False], [])


def test_what_goes_by_itself_takes_a_version_each() -> None:
    effects = gone("expire", [(PATH, "a"), (PATH, "b")], NOW, 10, is_watched=True)
    assert [(note.version, note.key) for note in effects.notes] == [(11, "a"), (12, "b")]
    assert gone("delete", [(PATH, "a")], NOW, 10, is_watched=False).version == 11


def test_data_is_read_only_for_what_changes_it() -> None:
    ops: list[Named] = [
        Put(NS, PATH, "a", b"1"),
        Delete(NS, PATH, "b"),
        Mutate(NS, PATH, "c", lambda data: (data, None)),
        Touch(NS, PATH, ("d", "c")),
    ]
    wanted = {(PATH, "a"): False, (PATH, "b"): False, (PATH, "c"): True, (PATH, "d"): False}
    assert named(ops) == wanted
    assert named(reversed(ops)) == wanted


def test_versions_are_checked_only_where_one_is_expected() -> None:
    put, delete = Put(NS, PATH, KEY, b"1"), Delete(NS, PATH, KEY)
    for op in (put, delete):
        assert decided(op, ROW).answers
        assert decided(op).answers
        op.expected = 7
        assert decided(op, ROW).answers
    assert decided(Check(NS, PATH, KEY, 0)).answers == [None]
    assert decided(Check(NS, PATH, KEY, 7), ROW).answers == [None]


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        (5, 6, r"\('ns',\) / 'k' is at version 6, and version 5 was expected"),
        (5, 0, r"\('ns',\) / 'k' is absent, and version 5 was expected"),
        (0, 6, r"\('ns',\) / 'k' is at version 6, and absence was expected"),
    ],
)
def test_a_conflict_says_what_was_found(expected: int, found: int, said: str) -> None:
    rows = [replace(ROW, version=found)] if found else []
    for op in (
        Put(NS, PATH, KEY, b"1", expected=expected),
        Delete(NS, PATH, KEY, expected=expected),
        Check(NS, PATH, KEY, expected),
    ):
        with pytest.raises(ConflictError, match=said):
            decided(op, *rows)


@dataclass(slots=True)
class Rename:
    """An operation that no backend knows."""

    namespace: tuple[str, ...]
    path: str
    key: str


@pytest.fixture(params=["memory", "sqlite", "sqlite with an index"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Store:
    if request.param == "memory":
        return InMemoryStore()
    index = IndexConfig() if "index" in request.param else None
    return SQLiteStore(tmp_path / "store.db", index=index)


async def test_an_operation_that_nobody_knows_fails_loudly_and_whole(store: Store) -> None:
    unit: Any = [Put(NS, PATH, KEY, codec.encode(1)), Rename(NS, PATH, KEY)]
    async with store:
        before = await store.put(NS, KEY, 0)
        for ops in (unit, unit[1:]):
            with pytest.raises(AssertionError, match="Rename"):
                await store.apply(ops)
        assert await store.get(NS, KEY) == before
        await store.put(NS, KEY, 2)


def restored(admission: Admission, *records: Record, there: Record | None = None) -> Effects:
    return admission.admit(records, set() if there is None else {(there.path, there.key)})


def test_an_import_gives_new_versions_in_the_order_of_the_old() -> None:
    admission = Admission(Restore((), "replace"), 10, NOW, is_watched=True)
    over = replace(ROW, key="over", expires_at=NOW)
    effects = restored(admission, replace(ROW, version=4), replace(ROW, key="l", version=2), over)
    assert [(row.key, row.version) for row, _ in effects.writes] == [("k", 14), ("l", 12)]
    assert [(note.version, note.key) for note in effects.notes] == [(12, "l"), (14, "k")]
    assert (admission.written, effects.version) == (2, 14)
    effects = restored(admission, replace(ROW, key="m", version=0))
    assert [row.version for row, _ in effects.writes] == [15]


def test_of_several_records_of_an_item_one_stays() -> None:
    first, second = replace(ROW, version=0), replace(ROW, version=0, data=b"2")
    for conflict, data, written in (("replace", b"2", 2), ("skip", b"1", 1)):
        admission = Admission(Restore((), conflict), 10, NOW, is_watched=False)  # type: ignore[arg-type]
        effects = restored(admission, first, second)
        assert [(row.data, row.version) for row, _ in effects.writes] == [(data, 10 + written)]
        assert admission.written == written
    for rows, there in (((first, second), None), ((first,), first)):
        admission = Admission(Restore((), "error"), 10, NOW, is_watched=False)
        with pytest.raises(ConflictError, match="is there already; nothing was imported"):
            restored(admission, *rows, there=there)
