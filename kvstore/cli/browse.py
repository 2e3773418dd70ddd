"""`kvstore browse`: namespaces as a tree, items with their values, live, in the terminal.

Everything is read in pages and counted only where it is seen. What others write is followed as
often as that costs a small part of a core.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

from rich.highlighter import JSONHighlighter
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import DataTable, Footer, Header, Input, Static, Tree
from textual.widgets.tree import TreeNode

from kvstore import codec
from kvstore.cli.dialogs import Editor, Question
from kvstore.cli.words import pretty, show_namespace, visible
from kvstore.errors import ConflictError, StoreError
from kvstore.store import Store
from kvstore.types import Change, Item, Namespace

__all__ = ["Browser"]

_PAGE_OF_CHILDREN = 500  # namespaces below one that are shown at a time
_PAGE = 200  # items that are read at a time
_NEAR_END = 20  # rows from the last one, where the next page is read
_MOST_RELOADED = 1_000  # items that are read anew when something has changed
_TYPING_PAUSE_S = 0.15
_LIVE_PAUSE_S = 0.2  # changes are gathered for so long, at least, before the screen follows
_LIVE_SHARE = 0.04  # of a core that following may take
_WIDEST_KEY = 40
_NARROWEST = 20  # a value in the table
_BESIDE = 28  # columns that the time and the gaps take
_LONGEST_VALUE = 200_000  # characters of a value that are laid out

_HIGHLIGHT = JSONHighlighter()


@dataclass(frozen=True, slots=True)
class _More:
    """The rest of the namespaces below one."""

    where: Namespace
    offset: int


Place = Namespace | _More


class Browser(App[None]):
    """The terminal browser of one store, which it opens and closes."""

    CSS = """
    #tree { width: 34; border-right: solid $primary; padding: 0 1; }
    #query { height: 3; }
    #items { height: 1fr; }
    #pane { height: 1fr; border-top: solid $primary; padding: 0 1; }
    #state { height: 1; color: $text-muted; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search"),
        Binding("escape", "leave", "Back"),
        Binding("t", "focus_tree", "Tree"),
        Binding("r", "refresh_all", "Refresh"),
        Binding("e", "edit", "Edit"),
        Binding("d", "delete", "Delete"),
        Binding("c", "copy", "Copy"),
        Binding("q", "quit", "Quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, store: Store, *, title: str = "kvstore") -> None:
        super().__init__()
        self.title = f"kvstore: {title}"
        self._store = store
        self._is_open = False
        # Kept here, because a query looks at the screen in front, which may be a dialog.
        self._tree: Tree[Place] = Tree("/", data=(), id="tree")
        self._input = Input(placeholder="search in this namespace and below  ( / )", id="query")
        self._table: DataTable[Text] = DataTable(id="items", cursor_type="row", zebra_stripes=True)
        self._value = Static(id="value")
        self._state = Static(id="state")
        self._place: Namespace = ()
        self._items: list[Item] = []
        self._source: AsyncIterator[Item] | None = None  # of more items; None: there are no more
        self._is_loading = False
        self._pauses: dict[str, Timer] = {}
        self._changed: list[Change] = []
        self._changes = 0
        self._cpu_s = 0.0  # of this process when the screen last followed

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Header(icon="")
        with Horizontal():
            self._tree.root.expand()
            yield self._tree
            with Vertical():
                yield self._input
                yield self._table
                with VerticalScroll(id="pane"):
                    yield self._value
                yield self._state
        yield Footer()

    async def on_mount(self) -> None:
        """Open the store, and begin to follow it."""
        try:
            await self._store.open()
        except StoreError as exc:
            self.exit(return_code=3, message=f"kvstore: {exc}")
            return
        self._is_open = True
        self._table.add_columns("key", "value", "updated")
        await self._draw_children(self._tree.root)
        self._draw_items()
        self._follow()
        self.set_interval(1.0, self._leave_a_lost_terminal)
        self._tree.focus()

    def _leave_a_lost_terminal(self) -> None:
        """Exit when the terminal has hung up and nobody said so; Textual would read on for ever."""
        if hasattr(select, "poll") and sys.__stdin__ is not None and not self.is_headless:
            poll = select.poll()
            poll.register(sys.__stdin__, 0)
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
                self.exit(return_code=129)

    async def on_unmount(self) -> None:
        """Close the store."""
        await self._store.close()

    @property
    def _query(self) -> str:
        return self._input.value.strip()

    def _say(self, text: str) -> None:
        self._state.update(Text(text))

    # The tree

    async def _draw_children(self, node: TreeNode[Place], offset: int = 0) -> None:
        """Show a page of the namespaces right below a node, behind those before it."""
        if isinstance(node.data, _More):
            return
        where = node.data or ()
        depth = len(where) + 1
        found = await self._store.list_namespaces(
            where, max_depth=depth, limit=_PAGE_OF_CHILDREN + 1, offset=offset
        )
        rest = _More(where, offset + _PAGE_OF_CHILDREN) if len(found) > _PAGE_OF_CHILDREN else None
        below = [namespace for namespace in found[:_PAGE_OF_CHILDREN] if len(namespace) == depth]
        known = {child.data: child for child in node.children}
        if not offset:  # all that was shown is drawn anew
            for place, child in known.items():
                if place not in below:
                    child.remove()
        for position, namespace in enumerate(below):
            if namespace not in known:
                label = Text(show_namespace(namespace[-1:]))
                if offset:
                    node.add(label, data=namespace)
                else:
                    node.add(label, data=namespace, before=min(position, len(node.children)))
        if rest is not None:
            node.add(Text("… more", style="dim italic"), data=rest, allow_expand=False)
        self._count_seen()

    async def on_tree_node_expanded(self, event: Tree.NodeExpanded[Place]) -> None:
        """Load what is below a node."""
        if self._is_open:  # else it is the root, which `on_mount` draws
            await self._draw_children(event.node)

    async def on_tree_node_selected(self, event: Tree.NodeSelected[Place]) -> None:
        """Load the next page of namespaces."""
        more, above = event.node.data, event.node.parent
        if isinstance(more, _More) and above is not None and event.node in above.children:
            event.node.remove()
            await self._draw_children(above, more.offset)

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[Place]) -> None:
        """Show the items of a namespace."""
        if isinstance(event.node.data, _More):
            return
        self._place = event.node.data or ()
        if self._is_open:
            self._draw_items()
            self._count_seen()

    def _count_seen(self) -> None:
        self._soon("counts", _TYPING_PAUSE_S, self._draw_counts)

    @work(exclusive=True, group="counts")
    async def _draw_counts(self) -> None:
        """Write the number of items behind the namespaces that are on the screen."""
        tree = self._tree
        if not self.is_running:
            return
        first = int(tree.scroll_offset.y)
        for line in range(first, first + tree.size.height):
            node = tree.get_node_at_line(line)
            if node is None:
                break
            if isinstance(node.data, _More) or node.data is None or node is tree.root:
                continue
            number = await self._store.count(node.data, subtree=True)
            if not number:  # nothing is left of it
                node.remove()
                continue
            label = Text(show_namespace(node.data[-1:]))
            label.append(f"  {number:,}", style="dim")
            if node.label != label:
                node.set_label(label)
            below = await self._store.list_namespaces(
                node.data, max_depth=len(node.data) + 1, limit=2
            )
            node.allow_expand = any(namespace != node.data for namespace in below)

    # The items

    async def _found(self, place: Namespace, query: str) -> AsyncIterator[Item]:
        """Yield the items of a namespace, or those below it whose value or key has the words."""
        if not query:
            async for item in self._store.scan(place, subtree=False, batch_size=_PAGE):
                yield item
            return
        for offset in count(0, _PAGE):
            items = await self._store.search(place, query, limit=_PAGE, offset=offset, subtree=True)
            for item in items:
                yield item
            if len(items) < _PAGE:
                return

    @work(exclusive=True, group="items")
    async def _draw_items(self, at_least: int = 0) -> None:
        """Fill the table anew, with the first page or as many items as were there."""
        table, row = self._table, self._table.cursor_row
        before = self._items[row] if row < len(self._items) else None
        source = self._found(self._place, self._query)
        try:
            items = await _page(source, max(_PAGE, at_least))
        except StoreError as exc:
            self._say(str(exc))
            return
        self._source = source if len(items) >= max(_PAGE, at_least) else None
        self._items = []
        table.clear()
        self._append(items)
        for position, item in enumerate(items):
            if before and (item.namespace, item.key) == (before.namespace, before.key):
                table.move_cursor(row=position)
                break
        self._draw_value()

    @work(group="more")
    async def _load_more(self) -> None:
        """Add the next page of items."""
        source = self._source
        if source is None or self._is_loading:
            return
        self._is_loading = True
        try:
            items = await _page(source, _PAGE)
            if self._source is source:  # else the table was filled anew meanwhile
                self._source = source if len(items) == _PAGE else None
                self._append(items)
        except StoreError as exc:
            self._say(str(exc))
        finally:
            self._is_loading = False

    def _append(self, items: list[Item]) -> None:
        """Add rows to the table, and say how many there are."""
        table, place = self._table, self._place
        keys = [self._key(item, place) for item in items]
        longest = min(_WIDEST_KEY, max(map(len, keys), default=0))
        width = max(_NARROWEST, table.size.width - longest - _BESIDE)
        for item, key in zip(items, keys, strict=True):
            table.add_row(*_cells(item, key, width))
        self._items += items
        number = f"{len(self._items):,}{'+' * (self._source is not None)}"
        query = self._query
        kind = "found in" if query else "items in"
        self._say(f"{number} {kind} {show_namespace(place)}{' and below' * bool(query)}")

    @staticmethod
    def _key(item: Item, place: Namespace) -> str:
        below = item.namespace[len(place) :]
        return f"{show_namespace(below)} {visible(item.key)}" if below else visible(item.key)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the value of a row, and read on near the last one."""
        self._draw_value()
        if event.cursor_row >= len(self._items) - _NEAR_END:
            self._load_more()

    def _draw_value(self) -> None:
        item, shown = self._item(), self._value
        if item is None:
            shown.update("")
            return
        text = Text(f"{show_namespace(item.namespace)}  {visible(item.key)}\n", style="bold")
        facts = f"version {item.version}, made {item.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
        if item.expires_at is not None:
            facts += f", expires {item.expires_at.astimezone():%Y-%m-%d %H:%M:%S}"
        text.append(f"{facts}\n\n", style="not bold dim")
        value = pretty(item.value)
        if len(value) > _LONGEST_VALUE:
            value = value[:_LONGEST_VALUE] + "\n… (kvstore get shows the rest)"
        laid_out = Text(value, style="not bold")
        _HIGHLIGHT.highlight(laid_out)
        shown.update(text + laid_out)

    # Search

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search as one types."""
        self._soon("typing", _TYPING_PAUSE_S, self._draw_items)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to what was found."""
        self._table.focus()

    def _soon(self, name: str, seconds: float, call: Any) -> None:
        """Call once, after a pause in which no other call of the name came."""
        if name in self._pauses:
            self._pauses[name].stop()
        self._pauses[name] = self.set_timer(seconds, call)

    # Live

    @work
    async def _follow(self) -> None:
        """Keep the screen up to date with what anyone writes."""
        try:
            async for change in self._store.watch():
                self._note(change)
        except StoreError as exc:
            if self.is_running:
                self._say(f"no longer live: {exc}")

    def _note(self, change: Change) -> None:
        self._changes += 1
        if len(self._changed) < _MOST_RELOADED:
            self._changed.append(change)
        if "live" not in self._pauses:
            # What the process has done since the last time is to be a small share of the time.
            spent = time.process_time() - self._cpu_s
            pause = max(_LIVE_PAUSE_S, spent / _LIVE_SHARE if self._cpu_s else 0.0)
            self._pauses["live"] = self.set_timer(min(pause, 10.0), self._catch_up)

    async def _catch_up(self) -> None:
        """Follow what has changed, as far as it is on the screen."""
        self._pauses.pop("live", None)
        self._cpu_s = time.process_time()
        changed, self._changed = self._changed, []
        self.sub_title = f"live, {self._changes:,} changes"
        nodes = {node.data: node for node in self._shown_nodes()}
        redrawn: set[Namespace] = set()
        for change in changed:
            for depth in range(len(change.namespace)):
                above, below = change.namespace[:depth], change.namespace[: depth + 1]
                node = nodes.get(above) if depth else self._tree.root
                if node is None or not node.is_expanded or below in nodes or above in redrawn:
                    continue
                redrawn.add(above)
                if not any(isinstance(child.data, _More) for child in node.children):
                    await self._draw_children(node)
        place, is_below = self._place, bool(self._query)
        if any(
            change.namespace == place or (is_below and change.namespace[: len(place)] == place)
            for change in changed
        ):
            self._draw_items(min(len(self._items), _MOST_RELOADED))
        self._count_seen()

    def _shown_nodes(self) -> list[TreeNode[Place]]:
        nodes, found = [self._tree.root], []
        while nodes:
            node = nodes.pop()
            found.append(node)
            if node.is_expanded:
                nodes += node.children
        return found

    # Changing

    def _item(self) -> Item | None:
        row = self._table.cursor_row
        return self._items[row] if 0 <= row < len(self._items) else None

    def action_copy(self) -> None:
        """Copy the value that is shown: text as it is, all else as JSON."""
        if item := self._item():
            is_text = isinstance(item.value, str)
            self.copy_to_clipboard(item.value if is_text else pretty(item.value))
            self._say(f"copied the value of {visible(item.key)}")

    @work(exclusive=True, group="change")
    async def action_delete(self) -> None:
        """Delete the item that is shown, after a question."""
        item = self._item()
        if item is None:
            return
        name = f"{show_namespace(item.namespace)} {visible(item.key)}"
        if not await self.push_screen_wait(Question(f"Delete {name}?")):
            return
        try:
            await self._store.delete(item.namespace, item.key, if_version=item.version)
            self._say(f"deleted {name}")
        except StoreError as exc:
            self._say(f"not deleted: {exc}")
        self._draw_items(len(self._items))
        self._count_seen()

    @work(exclusive=True, group="change")
    async def action_edit(self) -> None:
        """Edit the value that is shown, as JSON."""
        item = self._item()
        if item is None:
            return
        name, text = f"{show_namespace(item.namespace)} {visible(item.key)}", pretty(item.value)
        if len(text) > _LONGEST_VALUE:
            self._say(f"{name} is too long to be edited here; kvstore put takes a file")
            return
        edited = await self.push_screen_wait(Editor(name, text))
        if edited is None:
            return

        def change(value: Any) -> Any:
            if codec.encode(value) != codec.encode(item.value):
                raise ConflictError(f"{name} was written by another meanwhile")
            return edited[0]

        try:
            # An update keeps the lifetime; one that was deleted meanwhile is not made again.
            if await self._store.get(item.namespace, item.key) is None:
                raise ConflictError(f"{name} was deleted meanwhile")
            await self._store.update(item.namespace, item.key, change, attempts=1)
            self._say(f"stored {name}")
        except StoreError as exc:
            self._say(f"not stored: {exc}")
        self._draw_items(len(self._items))

    # Keys

    async def action_refresh_all(self) -> None:
        """Read everything on the screen anew."""
        for node in self._shown_nodes():
            if node.is_expanded:
                await self._draw_children(node)
        self._draw_items()

    def action_search(self) -> None:
        """Go to the search."""
        self.set_focus(self._input)
        self._say("type to search; Enter goes to what is found, Esc back to the tree")

    def action_focus_tree(self) -> None:
        """Go to the tree."""
        self.set_focus(self._tree)

    def action_leave(self) -> None:
        """Leave the search, and empty it."""
        self._input.value = ""
        self.set_focus(self._tree)


async def _page(source: AsyncIterator[Item], length: int) -> list[Item]:
    """Return the next items, fewer than asked for at the end."""
    items: list[Item] = []
    async for item in source:
        items.append(item)
        if len(items) == length:
            break
    return items


def _cells(item: Item, key: str, width: int) -> list[Text]:
    value = visible(codec.encode(item.value)[: 4 * width].decode(errors="replace"))
    if len(value) > width:
        value = value[: width - 1] + "…"
    return [
        Text(key),
        _HIGHLIGHT(Text(value)),
        Text(f"{item.updated_at.astimezone():%Y-%m-%d %H:%M:%S}", style="dim"),
    ]
