"""`kvstore browse`: namespaces as a tree, items with their values, live, in the terminal."""

from __future__ import annotations

import select
import sys
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
from kvstore.cli.words import pretty, show_namespace, visible
from kvstore.errors import StoreError
from kvstore.store import Store
from kvstore.types import Change, Item, Namespace

__all__ = ["Browser"]

_MOST_CHILDREN = 1_000  # namespaces shown below one
_MOST_ITEMS = 500  # shown of one namespace
_MOST_FOUND = 100  # shown of a search
_TYPING_PAUSE_S = 0.15
_LIVE_PAUSE_S = 0.2  # changes are gathered for so long before the screen follows
_WIDEST_KEY = 40
_NARROWEST = 20  # a value in the table
_BESIDE = 28  # columns that the time and the gaps take
_LONGEST_VALUE = 200_000  # characters of a value that are laid out

_HIGHLIGHT = JSONHighlighter()


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
        Binding("q", "quit", "Quit"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, store: Store, *, title: str = "kvstore") -> None:
        super().__init__()
        self.title = f"kvstore: {title}"
        self._store = store
        self._is_open = False
        self._place: Namespace = ()
        self._items: list[Item] = []
        self._pauses: dict[str, Timer] = {}
        self._changes = count(1)

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Header(icon="")
        with Horizontal():
            tree: Tree[Namespace] = Tree("/", data=(), id="tree")
            tree.root.expand()
            yield tree
            with Vertical():
                yield Input(placeholder="search in this namespace and below  ( / )", id="query")
                table: DataTable[Text] = DataTable(
                    id="items", cursor_type="row", zebra_stripes=True
                )
                yield table
                with VerticalScroll(id="pane"):
                    yield Static(id="value")
                yield Static(id="state")
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
    def _tree(self) -> Tree[Namespace]:
        return self.query_one("#tree", Tree)

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#items", DataTable)

    @property
    def _query(self) -> str:
        return self.query_one("#query", Input).value.strip()

    def _say(self, text: str) -> None:
        self.query_one("#state", Static).update(Text(text))

    # The tree

    async def _draw_children(self, node: TreeNode[Namespace]) -> None:
        """Bring the namespaces right below a node up to date."""
        where = node.data or ()
        depth = len(where) + 1
        found = await self._store.list_namespaces(where, max_depth=depth, limit=_MOST_CHILDREN)
        below = [namespace for namespace in found if len(namespace) == depth]
        known = {child.data: child for child in node.children}
        for namespace, child in known.items():
            if namespace not in below:
                child.remove()
        for position, namespace in enumerate(below):
            number = await self._store.count(namespace, subtree=True)
            label = Text(show_namespace(namespace[-1:]))
            label.append(f"  {number:,}", style="dim")
            if namespace in known:
                known[namespace].set_label(label)
            else:
                node.add(label, data=namespace, before=min(position, len(node.children)))

    async def on_tree_node_expanded(self, event: Tree.NodeExpanded[Namespace]) -> None:
        """Load what is below a node."""
        if not self._is_open:  # the root, as long as it is drawn by `on_mount`
            return
        await self._draw_children(event.node)
        for child in event.node.children:
            below = await self._store.list_namespaces(
                child.data or (), max_depth=len(child.data or ()) + 1, limit=2
            )
            child.allow_expand = any(namespace != child.data for namespace in below)

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[Namespace]) -> None:
        """Show the items of a namespace."""
        self._place = event.node.data or ()
        if self._is_open:
            self._draw_items()

    # The items

    @work(exclusive=True, group="items")
    async def _draw_items(self) -> None:
        """Fill the table with the namespace's items, or with what a search finds in it."""
        query, place = self._query, self._place
        items: list[Item] = []
        try:
            if query:
                items = await self._store.search(place, query, limit=_MOST_FOUND, subtree=True)
            else:
                async for item in self._store.scan(place, subtree=False, batch_size=_MOST_ITEMS):
                    items.append(item)
                    if len(items) == _MOST_ITEMS:
                        break
        except StoreError as exc:
            self._say(str(exc))
            return
        table, row = self._table, self._table.cursor_row
        before = self._items[row] if row < len(self._items) else None
        self._items = items
        table.clear()
        keys = [self._key(item, place) for item in items]
        longest = min(_WIDEST_KEY, max(map(len, keys), default=0))
        width = max(_NARROWEST, table.size.width - longest - _BESIDE)
        for item, key in zip(items, keys, strict=True):
            table.add_row(*_cells(item, key, width))
        for position, item in enumerate(items):
            if before and (item.namespace, item.key) == (before.namespace, before.key):
                table.move_cursor(row=position)
                break
        self._draw_value()
        number = f"{len(items):,}{'+' * (len(items) in (_MOST_ITEMS, _MOST_FOUND))}"
        kind = "found in" if query else "items in"
        self._say(f"{number} {kind} {show_namespace(place)}{' and below' * bool(query)}")

    @staticmethod
    def _key(item: Item, place: Namespace) -> str:
        below = item.namespace[len(place) :]
        return f"{show_namespace(below)} {visible(item.key)}" if below else visible(item.key)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the value of a row."""
        self._draw_value()

    def _draw_value(self) -> None:
        row = self._table.cursor_row
        shown = self.query_one("#value", Static)
        if not 0 <= row < len(self._items):
            shown.update("")
            return
        item = self._items[row]
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
        self.sub_title = f"live, {next(self._changes):,} changes"
        if "live" not in self._pauses:
            self._pauses["live"] = self.set_timer(_LIVE_PAUSE_S, self._catch_up)

    async def _catch_up(self) -> None:
        self._pauses.pop("live", None)
        await self.action_refresh_all()

    # Keys

    async def action_refresh_all(self) -> None:
        """Read everything on the screen anew."""
        nodes = [self._tree.root]
        while nodes:
            node = nodes.pop()
            if node.is_expanded:
                await self._draw_children(node)
                nodes += node.children
        self._draw_items()

    def action_search(self) -> None:
        """Go to the search."""
        self.set_focus(self.query_one("#query", Input))
        self._say("type to search; Enter goes to what is found, Esc back to the tree")

    def action_focus_tree(self) -> None:
        """Go to the tree."""
        self.set_focus(self._tree)

    def action_leave(self) -> None:
        """Leave the search, and empty it."""
        self.query_one("#query", Input).value = ""
        self.set_focus(self._tree)


def _cells(item: Item, key: str, width: int) -> list[Text]:
    value = visible(codec.encode(item.value)[: 4 * width].decode(errors="replace"))
    if len(value) > width:
        value = value[: width - 1] + "…"
    return [
        Text(key),
        _HIGHLIGHT(Text(value)),
        Text(f"{item.updated_at.astimezone():%Y-%m-%d %H:%M:%S}", style="dim"),
    ]
