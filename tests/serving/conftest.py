import shutil

import pytest
from served import serving

from app.serving import corrections, label_studio, promotion, review  # noqa: F401  they add their routes


@pytest.fixture(scope="module")
def site(served_run, tmp_path_factory):
    """The URL of a tagger of its own run, and the run."""
    run = tmp_path_factory.mktemp("site") / "run"
    shutil.copytree(served_run, run)
    with serving(run, runtime="tflite") as url:
        yield url, run


@pytest.fixture
def url(site):
    return site[0]
