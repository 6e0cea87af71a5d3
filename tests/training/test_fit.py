"""The fit loop on a toy corpus: learning, the choice of weights, stopping, and resume after every kind of end."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from toy import LABELS, TRAINING, make_encoder, make_sentences, make_tagger, make_tuner, weights_of

from app.config import InputError, ModelConfig, RunError, TrainingConfig
from app.data.dataset import store_in_memory
from app.one_keras import keras
from app.training.checkpoints import Checkpoints, Position
from app.training.fit import run_fit
from app.training.plan import Plan
from app.training.step import shorten_interval
from app.training.workers import Workers

CONFIG = TRAINING
# Everything that draws random numbers or keeps state between steps.
STATEFUL = replace(
    CONFIG, average_weights_decay=0.9, average_weights_every_steps=8, word_mask_fraction=0.1, checkpoint_every_steps=2
)
DROPOUT = {"dropout": 0.1, "attention_dropout": 0.1}


@pytest.fixture(scope="module", autouse=True)
def dropout_generators():
    """As `set_up` does for a run: the state of dropout lies in variables."""
    keras.backend.experimental.enable_tf_random_generator()
    yield
    keras.backend.experimental.disable_tf_random_generator()


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(3)


@pytest.fixture(autouse=True)
def ctrl_c():
    """As at a terminal: a shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Run:
    """A toy run in a folder; a second one in the same folder resumes the first."""

    def __init__(self, folder: Path, vocabulary: Path, config: TrainingConfig, *, model=None, seed=0, **backbone):
        self.config = config
        self.tagger = make_tagger(vocabulary, model=model, seed=seed, **backbone)
        self.rows: list[dict] = []
        self.store = store_in_memory(make_encoder(self.tagger).training_rows(make_sentences(64)))
        self.steps = self.store.steps_per_epoch(config.batch_size)
        self.plan = Plan(
            batches=self.batches, steps_per_epoch=self.steps, depths=self.tagger.layer_depths(), precision="float32",
            checkpoints=folder / "checkpoints", tensorboard=None, validate=None, log=self.rows.append,
        )  # fmt: skip

    def batches(self, epoch: int, step: int) -> tf.data.Dataset:
        return self.store.make_dataset(
            batch_size=self.config.batch_size, seed=5, epochs=self.config.epochs, first_epoch=epoch, first_step=step
        )

    def fit(self, **changes) -> dict[str, float]:
        tuner = make_tuner(self.tagger, self.config)
        return run_fit(tuner, self.config, replace(self.plan, **changes))

    def batches_with(self, event, *, at: int):
        """The batches, with `event()` called when the batch number `at` (from 0) of this process is read."""

        def read(number) -> np.int64:
            if number == at:
                event()
            return np.int64(0)

        def batches(epoch: int, step: int) -> tf.data.Dataset:
            def strike(number, batch):
                with tf.control_dependencies([tf.py_function(read, [number], tf.int64)]):
                    return {name: tf.identity(value) for name, value in batch.items()}

            return self.batches(epoch, step).enumerate().map(strike)

        return batches


@pytest.fixture
def start(tmp_path, vocabulary):
    def start(config: TrainingConfig = CONFIG, *, name: str = "run", **more) -> Run:
        return Run(tmp_path / name, vocabulary, config, **more)

    return start


def same_bits(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def without_writing(metrics: dict) -> dict:
    """All but the time of writing checkpoints, which the last checkpoint cannot hold for itself."""
    assert metrics["train/checkpoint_seconds"] > 0
    return {name: value for name, value in metrics.items() if name != "train/checkpoint_seconds"}


def scores(*values: float):
    """Validation results, epoch after epoch."""
    given = iter(values)
    return lambda: {"entity_f1": next(given), "token_macro_f1": 0.5}


@pytest.mark.parametrize("head", ["softmax", "crf"])
def test_the_loss_falls_on_a_corpus_that_can_be_learnt(start, head):
    run = start(model=ModelConfig(head=head, head_dropout=0.0))
    metrics = run.fit()
    losses = [row["loss"] for row in run.rows]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 3
    assert metrics["train/epochs"] == 3 and metrics["train/best_epoch"] == 3 and "valid/entity_f1" not in metrics
    words = sum(len(sentence.words) for sentence in make_sentences(64))
    assert metrics["train/words"] == 3 * words
    assert metrics["train/words_per_second"] == pytest.approx(3 * words / metrics["train/seconds"])


def test_every_epoch_is_a_row_of_the_history(start):
    run = start()
    run.fit(validate=scores(0.1, 0.2, 0.3))
    assert [(row["epoch"], row["step"], row["valid/entity_f1"]) for row in run.rows] == [
        (number, number * run.steps, number / 10) for number in (1, 2, 3)
    ]
    assert all(row["seconds"] >= 0 and row["words_per_second"] > 0 for row in run.rows)


def test_an_epoch_whose_checkpoint_is_lost_is_dropped_from_the_history_and_logged_once(start):
    """A kill may come after the row is logged and before the checkpoint is written."""
    rows: list[dict] = []

    def forget(epochs: int) -> None:
        rows[:] = [row for row in rows if row["epoch"] <= epochs]

    def log_and_die(row: dict) -> None:
        rows.append(row)
        if row["epoch"] == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        start().fit(log=log_and_die, forget=forget)
    assert [row["epoch"] for row in rows] == [1, 2]
    start(seed=9).fit(log=rows.append, forget=forget)
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_the_weights_of_the_best_validation_are_kept_and_an_equal_score_later_does_not_replace_them(start):
    run, seen = start(replace(CONFIG, epochs=4)), []
    given = iter([0.3, 0.8, 0.8, 0.1])

    def validate() -> dict[str, float]:
        seen.append(weights_of(run.tagger))
        return {"entity_f1": next(given)}

    metrics = run.fit(validate=validate)
    assert (metrics["train/best_epoch"], metrics["valid/entity_f1"], metrics["train/epochs"]) == (2, 0.8, 4)
    assert same_bits(weights_of(run.tagger), seen[1]) and not same_bits(seen[1], seen[3])


def test_where_only_late_weights_may_be_kept_no_epoch_is_called_the_best(start, capfd):
    start(replace(CONFIG, epochs=2)).fit(validate=scores(0.8, 0.3), first_kept_epoch=2)
    first, last = [line for line in capfd.readouterr().err.splitlines() if "valid entity F1" in line]
    assert "0.8000 |" in first and "0.3000 (kept) |" in last


def test_the_averages_are_what_is_validated_and_kept_and_training_goes_on_from_the_weights(start):
    plain, averaged = start(name="plain"), start(replace(CONFIG, average_weights_decay=0.9), name="averaged")
    seen = []

    def validate() -> dict[str, float]:
        seen.append(weights_of(averaged.tagger))
        return {"entity_f1": len(seen) / 10}

    plain.fit()
    averaged.fit(validate=validate)
    assert same_bits(weights_of(averaged.tagger), seen[-1])
    assert not same_bits(weights_of(averaged.tagger), weights_of(plain.tagger))
    assert [row["loss"] for row in averaged.rows] == [row["loss"] for row in plain.rows]


def test_epochs_shorter_than_the_interval_of_the_averages_score_and_keep_trained_weights(start):
    run = start(replace(CONFIG, epochs=2, average_weights_decay=0.98, average_weights_every_steps=8))
    tuner, steps, distances = make_tuner(run.tagger, run.config), 6, []
    untrained = [variable.numpy() for variable in run.tagger.network.trainable_variables]

    def distance(one, other) -> float:
        return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(one, other, strict=True)))

    def validate() -> dict[str, float]:
        scored = [variable.numpy() for variable in run.tagger.network.trainable_variables]
        trained = [variable.numpy() for variable in tuner.averages]  # they have changed places
        distances.append(distance(scored, trained) / distance(untrained, trained))
        return {"entity_f1": len(distances) / 10}

    run_fit(tuner, run.config, replace(run.plan, steps_per_epoch=steps, validate=validate))
    assert len(distances) == 2 and max(distances) < 0.3


@pytest.mark.parametrize(
    ("every", "steps_per_epoch", "expected"),
    [(8, 200, 8), (8, 16, 8), (8, 15, 7), (8, 6, 3), (8, 2, 1), (8, 1, 1), (1, 100, 1), (100, 150, 75)],
)
def test_averages_move_at_least_twice_an_epoch_and_no_more_often_than_asked_for_where_epochs_are_long(
    every, steps_per_epoch, expected
):
    assert shorten_interval(every, steps_per_epoch) == expected


def test_training_stops_early_and_running_it_again_does_not_go_on(start):
    config = replace(CONFIG, epochs=6, early_stopping_patience_epochs=2)
    first = start(config)
    metrics = without_writing(first.fit(validate=scores(0.5, 0.4, 0.3)))
    assert (len(first.rows), metrics["train/epochs"], metrics["train/best_epoch"]) == (3, 3, 1)
    again = start(config)
    assert without_writing(again.fit(validate=scores())) == metrics
    assert again.rows == [] and same_bits(weights_of(again.tagger), weights_of(first.tagger))


def test_time_spent_on_validation_does_not_count_as_training(start):
    run = start(replace(CONFIG, epochs=1))

    def validate() -> dict[str, float]:
        import time

        time.sleep(0.8)
        return {"entity_f1": 0.5}

    metrics = run.fit(validate=validate)
    assert metrics["train/seconds"] == pytest.approx(run.rows[0]["seconds"], abs=0.4)


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_step_and_the_remedy(start):
    run = start()

    def poisoned(epoch: int, step: int) -> tf.data.Dataset:
        run.tagger.network.trainable_variables[-1].assign_add([np.nan] * len(LABELS))
        return run.batches(epoch, step)

    with pytest.raises(RunError, match=r"became nan at step 1;.*training.learning_rate \(0.01\)"):
        run.fit(batches=poisoned)


def test_xla_gives_the_same_losses(start):
    runs = [start(replace(CONFIG, jit_compile=jit), name=str(jit)) for jit in (False, True)]
    for run in runs:
        run.fit()
    one, other = ([row["loss"] for row in run.rows] for run in runs)
    np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, vocabulary):
    """A run with dropout, masking and averages that nothing interrupted."""
    keras.utils.set_random_seed(3)
    run = Run(tmp_path_factory.mktemp("whole"), vocabulary, STATEFUL, **DROPOUT)
    run.fit()
    return run


def crash() -> None:
    raise RuntimeError("power cut")


def test_after_a_crash_within_an_epoch_the_run_ends_with_the_bits_of_an_uninterrupted_one(start, whole):
    broken = start(STATEFUL, **DROPOUT)
    with pytest.raises(tf.errors.OpError):
        broken.fit(batches=broken.batches_with(crash, at=whole.steps + 4))
    assert len(broken.rows) == 1
    resumed = start(STATEFUL, seed=9, **DROPOUT)  # other weights at first: all must come from the checkpoint
    metrics = resumed.fit()
    assert [row["epoch"] for row in resumed.rows] == [2, 3]
    assert same_bits(weights_of(resumed.tagger), weights_of(whole.tagger))
    assert metrics["train/words"] == 3 * sum(len(sentence.words) for sentence in make_sentences(64))


def test_ctrl_c_finishes_the_step_saves_and_resumes_with_the_same_bits(start, whole):
    config = replace(STATEFUL, checkpoint_every_steps=1000)
    broken = start(config, **DROPOUT)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(batches=broken.batches_with(lambda: os.kill(os.getpid(), signal.SIGINT), at=3))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert broken.rows == [] and list(broken.plan.checkpoints.glob("ckpt-*.index"))
    resumed = start(config, seed=9, **DROPOUT)
    resumed.fit()
    assert same_bits(weights_of(resumed.tagger), weights_of(whole.tagger))


def test_ctrl_c_while_validating_keeps_the_epoch_and_its_score(start):
    config = replace(CONFIG, average_weights_decay=0.9)

    def interrupted() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        return {"entity_f1": 0.9}

    broken = start(config)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(validate=interrupted)
    resumed = start(config, seed=9)
    metrics = resumed.fit(validate=scores(0.1, 0.2))
    assert [row["epoch"] for row in broken.rows + resumed.rows] == [1, 2, 3]
    assert (metrics["train/best_epoch"], metrics["valid/entity_f1"]) == (1, 0.9)


def test_a_second_ctrl_c_stops_at_once_and_the_last_checkpoint_stays(start, whole):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    def impatient() -> dict[str, float]:
        twice()
        raise AssertionError("not reached")

    broken = start(STATEFUL, **DROPOUT)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(validate=impatient)
    resumed = start(STATEFUL, seed=9, **DROPOUT)
    resumed.fit()
    assert same_bits(weights_of(resumed.tagger), weights_of(whole.tagger))


def test_by_the_default_interval_dear_checkpoints_are_rare_and_a_crash_ends_with_the_same_bits(start, monkeypatch):
    saved, save = [], Checkpoints.save

    def save_slowly(checkpoints, position):
        saved.append(position.epoch)
        time.sleep(1)
        save(checkpoints, position)

    monkeypatch.setattr(Checkpoints, "save", save_slowly)
    config = replace(CONFIG, epochs=4, checkpoint_every_steps=0)
    whole = start(config, name="whole")
    metrics = whole.fit(validate=scores(0.2, 0.9, 0.5, 0.4))
    assert (saved, metrics["train/best_epoch"]) == ([1, 4], 2)
    broken = start(config)
    with pytest.raises(RuntimeError, match="power cut"):
        broken.fit(validate=scores(0.2, 0.9, 0.5), log=lambda row: crash() if row["epoch"] == 3 else None)
    resumed = start(config, seed=9)
    metrics = resumed.fit(validate=scores(0.9, 0.5, 0.4))
    assert ([row["epoch"] for row in resumed.rows], metrics["train/best_epoch"]) == ([2, 3, 4], 2)
    assert same_bits(weights_of(resumed.tagger), weights_of(whole.tagger))


def test_a_finished_run_is_not_trained_again(start):
    first = start()
    metrics = without_writing(first.fit(validate=scores(0.2, 0.6, 0.4)))
    again = start(seed=9)
    assert without_writing(again.fit(validate=scores())) == metrics and again.rows == []
    assert same_bits(weights_of(again.tagger), weights_of(first.tagger))


@pytest.mark.slow
def test_what_takes_long_before_the_first_step_is_done_once_and_not_if_nothing_is_left_to_train(start):
    done = []
    config = replace(CONFIG, early_stopping_patience_epochs=1)
    start(config).fit(prepare=lambda: done.append("first"), validate=scores(0.6, 0.4))
    start(config).fit(prepare=lambda: done.append("stopped early"), validate=scores())
    start(name="other").fit(prepare=lambda: done.append("other"))
    start(name="other").fit(prepare=lambda: done.append("finished"))
    assert done == ["first", "other"]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory, vocabulary, whole) -> Path:
    """Checkpoints of a run that broke off within its second epoch."""
    keras.utils.set_random_seed(3)
    broken = Run(tmp_path_factory.mktemp("crashed"), vocabulary, STATEFUL, **DROPOUT)
    with pytest.raises(tf.errors.OpError):
        broken.fit(batches=broken.batches_with(crash, at=whole.steps + 4))
    return broken.plan.checkpoints


def damage(path: Path, size: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:size])


@pytest.mark.parametrize(("ending", "share"), [("index", 0.5), ("data-00000-of-00001", 0.5), ("index", 0.0)])
def test_a_truncated_newest_checkpoint_gives_way_to_the_one_before_it(start, tmp_path, whole, crashed, ending, share):
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(crashed, checkpoints)
    victim = Path(f"{tf.train.latest_checkpoint(str(checkpoints))}.{ending}")
    damage(victim, int(victim.stat().st_size * share))
    resumed = start(STATEFUL, seed=9, **DROPOUT)
    resumed.fit()
    assert same_bits(weights_of(resumed.tagger), weights_of(whole.tagger))


def test_if_no_checkpoint_can_be_read_the_run_says_so_instead_of_starting_anew(start):
    first = start(replace(CONFIG, epochs=2))
    first.fit()
    for path in first.plan.checkpoints.glob("ckpt-*"):
        damage(path, 10)
    with pytest.raises(InputError, match=r"no checkpoint in .*checkpoints can be read.*--overwrite"):
        start(replace(CONFIG, epochs=2)).fit()


def test_checkpoints_of_another_model_are_refused_by_name(start):
    start(replace(CONFIG, epochs=1)).fit()
    with pytest.raises(InputError, match=r"no checkpoint in .*checkpoints can be read.*--overwrite"):
        start(replace(CONFIG, epochs=1), hidden_dim=8).fit()


def test_the_step_of_each_length_is_traced_for_that_length_alone_as_a_resumed_run_traces_it(start):
    run = start(replace(CONFIG, epochs=4))
    shapes: list[tuple] = []

    def batches(epoch: int, step: int) -> tf.data.Dataset:
        length = 32 if epoch < 2 else 24

        def cut(batch):
            return {name: value[:, :length] for name, value in batch.items()}

        return run.batches(epoch, step).map(cut)

    tuner = make_tuner(run.tagger, run.config)
    count = tuner._words
    tuner._words = lambda batch: (shapes.append(tuple(batch["labels"].shape)), count(batch))[1]
    run_fit(tuner, run.config, replace(run.plan, batches=batches, breaks=(2,)))
    assert set(shapes) == {(4, 32), (4, 24)}


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import app
sys.path[:0] = sys.argv[2:4]
from test_fit import CONFIG, Run, RunError, replace
folder = Path(sys.argv[1])
config = replace(CONFIG, epochs=2)
run = Run(folder, folder / "vocab.txt", config)

def fill_the_disk(row):
    run.rows.append(row)
    if row["epoch"] == 2:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

try:
    run.fit(log=fill_the_disk)
except RunError as error:
    print("RunError:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
again = Run(folder, folder / "vocab.txt", config, seed=9)
again.fit()
print("epochs", [row["epoch"] for row in again.rows])
"""


def test_a_disk_that_is_full_while_a_checkpoint_is_written_leaves_the_one_before_it(tmp_path, vocabulary):
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(here), str(here.parent)],
        cwd=here.parents[1], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "could not be written to" in done.stdout and "before it is intact: free some space" in done.stdout
    assert done.stdout.endswith("epochs [2]\n")


def make_checkpoints(run: Run, folder: Path) -> Checkpoints:
    tuner = make_tuner(run.tagger, run.config)
    optimizer = tuner.make_optimizer(run.config, total_steps=9, depths=run.plan.depths, precision="float32")
    tuner.compile(optimizer=optimizer)
    return Checkpoints(folder, tuner, Workers(tf.distribute.get_strategy()))


@pytest.mark.parametrize("name", ["[a]", "a*", "a\\b", os.fsdecode(b"\xff\n")])
def test_checkpoints_in_a_folder_of_any_name_are_read_again_and_no_other_is_deleted(start, tmp_path, name):
    """TensorFlow takes the name for a pattern, also when it deletes the oldest checkpoint."""
    others = [tmp_path / other / "checkpoints" / "ckpt-1.index" for other in ("a", "ab", "b")]
    for path in others:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"of another run")
    run, folder = start(), tmp_path / name / "checkpoints"
    checkpoints = make_checkpoints(run, folder)
    for epoch in (1, 2, 3):
        checkpoints.save(Position(epoch=epoch))
    assert {path.stem for path in folder.glob("ckpt-*.index")} == {"ckpt-2", "ckpt-3"}
    position = make_checkpoints(run, folder).restore()
    assert position is not None and position.epoch == 3
    assert all(path.exists() for path in others)
    damage(folder / "ckpt-3.index", 10)
    damage(folder / "ckpt-2.index", 10)
    with pytest.raises(InputError) as refused:
        make_checkpoints(run, folder).restore()
    assert f"no checkpoint in {folder} can be read" in str(refused.value) and "paths-" not in str(refused.value)


def test_what_a_killed_save_left_goes_at_the_next_start_and_whole_checkpoints_stay(start, tmp_path):
    run, folder = start(), tmp_path / "checkpoints"
    make_checkpoints(run, folder).save(Position(epoch=1))
    whole = set(os.listdir(folder))
    (folder / "ckpt-2_temp").mkdir()
    for name in ("ckpt-2_temp/part-00000-of-00001.index", "ckpt-2.data-00000-of-00001", "checkpoint.tmp0123abc"):
        (folder / name).write_bytes(b"half")
    (folder / "checkpoints.md").write_text("mine")
    position = make_checkpoints(run, folder).restore()
    assert position is not None and position.epoch == 1
    assert set(os.listdir(folder)) == whole | {"checkpoints.md"}
    (folder / "checkpoint").unlink()  # whole, though no list names it: it is not this program's to judge
    make_checkpoints(run, folder)
    assert set(os.listdir(folder)) == whole - {"checkpoint"} | {"checkpoints.md"}


def test_a_disk_that_is_too_small_says_which_checkpoint_is_safe_and_holds_no_half_one(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    run = start()
    make_checkpoints(run, tmp_path / "measured").save(Position())
    size = sum(path.stat().st_size for path in (tmp_path / "measured").iterdir())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * size}", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        (disk / "filler").write_bytes(b"x" * (2 * size - 8192))
        checkpoints = make_checkpoints(run, disk / "checkpoints")
        first = f"the disk is full: checkpoint 1 could not be written to {disk}/checkpoints; there is none before it: "
        with pytest.raises(RunError, match=first):
            checkpoints.save(Position(epoch=1))
        assert os.listdir(disk / "checkpoints") == []
        (disk / "filler").write_bytes(b"")
        checkpoints.save(Position(epoch=2))
        whole = set(os.listdir(disk / "checkpoints"))
        (disk / "filler").write_bytes(b"x" * (size // 2))
        with pytest.raises(RunError, match="ckpt-2 before it is intact: free some .*, which continues from there$"):
            checkpoints.save(Position(epoch=3))
        assert set(os.listdir(disk / "checkpoints")) == whole
        position = make_checkpoints(run, disk / "checkpoints").restore()
        assert position is not None and position.epoch == 2
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_folders_that_tensorflow_would_make_get_the_access_that_the_umask_allows(start, tmp_path):
    before = os.umask(0o002)
    try:
        run = start(replace(CONFIG, epochs=1, tensorboard=True))
        run.fit(tensorboard=tmp_path / "[logs]" / "tensorboard")
    finally:
        os.umask(before)
    folders = [run.plan.checkpoints, tmp_path / "[logs]" / "tensorboard"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o775, 0o775]
    assert [path.name.startswith("events.") for path in folders[1].iterdir()] == [True]
