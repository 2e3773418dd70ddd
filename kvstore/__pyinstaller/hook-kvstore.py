"""What PyInstaller's own analysis does not find: the SQL files, and sqlite-vec's library."""

from PyInstaller.utils.hooks import (
    can_import_module,
    collect_data_files,
    collect_dynamic_libs,
    collect_submodules,
    copy_metadata,
)

from kvstore.distribution import NAME
from kvstore.schema import folder

# What only its own import needs, with whatever frameworks it imports, stays out.
_APART = tuple(
    f"kvstore.{name}" for name in ("__main__", "__pyinstaller", "cli", "examples", "integrations")
)


def _is_wanted(module: str) -> bool:
    return not module.startswith((*_APART, "kvstore.testing"))


hiddenimports = collect_submodules("kvstore", filter=_is_wanted)
datas = [
    *collect_data_files("kvstore", includes=["py.typed"]),
    *(
        (str(database), f"kvstore/migrations/{database.name}")
        for database in folder().iterdir()
        if database.is_dir()
    ),
    *copy_metadata(NAME),
]
binaries = []
if can_import_module("sqlite_vec"):
    # The library has no "lib" in front of its name, and the default looks for that.
    binaries = collect_dynamic_libs("sqlite_vec", search_patterns=["vec0.*"])
