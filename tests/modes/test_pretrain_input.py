"""What is wrong with the input of `--mode=pretrain`: one sentence, exit status 2, and nothing is overwritten."""

import fcntl
import json
import socket
from contextlib import closing
from pathlib import Path

import pytest
import toy
from absl import flags
from absl.testing import flagsaver

from app import main as app_main
from app.config import Config
from app.encoder.sources import read_vocabulary
from app.run.directory import RunDirectory
from app.tasks.masked_lm.pipeline import write_records
from app.tasks.masked_lm.rows import RowFormat

DOCUMENT = "Ada met Bob in Rome City .\nBob saw Cleo .\n"
TEXT = "\n".join([DOCUMENT] * 20)
LONG_LINE = "Ada met Bob . " * 80_000
LATE = (TEXT + "\n") * 60  # longer than the beginning that is looked into
NUL = "\0\1\2"


@pytest.fixture
def start(tmp_path, vocabulary, monkeypatch, capsys):
    """`main` in this process with settings of a small run: its exit status, and what it wrote to stderr after the line
    that says what is being loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("APP_TRACEBACK", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    small = [setting.removeprefix("--set=") for setting in toy.run_settings(tmp_path, vocabulary)]
    small += ["pretrain.train_path=good.txt", "pretrain.valid_path=", "pretrain.max_length=16",
              "training.deterministic=false", "training.batch_size=8"]  # fmt: skip
    Path("good.txt").write_text(TEXT)

    def start(*settings: str, overwrite: bool = False) -> tuple[int, str]:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["test"])
        with flagsaver.flagsaver(mode="pretrain", set=[*small, *settings], run_dir="run", overwrite=overwrite):
            status = app_main.main(["app.main"])
        return status, capsys.readouterr().err.removeprefix("pretrain: loading TensorFlow ...\n")

    return start


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


BAD_TEXT = {
    "nothing matches": (None, "no file matches bad.txt"),
    "empty": ("", "the corpus is empty: bad.txt"),
    "blank": ("\n \n\t\n", "the corpus is empty: bad.txt holds no text"),
    "one long line": (LONG_LINE, "bad.txt, line 1: longer than 1,000,000 characters"),
    "a long line at the end": (LATE + LONG_LINE, "bad.txt, line 3601: longer than 1,000,000 characters"),
    "binary": (NUL, "bad.txt, line 1: a NUL byte: this is a binary file, not text"),
    "binary at the end": (LATE + NUL, "bad.txt, line 3601: a NUL byte"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
@pytest.mark.parametrize("split", ["train", "valid"])
def test_with_bad_text_the_run_that_was_to_be_overwritten_stays_as_it_was(start, case, split):
    content, message = BAD_TEXT[case]
    if content is not None:
        Path("bad.txt").write_text(content)
    with RunDirectory("run").open_for_training(Config()):
        Path("run/metrics.json").write_text("{}")
    before = contents(Path("run"))
    status, text = start(f"pretrain.{split}_path=bad.txt", overwrite=True)
    assert status == 2 and message in text and text.count("\n") == 1
    assert contents(Path("run")) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["pretrain.train_path=*.txt"], "binary.txt, line 1: a NUL byte"),
        (["pretrain.train_path=unreadable.txt"], "unreadable.txt cannot be read: "),
        (["pretrain.train_path=one.txt", "pretrain.objective=next_sentence"], "needs 2 documents, one.txt has 1"),
        (["pretrain.max_length=65"], "pretrain.max_length must be at most 64 (the backbone's positions), received 65"),
        (["pretrain.long_epochs=1"], "pretrain.long_length must be at most 64"),
        (["pretrain.beam_options='--runner"], "pretrain.beam_options cannot be split: No closing quotation"),
        (["pretrain.vocabulary_size=5"], "more than [PAD], [UNK], [CLS], [SEP], [MASK]; received a size of 5"),
        (["training.strategy=mirrored", "training.logical_devices=3"], "must be a multiple of 3 (3 replicas"),
        (["training.strategy=multi_worker"], "TF_CONFIG with at least 2 workers; received none"),
        (["pretrain.records_dir=good.txt"], "pretrain.records_dir good.txt cannot be made"),
    ],
)  # fmt: skip
def test_what_cannot_be_pretrained_is_one_sentence(start, settings, message):
    Path("binary.txt").write_text(NUL)
    Path("one.txt").write_text(DOCUMENT)
    Path("unreadable.txt").symlink_to("/proc/self/mem")  # reading it fails whoever the user is
    status, text = start(*settings)
    assert status == 2 and message in text and "Traceback" not in text
    assert len([line for line in text.splitlines() if line.startswith("error: ")]) == 1


def test_a_worker_that_is_missing_or_not_in_the_cluster_is_named(start, monkeypatch):
    cluster = {"worker": ["localhost:1", "localhost:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 2}}))
    status, text = start()
    assert status == 2 and "(worker 0 to 1), received worker 2" in text
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        own = f"localhost:{probe.getsockname()[1]}"
    cluster = {"worker": [own, "localhost:1"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    status, text = start("training.worker_timeout_seconds=0.1")
    assert status == 2 and "could not reach worker 1 at localhost:1 in 0.1 seconds" in text
    assert not Path("run").exists()


def test_a_second_run_in_the_same_directory_is_refused(start):
    with RunDirectory("run").locked():
        status, text = start()
    assert status == 2 and "another process is writing run" in text
    assert [path.name for path in Path("run").iterdir()] == [".lock"]


@pytest.fixture
def made(start, vocabulary):
    """Records of good.txt outside the run directory, and a run that must stay."""
    with RunDirectory("run").open_for_training(Config()):
        pass
    row_format = RowFormat("masked_lm", 16, share_rows=True)
    pieces = read_vocabulary(vocabulary)
    write_records("good.txt", "made/train-16", vocabulary=pieces, lowercase=False, row_format=row_format, seed=7)
    return Path("made")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("backbone.vocabulary_path=other.txt", "were made with another vocabulary; name another folder"),
        ("pretrain.max_length=24", "the records in made/train-24 were made with max_length 16 (now 24)"),
        ("seed=8", "the records in made/train-16 were made with seed 7 (now 8)"),
        ("pretrain.train_path=text.txt", "the records in made/train-16 were made of another corpus"),
    ],
)
def test_records_of_something_else_are_left_alone_and_so_is_the_run(start, made, setting, message):
    Path("other.txt").write_text("".join(f"{piece}\n" for piece in (*toy.PIECES, "zebra")))
    Path("text.txt").write_text(TEXT * 2)
    (made / "train-24").symlink_to("train-16")
    before = contents(Path("made")), contents(Path("run"))
    status, text = start("pretrain.records_dir=made", setting, overwrite=True)
    assert status == 2 and message in text and text.count("\n") == 1
    assert (contents(Path("made")), contents(Path("run"))) == before


def test_records_that_another_run_is_writing_are_left_alone(start, made):
    index = made / "train-16" / "records.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"shards": []}))  # as while they are being written
    before = contents(made)
    with (made / "train-16" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, text = start("pretrain.records_dir=made", overwrite=True)
    assert status == 2 and "another process is writing made/train-16" in text
    assert contents(made) == before


def test_a_damaged_record_is_named_with_its_file(start, made):
    shard = next(made.glob("*/*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[60:64] = b"oops"
    shard.write_bytes(data)
    status, text = start("pretrain.records_dir=made", overwrite=True)
    assert status == 2 and f"{shard} is damaged (a checksum is wrong)" in text and "Traceback" not in text
