"""What the tests on all of CoNLL-2003 start from."""

import os
from pathlib import Path

import pytest

from app.run.directory import RunDirectory


@pytest.fixture
def conll_2003() -> tuple[RunDirectory, Path]:
    """A finished run and the test corpus."""
    run_dir, corpus = RunDirectory(os.environ.get("NER_RUN", "runs/conll2003")), Path("data/conll2003/test.txt")
    if not run_dir.model.is_dir() or not corpus.is_file():
        pytest.skip("needs runs/conll2003 (or another run in NER_RUN) and data/conll2003")
    return run_dir, corpus
