"""Text to records and back: the same bytes again, only what is missing, and never another corpus in their place."""

import json
import os

import numpy as np
import pytest

from app.config import InputError
from app.run.directory import sha256_of_file
from app.tasks.masked_lm.pipeline import write_records
from app.tasks.masked_lm.records import INDEX, read_records
from app.tasks.masked_lm.rows import RowFormat

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{letter}" for letter in "abcdefgh")]
FORMAT = RowFormat("masked_lm", 16, share_rows=True)


@pytest.fixture
def text(tmp_path):
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefgh"), 3)) for _ in range(450)]
    lines = [" ".join(words[at : at + 5]) for at in range(0, len(words), 5)]
    path = tmp_path / "text.txt"
    path.write_text("".join(line + ("\n\n" if number % 3 == 2 else "\n") for number, line in enumerate(lines)))
    return path


def make(text, folder, **changes):
    settings = {"vocabulary": VOCABULARY, "lowercase": True, "row_format": FORMAT, "seed": 3, "unit_bytes": 600}
    return write_records(str(text), folder, **(settings | changes))


def sums(folder) -> dict[str, str]:
    return {path.name: sha256_of_file(path) for path in folder.glob("*.tfrecord")}


def rows_of(folder, **expected) -> list[tuple[int, ...]]:
    store = read_records(folder, **expected)
    batches = store.make_dataset(batch_size=7, seed=1, epochs=1)
    found = [tuple(row) for batch in batches for row in batch["token_ids"].numpy() if row.any()]
    assert len(found) == store.rows
    return found


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_one_process_and_in_two(text, tmp_path):
    index = make(text, tmp_path / "one")
    assert len(index.shards) > 2 and index.documents == 30
    processes = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    make(text, tmp_path / "two", beam_options=processes)
    assert sums(tmp_path / "one") == sums(tmp_path / "two")
    make(text, tmp_path / "other", seed=4)
    assert sums(tmp_path / "one") != sums(tmp_path / "other")


def test_every_word_of_the_text_is_in_the_rows_once(text, tmp_path):
    make(text, tmp_path / "records")
    pieces = [VOCABULARY[i] for row in rows_of(tmp_path / "records") for i in row if i >= 5]
    letters = sorted("".join(piece.removeprefix("##") for piece in pieces))
    assert letters == sorted(text.read_text().replace(" ", "").replace("\n", ""))


def test_a_broken_off_run_makes_what_is_missing_and_a_finished_one_nothing(text, tmp_path):
    folder = tmp_path / "records"
    index = make(text, folder)
    before = sums(folder)
    for path in folder.rglob("*"):
        if path.is_file() and index.shards[1].name in path.name:
            path.unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")}
    assert make(text, folder) == index and sums(folder) == before
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")}
    assert {name: after[name] for name in kept} == kept
    make(text, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")} == after


def test_records_of_other_settings_or_of_another_text_are_not_overwritten_unless_asked(text, tmp_path):
    folder = tmp_path / "records"
    make(text, folder)
    before = sums(folder)
    with pytest.raises(InputError, match=r"were made with max_length 16 \(now 32\)"):
        make(text, folder, row_format=RowFormat("masked_lm", 32, share_rows=True))
    text.write_text("abc abc\n")
    with pytest.raises(InputError, match="another corpus"):
        make(text, folder)
    assert sums(folder) == before
    assert make(text, folder, overwrite=True).documents == 1


def test_a_fault_in_the_text_is_named_and_leaves_nothing_that_looks_finished(text, tmp_path):
    folder = tmp_path / "records"
    whole = text.read_bytes() * 50
    text.write_bytes(whole + b"abc\0abc\n")  # far behind what is looked into before the run
    with pytest.raises(InputError, match=r"text.txt, line \d+: .*NUL"):
        make(text, folder, unit_bytes=30_000)
    with pytest.raises(InputError, match="not finished"):
        read_records(folder)


def test_an_unknown_runner_is_bad_input(text, tmp_path):
    with pytest.raises(InputError, match="NoSuchRunner"):
        make(text, tmp_path / "records", beam_options=["--runner=NoSuchRunner"])


@pytest.mark.parametrize("option", ["--direct_num_worker=2", "--no_such_option", "--direct_num_workers=many"])
def test_an_option_that_beam_does_not_know_or_cannot_read_is_bad_input(text, tmp_path, option):
    with pytest.raises(InputError, match=rf"beam_options {option}: .*direct_num_worker|no_such_option"):
        make(text, tmp_path / "records", beam_options=[option])


def test_what_does_not_fit_the_backbone_or_is_damaged_is_refused(text, tmp_path):
    folder = tmp_path / "records"
    index = make(text, folder)
    facts = {"vocabulary": VOCABULARY, "lowercase": True, "max_length": 16, "form": "masked_lm"}
    assert rows_of(folder, **facts)
    for change, message in [
        ({"vocabulary": [*VOCABULARY, "z"]}, "made with another vocabulary"),
        ({"lowercase": False}, "lowercase True, received False"),
        ({"max_length": 32}, "max_length 16, received 32"),
        ({"form": "next_sentence"}, "form masked_lm, received next_sentence"),
    ]:
        with pytest.raises(InputError, match=message):
            read_records(folder, **(facts | change))
    shard = folder / index.shards[0].name
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(InputError, match="is truncated or another file"):
        read_records(folder)
    shard.unlink()
    with pytest.raises(InputError, match="is missing"):
        read_records(folder)
    with pytest.raises(InputError, match=f"are missing: no {INDEX}"):
        read_records(tmp_path / "nowhere")


def test_batches_are_a_function_of_seed_epoch_and_step_and_the_last_is_filled_with_empty_rows(text, tmp_path):
    make(text, tmp_path / "records")
    store = read_records(tmp_path / "records")
    size = next(size for size in range(5, 20) if store.rows % size)
    whole = list(store.make_dataset(batch_size=size, seed=1, epochs=2))
    steps = store.steps_per_epoch(size)
    rest = list(store.make_dataset(batch_size=size, seed=1, epochs=2, first_epoch=1, first_step=1))
    for one, other in zip(whole[steps + 1 :], rest, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    last = whole[steps - 1]
    empty = np.flatnonzero(~last["padding_mask"].numpy().any(axis=1))
    assert len(empty) == -store.rows % size and not last["token_ids"].numpy()[empty].any()
    assert (last["pair_label"].numpy() == -1).all()
    first, second = (np.concatenate([b["token_ids"] for b in whole[a : a + steps]]) for a in (0, steps))
    assert not np.array_equal(first, second)
    assert sorted(map(tuple, first)) == sorted(map(tuple, second))
    assert json.loads((tmp_path / "records" / INDEX).read_text())["complete"]


@pytest.mark.parametrize("name", ["records[1]*", os.fsdecode(b"\xff?")])
def test_records_in_a_folder_of_any_name_are_made_cleared_and_read_and_no_others_touched(text, tmp_path, name):
    """Beam takes names for patterns, even of files to delete; TensorFlow takes no name that is not UTF-8."""
    other = tmp_path / "records1" / "rows-00000.tfrecord"
    other.parent.mkdir()
    other.touch()
    folder = tmp_path / name
    make(text, folder)
    (folder / ".tmp-0123-rows-00001.tfrecord").touch()
    (folder / "rows-00000.tfrecord").unlink()
    index = make(text, folder)
    make(text, tmp_path / "usual")
    assert sums(folder) == sums(tmp_path / "usual") and len(rows_of(folder)) == index.rows
    assert other.exists() and not list(folder.glob(".tmp-*"))
    (folder / index.shards[0].name).unlink()
    with pytest.raises(InputError) as refused:
        read_records(folder)
    assert f"{folder}/{index.shards[0].name} is missing" in str(refused.value)
