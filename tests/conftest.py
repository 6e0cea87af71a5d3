"""Shared set-up: the program's environment, and the corpora that are not part of the project."""

import os
from pathlib import Path

import hypothesis
import pytest

import app  # noqa: F401  (sets the environment before any test imports TensorFlow)

hypothesis.settings.register_profile("project", deadline=None)  # a first call may trace a TensorFlow graph
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The real corpora: in NER_CORPORA, else in ../shared/corpora beside the checkout; skips without."""
    folder = Path(os.environ.get("NER_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora")
    if not folder.is_dir():
        pytest.skip("real corpora are not at hand (set NER_CORPORA to their folder)")
    return folder
