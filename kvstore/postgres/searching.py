"""The read side of the search index: rankings by meaning and by words.

A search is one read-only transaction that sees one state of everything. Each ranking is a walk:
candidates come best first (with the least weight, as the statements have it), in growing blocks,
and each block is joined to the items: alive, and passing the filter. The walk ends when no
candidate can be better than what was found, so a page is never short, and its order never depends
on where the page is cut.

Among few vectors the walk is exact. Among many, it depends on what passes the filter. Few, by the
index of scalars or by a sample: their vectors alone are compared, which is exact, too. Many:
pgvector's HNSW index gives the neighbours, by an iterative scan that goes on until enough pass; and
if it gives up before, an exact walk follows.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from kvstore import codec
from kvstore.context import CONTEXT_HITS, Neighbour, in_context, with_tail
from kvstore.description import Description, check_index
from kvstore.errors import IndexMismatchError
from kvstore.filters import ALL, matches
from kvstore.postgres import index_statements as sql
from kvstore.postgres import statements
from kvstore.postgres.codes import conditions_of, namespace_term, subtree_term, term_of
from kvstore.postgres.connection import Connection, snapshot
from kvstore.postgres.declared import candidates
from kvstore.postgres.filters import compile_filter
from kvstore.postgres.index_setup import MAX_HALF_INDEXED, MAX_INDEXED, find_extension
from kvstore.postgres.indexing import Setup, numbers_of, vectors_table
from kvstore.postgres.keys import Address, decode_key, root_of
from kvstore.postgres.reading import fetch, fetch_each, get_by_address, make
from kvstore.postgres.roots import store_state
from kvstore.postgres.session import quoted
from kvstore.ranking import FUSION_DEPTH, Hit, Search, WordWeights, cosines_of, page_of, similarity
from kvstore.sql import TRUE, Sql, all_of
from kvstore.types import Item

__all__ = ["EXACT_VECTORS", "sample_vectors", "search"]

EXACT_VECTORS = 10_000  # in scope, that are compared one by one: some 5 ms of 384 numbers
FEW = 0.05  # of a sample; if less pass a filter, those that do are compared one by one
SAMPLE = 100  # items from either end of the scope
MOST_NEIGHBOURS = 1_000  # of a page that HNSW gives; deeper ones are exact
_MORE = 8  # hits than are asked for: in single precision, some are not in their right order
MOST_SCANNED = 20_000  # vectors that HNSW may have to look at; beyond, an exact walk is quicker
EF_SEARCH = 200
_FIRST_NEIGHBOURS = 64
_LARGEST_FIRST = 5_000
_VALUES_AT_ONCE = 100  # of a first block, that come with it


async def search(
    connection: Connection, now: int, setup: Setup, path: str, asked: Search
) -> list[Item]:
    """Run a ranked search, and return its items with their scores.

    Raises:
        IndexMismatchError: the index is another model's, or not complete.
        MissingDependencyError: it is a search by meaning, and there is no pgvector.
    """
    if asked.vector is not None and not setup.schema:
        await find_extension(connection, setup, may_create=False)
    settings = ""
    if asked.vector:
        ef_search = min(1_000, max(EF_SEARCH, _neighbours_for(asked)))
        settings = sql.USE_HNSW.format(ef_search=ef_search)
    async with snapshot(connection, settings):
        described = await _describe(connection, path, asked)
        for description in described.descriptions:
            check_index(description, setup, asked)
        among = None if asked.subtree else candidates(asked.filter, setup.declared, path)
        finder = _Finder(connection, described, quoted(setup.schema), path, asked, now, among)
        if connection.is_distributed and described.root is None:
            finder.roots = [root for root, _ in await connection.fetch(statements.LIST_ROOTS)]
        return await finder.find()


@dataclass(frozen=True, slots=True)
class _Described:
    """What is known of the index before it is searched.

    Attributes:
        root: in which it is searched; `None`: in all of them.
        descriptions: of the roots; they may differ.
        dimensions: of the vectors; `None`: there are none.
        entries: how many the index has.
        words: their length together.
        in_scope: how many of them are in the namespace or subtree.
        vectors: how many there are, about; 0: unknown.
    """

    root: str | None
    descriptions: list[Description]
    dimensions: int | None
    entries: int
    words: int
    in_scope: int
    vectors: float


async def _describe(connection: Connection, path: str, asked: Search) -> _Described:
    """Find out what there is to search.

    Raises:
        IndexMismatchError: there is no index.
    """
    root = None if asked.subtree and not path else root_of(path)
    if root is None:
        rows = await connection.fetch(sql.DESCRIBE_ALL)
    else:
        token = subtree_term(path) if asked.subtree else namespace_term(path)
        rows = await connection.fetch(sql.DESCRIBE_ROOT, root, token)
    texts = [row["index"] for row in rows]
    if not rows:  # nothing was ever written there
        texts = [(await store_state(connection))[2]]
    if None in texts:
        raise IndexMismatchError("the index is gone from the database; open the store again")
    descriptions = list(map(Description.parse, texts))
    lengths = {each.dimensions for each in descriptions} - {None}
    vectors = 0.0
    if asked.vector and lengths:
        table = vectors_table(max(filter(None, lengths)))
        vectors = await connection.fetchval(sql.GUESS_VECTORS, connection.schema, table) or 0.0
    return _Described(
        root,
        descriptions,
        max(filter(None, lengths), default=None),
        sum(row["entries"] for row in rows),
        sum(row["words"] for row in rows),
        sum(row["in_scope"] for row in rows),
        vectors,
    )


def _depth(asked: Search) -> int:
    """Return how many of the best hits a ranking must give."""
    wanted = asked.offset + asked.limit
    if asked.vector is not None and asked.words is not None:
        return max(wanted, FUSION_DEPTH)
    return wanted


def _neighbours_for(asked: Search) -> int:
    """Return how many neighbours are asked for: some are no hits, or not in their right order."""
    count = _FIRST_NEIGHBOURS
    while count < 2 * _depth(asked) and count < 2 * MOST_NEIGHBOURS:
        count *= 2
    return count


@dataclass(slots=True)
class _Finder:
    """One search, inside its transaction.

    Attributes:
        among: the addresses of all that can pass the filter, where declared filters tell.
        roots: whose candidates are asked for one after the other, as each is on its machine.
    """

    connection: Connection
    described: _Described
    schema: str
    path: str
    asked: Search
    now: int
    among: Sql | None = None
    roots: list[str] | None = None
    _rows: dict[Address, Any] = field(default_factory=dict)  # what came with its value

    async def find(self) -> list[Item]:
        """Return the page that is asked for."""
        asked = self.asked
        depth = _depth(asked)
        by_meaning = by_words = None
        if asked.vector is not None:
            found = await self._nearest(asked.vector, depth + _MORE)
            meant = (await self._exactly(asked.vector, found))[:depth]

            def by_meaning(wanted: int) -> list[Hit]:
                return meant[:wanted]

        if asked.words is not None:
            said = await self._by_words(asked.words, depth)

            def by_words(wanted: int) -> list[Hit]:
                return said[:wanted]

        return await self._load(page_of(asked, by_meaning, by_words))

    async def _load(self, hits: list[Hit]) -> list[Item]:
        missing = [hit.place for hit in hits if hit.place not in self._rows]
        items = await get_by_address(self.connection, self.now, missing) if missing else {}
        for hit in hits:
            if hit.place not in items:
                items[hit.place] = make(*hit.place, self._rows[hit.place])
        return [replace(items[hit.place], score=hit.score) for hit in hits]

    # Walks

    async def _walk_all(
        self,
        weighed_under: Callable[[str | None], Sql],
        score_of: Callable[[float], float],
        wanted: int,
    ) -> list[Hit]:
        """As `walk`, root by root if need be; the scores are such as compare."""
        if self.roots is None:
            return await self.walk(weighed_under(self.described.root), score_of, wanted)
        hits: list[Hit] = []
        for root in self.roots:
            part = replace(self, described=replace(self.described, root=root))
            hits += await part.walk(weighed_under(root), score_of, wanted)
        return sorted(hits, key=_rank)[:wanted]

    async def walk(
        self, weighed: Sql, score_of: Callable[[float], float], wanted: int
    ) -> list[Hit]:
        """Return the best candidates that pass: so many, or all there are."""
        hits: list[Hit] = []
        seen: set[Address] = set()
        done = 0
        size = wanted + 8
        if self._is_filtered:
            size *= 4
        size = min(size, _LARGEST_FIRST)
        while True:
            rows = await self._block(sql.page_of(weighed, size, done), is_first=not done)
            hits += self._passing(rows, score_of, seen)
            hits.sort(key=_rank)
            if len(rows) < size:
                return hits[:wanted]
            last = score_of(rows[-1]["weight"])
            if len(hits) >= wanted and hits[wanted - 1].score > last:
                return hits[:wanted]
            done += size
            size *= 8

    async def _block(self, candidates: Sql, *, is_first: bool) -> list[Any]:
        """Return candidates, best first, with what is known of the items that pass."""
        depth = _depth(self.asked)
        is_page = depth <= _VALUES_AT_ONCE and depth == self.asked.offset + self.asked.limit
        with_values = self._is_filtered or (is_first and is_page)
        statement = sql.join_items(candidates, self._condition_here, with_values=with_values)
        return sorted(await fetch(self.connection, statement), key=_by_weight)

    def _passing(
        self, rows: list[Any], score_of: Callable[[float], float], seen: set[Address]
    ) -> list[Hit]:
        """Return the hits among some candidates; `seen` are items that had their turn."""
        hits = []
        for row in rows:
            place = row["path"], row["key"]
            if place in seen:
                continue  # its best vector came first
            seen.add(place)
            value = row["value"]
            if row["version"] is None or (self._is_filtered and not self._passes(value)):
                continue
            if value is not None:
                self._rows[place] = tuple(row)[3:]
            hits.append(Hit(score_of(row["weight"]), place, 0))
        return hits

    def _passes(self, value: str) -> bool:
        return matches(self.asked.filter, codec.decode(value.encode()))

    @property
    def _is_filtered(self) -> bool:
        return self.asked.filter != ALL

    @property
    def _condition(self) -> Sql:
        """What an item must be: alive, and passing the filter, as far as SQL can tell."""
        return all_of([statements.live(self.now), compile_filter(self.asked.filter)])

    @property
    def _condition_here(self) -> Sql:
        within = TRUE
        if self.described.root is not None:
            within = Sql("items.root = ?", (self.described.root,))
        return all_of([within, self._condition])

    def _within(self, alias: str) -> Sql:
        within = statements.in_range(self.path, self.asked.subtree)
        return Sql(within.text.replace("items.", alias + "."), within.params)

    # By words

    async def _by_words(self, words: tuple[str, ...], wanted: int) -> list[Hit]:
        """Rank items by BM25."""
        terms = [term_of(word) for word in words]
        root = self.described.root
        if root is None:
            found = await self.connection.fetch(sql.GET_TERMS_OF_ALL, terms)
        else:
            found = await self.connection.fetch(sql.GET_TERMS, root, terms)
        holding = {row["term"]: row["items"] for row in found}
        weights = WordWeights(
            words,
            [holding.get(term, 0) for term in terms],
            self.described.entries,
            self.described.words,
        )
        if not weights.found:
            return []
        by_term = [(term_of(word), most) for word, most in weights.found]
        token = None
        if not self.asked.subtree:
            token = namespace_term(self.path)
        elif self.path:
            token = subtree_term(self.path)

        def weighed_under(root: str | None) -> Sql:
            within = TRUE
            if root is not None and self.connection.is_distributed:
                within = Sql("entries.root = ?", (root,))
            return sql.by_words(by_term, token, weights.mean, within)

        def score(weight: float) -> float:
            return weights.score(-weight)

        if not self.asked.context:
            return await self._walk_all(weighed_under, score, wanted)
        whole = replace(self, asked=replace(self.asked, filter=ALL))
        own = await whole._walk_all(weighed_under, score, CONTEXT_HITS)
        near = await self._around(own, [term for term, _ in by_term])
        hits = in_context(near, {hit.place for hit in own}, self.asked.context, weights)
        if self._is_filtered:
            hits = await self._filtered(hits, wanted)
        if len(own) < CONTEXT_HITS or len(hits) >= wanted:
            return hits[:wanted]
        tail = await self._walk_all(weighed_under, score, wanted + len(hits))
        return with_tail(hits, lambda more: tail[:more], wanted)

    async def _around(self, hits: list[Hit], terms: list[int]) -> list[Neighbour]:
        """Return some items, and what stands around them, with what it takes to weigh them."""
        by_root: dict[str, list[Address]] = {}
        for hit in hits:
            by_root.setdefault(root_of(hit.place[0]), []).append(hit.place)
        rows: list[Any] = []
        for root, places in by_root.items():
            columns, most = zip(*places, strict=True), 2 * self.asked.context
            rows += await self.connection.fetch(
                sql.GET_AROUND, root, *columns, self.now, most, terms
            )
        return [
            Neighbour((row["path"], row["key"]), row["counts"] or [0] * len(terms),
                      row["length"] or 0)
            for row in rows
        ]  # fmt: skip

    async def _filtered(self, hits: list[Hit], wanted: int) -> list[Hit]:
        """Return those of some hits that pass the filter: so many, or all there are."""
        passing: list[Hit] = []
        for at in range(0, len(hits), _VALUES_AT_ONCE):
            some = hits[at : at + _VALUES_AT_ONCE]
            places = [hit.place for hit in some]
            items = await get_by_address(self.connection, self.now, places)
            passing += [hit for hit in some if matches(self.asked.filter, items[hit.place].value)]
            if len(passing) >= wanted:
                break
        return passing[:wanted]

    # By meaning

    async def _nearest(self, vector: bytes, wanted: int) -> list[Hit]:
        """As `by_meaning`, root by root if need be."""
        if self.roots is None:
            return await self.by_meaning(vector, wanted)
        hits: list[Hit] = []
        for root in self.roots:
            # The root namespace lies in no other's subtree
            asked = replace(self.asked, subtree=bool(root))
            described = await _describe(self.connection, root, asked)
            part = replace(self, described=described, path=root, asked=asked, roots=None)
            hits += await part.by_meaning(vector, wanted)
        return sorted(hits, key=_rank)[:wanted]

    async def by_meaning(self, vector: bytes, wanted: int) -> list[Hit]:
        """Rank items by the cosine of their best vectors."""
        dimensions = self.described.dimensions
        if not vector or dimensions is None:
            return []
        query = list(array("f", vector))
        passing, share = await self._passing_addresses()
        if share is not None and wanted <= MOST_NEIGHBOURS:
            count = min(_neighbours_for(self.asked) * round(self._per_entry), 4 * MOST_NEIGHBOURS)
            if count / share * self.described.entries / self.described.in_scope <= MOST_SCANNED:
                hits = await self._neighbours(query, wanted, count)
                if hits is not None:
                    return hits
        compared = sql.comparing(
            vectors_table(dimensions), self.schema, query, passing, self._within("vectors")
        )

        return await self.walk(compared, _cosine, wanted)

    async def _exactly(self, vector: bytes, hits: list[Hit]) -> list[Hit]:
        """Give hits the scores of double precision, as the other backends have them."""
        if not hits:
            return hits
        both = sql.vectors_at(vectors_table(self.described.dimensions or 0), self.schema)
        places = [hit.place for hit in hits]
        rows = await fetch_each(self.connection, *both, places)
        cosines = cosines_of([numbers_of(sent) for _, sent in rows], vector)
        best: dict[Address, float] = {}
        for (number, _), cosine in zip(rows, cosines, strict=True):
            place = places[number - 1]
            best[place] = max(best.get(place, -1.0), cosine)
        return sorted((hit._replace(score=best[hit.place]) for hit in hits), key=_rank)

    async def _passing_addresses(self) -> tuple[Sql | None, float | None]:
        """Find out whose vectors an exact ranking has to compare, and whether they are many.

        Returns:
            A statement for their addresses (`None`: all in scope), and which share of the items
            passes the filter, about, if an approximate ranking would be quicker.
        """
        is_small = self.described.in_scope * self._per_entry <= EXACT_VECTORS
        can_approximate = not is_small and (self.described.dimensions or 0) <= MAX_HALF_INDEXED
        if not self._is_filtered:
            return None, 1.0 if can_approximate else None
        within = self._within("items")
        conditions = conditions_of(self.asked.filter)
        if self.among is not None:
            passing = self.among
        elif conditions:
            passing = sql.passing_scalars(self._within("facts"), conditions)
        else:
            passing = sql.passing_items(within, self._condition)
        if not can_approximate:
            return passing, None
        if conditions or self.among is not None:
            number = await self._value(sql.count_of(passing, EXACT_VECTORS + 1))
            return passing, None if number <= EXACT_VECTORS else number / self.described.in_scope
        share = await self._value(sql.share_of(within, self._condition, SAMPLE)) or 0.0
        return passing, None if share < FEW else share

    @property
    def _per_entry(self) -> float:
        """How many vectors an item has, about."""
        return max(1.0, self.described.vectors / max(self.described.entries, 1))

    async def _value(self, statement: Sql) -> Any:
        return await self.connection.fetchval(statement.render(), *statement.params)

    async def _neighbours(self, query: list[float], wanted: int, count: int) -> list[Hit] | None:
        """Ask the HNSW index for the nearest that pass, or return `None` if it gives too few."""
        dimensions = self.described.dimensions or 0
        nearest = sql.nearest(
            vectors_table(dimensions),
            self.schema,
            query,
            self._within("vectors"),
            self._condition_here if self._is_filtered else None,
            count,
            dimensions if dimensions > MAX_INDEXED else None,
        )
        rows = await self._block(nearest, is_first=True)
        hits = sorted(self._passing(rows, _cosine, set()), key=_rank)
        return hits[:wanted] if len(hits) >= wanted else None


def _cosine(weight: float) -> float:
    return similarity(-weight)  # pgvector's operator gives the negative product


def _by_weight(row: Any) -> tuple[float, str, str]:
    return row["weight"], row["path"], row["key"]


def _rank(hit: Hit) -> tuple[float, tuple[str, str]]:
    return -hit.score, hit.place


# A sample, for a map


async def sample_vectors(
    connection: Connection, path: str, limit: int
) -> list[tuple[str, str, bytes]]:
    """Return path, key and a vector of at most so many items, from all over a subtree.

    Where the roots have models of their own, it is of those with the commonest length. Where the
    items are many, those are taken whose hash a step divides.
    """
    extension = await connection.fetchrow(sql.GET_EXTENSION)
    rows = await connection.fetch(sql.LIST_DESCRIPTIONS_UNDER, root_of(path))
    lengths: Counter[int] = Counter()
    for text, roots in rows:
        if (length := Description.parse(text).dimensions) is not None:
            lengths[length] += roots
    if extension is None or not lengths:
        return []
    ((length, _),) = lengths.most_common(1)
    table = vectors_table(length)
    if not await connection.fetchval(sql.HAS_TABLE, connection.schema, table):
        return []
    ((count,),) = await fetch(connection, sql.count_vectors(table, path))
    sample = sql.sample_vectors(table, quoted(extension[0]), path, -(-count // limit) or 1, limit)
    found = await fetch(connection, sample)
    return [(there, decode_key(key), numbers_of(sent)) for there, key, sent in found]
