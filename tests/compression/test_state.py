"""What a compression keeps of itself: what is damaged is told in one sentence, and what was found is found again."""

import json

import pytest

from app.compression.bench import CompressionState
from app.config import InputError
from app.run.directory import RunDirectory

WHOLE = {"done": ["a/b"], "numbers": {"a/fraction": 0.5}, "rows": [{"step": "(nothing)"}], "finished": False}


def state_of(folder, content: str) -> CompressionState:
    run_dir = RunDirectory(str(folder))
    run_dir.compression_json.write_text(content, encoding="utf-8")
    return CompressionState(run_dir, writes=True)


def test_what_was_found_is_found_again(tmp_path):
    state_of(tmp_path, json.dumps(WHOLE)).save()
    again = CompressionState(RunDirectory(str(tmp_path)), writes=False)
    assert {name: getattr(again, name) for name in WHOLE} == WHOLE


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "[1]", "3", "null", "{}", json.dumps({**WHOLE, "done": 3}), json.dumps({**WHOLE, "rows": {}}),
     json.dumps({**WHOLE, "numbers": None}), "[" * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    with pytest.raises(InputError, match=r"compression\.json .*use --overwrite") as raised:
        state_of(tmp_path, content)
    assert "\n" not in str(raised.value)
