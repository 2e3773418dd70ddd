"""What `kvstore browse` asks before it changes anything: a question, and an editor for a value."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from kvstore import codec
from kvstore.errors import InvalidArgumentError

__all__ = ["Editor", "Question"]

_FRAME = "align: center middle;"
_BOX = "width: 80%; height: auto; max-height: 90%; border: round $primary; padding: 0 1;"


class Question(ModalScreen[bool]):
    """Asks a question; gives whether the answer was y."""

    CSS = f"Question {{ {_FRAME} }} #ask {{ {_BOX} background: $surface; }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,enter", "answer(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Lay the question out."""
        yield Static(Text(f"{self._question}\n\ny: yes   n: no"), id="ask")

    def action_answer(self, answer: bool) -> None:
        """Close with the answer."""
        self.dismiss(answer)


class Editor(ModalScreen[Any]):
    """Lets a value be edited as JSON; gives a list of the new one, or `None` if it was left."""

    CSS = (
        f"Editor {{ {_FRAME} }} #edit {{ {_BOX} background: $surface; }} TextArea {{ height: 20; }}"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", priority=True),
        Binding("escape", "leave", "Leave", priority=True),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        """Lay the editor out."""
        with Vertical(id="edit"):
            yield Static(Text(f"{self._title}   Ctrl-S saves, Esc leaves"))
            yield TextArea(self._text)
            yield Static("", id="wrong")

    def action_save(self) -> None:
        """Close with the value, unless it is no JSON."""
        try:
            value = codec.read_json(self.query_one(TextArea).text, "this")
        except InvalidArgumentError as exc:
            self.query_one("#wrong", Static).update(Text(str(exc)))
        else:
            self.dismiss([value])

    def action_leave(self) -> None:
        """Close without a value."""
        self.dismiss(None)
