"""Where kvstore is: PyInstaller does not follow the import hook of an editable installation."""

from pathlib import Path
from typing import Any

from kvstore import distribution


def pre_find_module_path(api: Any) -> None:
    """Look for kvstore first where this process has it from."""
    api.search_dirs = [str(Path(distribution.__file__).parents[1]), *(api.search_dirs or [])]
