"""The one thing that pyproject.toml cannot say: which packages there are.

`kvstore.migrations` lies in `migrations/`, outside `kvstore/`, and both a wheel and an editable
install must hold it; all the others are found.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["kvstore", "kvstore.*"]), "kvstore.migrations"],
    package_dir={"kvstore": "kvstore", "kvstore.migrations": "migrations"},
)
