"""Databases of studies: SQLite in a file, and a PostgreSQL server where the machine has one."""

import importlib.util
from pathlib import Path

import pytest

_place = Path(__file__).parents[1] / "feedback" / "conftest.py"
_specification = importlib.util.spec_from_file_location("feedback_databases", _place)
_databases = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_databases)
postgres = _databases.postgres


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    return request.getfixturevalue("postgres").make_empty()
