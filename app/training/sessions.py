"""Training room: how a training mode opens its run, and what its phases share: rows, plans, tuners."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from app.config import Config, TrainingConfig
from app.data.dataset import RowStore, store_in_memory, store_in_records
from app.data.encoding import Encoder
from app.data.packing import Example
from app.run.directory import Request, RunDirectory
from app.run.screen import heartbeat, say
from app.tasks import find_task
from app.tasks.corpora import Corpora, check_same_corpora, note_corpora
from app.tasks.network import TaskModel, build_label_network
from app.training.cluster import read_cluster
from app.training.distillation.answers import AnswerFolders
from app.training.exit_loss import ExitLoss
from app.training.fine_tuner import FineTuner, SpecialIds, find_beginnings
from app.training.plan import Plan
from app.training.step import KeptStructure
from app.training.strategy import count_cores, describe_devices, find_unused_gpu, name_gpus
from app.training.workers import Workers, remove_notes


@contextmanager
def open_run(request: Request, workers: Workers, *, mode: str, corpora: Corpora | None = None) -> Iterator[None]:
    """The run directory, which the chief locks and writes; the other workers go on when that is done.

    Call it when everything that training needs is there: what fails before leaves no trace in the run directory.

    Args:
        request: what is asked of the mode.
        workers: all of them.
        mode: that trains.
        corpora: what the run learns from and is scored on (`describe_corpora`).

    Raises:
        InputError: it holds a run of another configuration, or one that began with other corpora.
    """
    workers.wait()  # until each of them has come so far
    if not workers.is_chief:
        workers.wait()
        yield
        return
    config, run_dir = request.config, request.run_dir
    plan = run_dir.plan_training(config, mode=mode, overwrite=request.overwrite)
    if corpora and plan == "resume":
        check_same_corpora(run_dir, corpora)
    before = run_dir.read_config().training.epochs if plan == "resume" else 0
    with run_dir.open_for_training(config, mode=mode, overwrite=request.overwrite) as resumed:
        run_dir.write_environment(seed=config.seed, command=sys.argv)
        if corpora:
            note_corpora(run_dir, corpora)
        remove_notes(run_dir.path)
        workers.wait()
        if plan == "replace":
            say(f"{run_dir} held a run of another configuration without any checkpoint: this run takes its place")
        if resumed:
            say(f"resuming {run_dir}")
        if resumed and config.training.epochs > before:
            say(
                f"trained for {before} epoch(s), continuing to {config.training.epochs}: the learning rate follows the "
                "schedule of all of them from here on, so the weights are not those of so many epochs from the start"
            )
        yield


@contextmanager
def open_finished_run(request: Request, *, mode: str) -> Iterator[Config | None]:
    """A run whose plan is "finished", locked to be scored.

    Yields the configuration to score with, which is in config.yaml now, or None to a worker that is not the chief and
    has nothing to do.
    """
    run_dir = request.run_dir
    if not _is_chief(request.config.training):
        say(f"{run_dir} is finished: the chief worker scores it")
        yield None
        return
    with run_dir.locked():
        state = run_dir.read_state()
        if "trained" not in state:  # of an earlier version
            when = run_dir.model_sums.stat().st_mtime
            run_dir.mark_trained(run_dir.read_config(), mode=mode, when=when)
            state = run_dir.read_state() | {"scored": ""}
        if "scored" in state:
            say(f"{run_dir}: this run is finished (trained {state['trained']}); --overwrite trains it from scratch")
        else:
            say(f"{run_dir}: this run is trained ({state['trained']}); what is left is to score it")
        yield run_dir.settle_config(request.config)


def _is_chief(config: TrainingConfig) -> bool:
    """Whether this process writes the run directory; known without waiting for the others."""
    several = config.strategy == "multi_worker" or (config.strategy == "auto" and not config.tpu_address)
    return not several or read_cluster().index == 0


def say_devices(devices: Sequence[str], precision: str, workers: Workers) -> None:
    """One line of every worker on the devices that it trains on, and one if a GPU of its machine cannot be used.

    Args:
        devices: TensorFlow's names of them.
        precision: what `set_up` returned.
        workers: that train together.
    """
    who = f" of worker {workers.index}" if workers.count > 1 else ""
    say(f"devices{who}: {describe_devices(devices, gpus=name_gpus(), cores=count_cores())}; precision {precision}")
    if unused := find_unused_gpu():
        say(unused)


# What every mode that trains does alike: read the corpora, start a network, fit it, score it.


@dataclasses.dataclass(frozen=True)
class TaskTraining:
    """What the training phases of one run share.

    Attributes:
        config: of the run.
        run_dir: of the run; opened.
        strategy: the devices.
        precision: what `set_up` returned.
    """

    config: Config
    run_dir: RunDirectory
    strategy: tf.distribute.Strategy
    precision: str

    def store(self, rows: Iterable[Example], encoder: Encoder, *, words: int, made_from: object) -> RowStore:
        """Rows in memory for a corpus that fits there, else in TFRecord files, of which each worker has its own.

        Args:
            rows: what `encoder` makes of the corpus.
            encoder: that made them.
            words: in the corpus.
            made_from: describes the corpus; its `repr` tells finished files of another corpus apart.
        """
        config = self.config.data
        large = words > config.memory_limit_words
        if config.cache == "memory" or (config.cache == "auto" and not large):
            with heartbeat("cutting the corpus into sequences"):
                return store_in_memory(rows)
        settings = (made_from, encoder.labels, encoder.pieces.vocabulary, encoder.pieces.lowercase, config)
        fingerprint = hashlib.sha256(repr(settings).encode()).hexdigest()
        # Another run that is reading the folder of its rows must not lose them.
        folder = Path(config.cache_dir) / fingerprint[:16] if config.cache_dir else self.run_dir.cache
        folder = self._of_this_worker(folder)
        with heartbeat("writing the cache of sequences"):
            return store_in_records(
                rows, folder, fingerprint=fingerprint, shuffle_buffer=config.shuffle_buffer_sequences
            )

    def answer_folders(self) -> AnswerFolders:
        """Where the answers of teachers are kept: with `data.cache_dir`, for all runs."""
        own, cache_dir = self._of_this_worker(self.run_dir.answers), self.config.data.cache_dir
        return AnswerFolders(own, Path(cache_dir) / self.run_dir.answers.name if cache_dir else own)

    def _of_this_worker(self, folder: Path) -> Path:
        worker = Workers(self.strategy).index
        return folder / f"worker-{worker}" if worker else folder

    def plan(
        self,
        store: RowStore,
        settings: TrainingConfig,
        *,
        depths: Sequence[int],
        validate: Callable[[], dict[str, float]] | None,
        phase: str = "",
        seed: int | None = None,
        complete: Callable[[RowStore], RowStore] = lambda rows: rows,
    ) -> Plan:
        """The plan of one phase.

        Args:
            store: rows to train on; they may carry more than labels.
            settings: the training section, with the epochs of this phase.
            depths: of the trainable variables of the network, in its order.
            validate: scores the validation split.
            phase: its name: checkpoints go to a folder of their own and history.jsonl gets `PHASE/` before each
                number. Empty for the one phase that the run is for.
            seed: of the order of the rows; None for the run's.
            complete: the same rows with more in each; called before the first step, if there is one.
        """
        folder, prefix = (self.run_dir.checkpoints / phase, f"{phase}/") if phase else (self.run_dir.checkpoints, "")
        order = self.config.seed if seed is None else seed
        task = find_task(self.config.task)
        rows = [store]

        def prepare() -> None:
            rows[0] = complete(store)

        return Plan(
            batches=lambda epoch, step: rows[0].make_dataset(
                batch_size=settings.batch_size, seed=order, epochs=settings.epochs, first_epoch=epoch, first_step=step
            ),
            steps_per_epoch=store.steps_per_epoch(settings.batch_size),
            depths=depths,
            precision=self.precision,
            checkpoints=folder,
            tensorboard=self.run_dir.tensorboard / phase if settings.tensorboard else None,
            validate=validate,
            score=task.headline,
            unit=task.unit,
            name=f"{phase.replace('/', ' ').replace('_', ' ')} " if phase else "",
            log=lambda row: self.run_dir.append_jsonl(
                self.run_dir.history_jsonl, {f"{prefix}{name}": value for name, value in row.items()}
            ),
            forget=lambda epochs: self.run_dir.rewind_history(f"{prefix}epoch", epochs),
            prepare=prepare,
        )

    def tuner(self, tagger: TaskModel, encoder: Encoder, settings: TrainingConfig) -> FineTuner:
        """Trains a tagger on the labels of the rows. Call inside the strategy's scope."""
        fixed_shapes = settings.jit_compile or settings.strategy == "tpu" or bool(settings.tpu_address)
        return FineTuner(
            tagger.whole,
            tagger.head.compute_loss,
            special=SpecialIds.of(encoder.pieces),
            config=settings,
            seed=self.config.seed,
            keep=KeptStructure.find(tagger.whole.trainable_variables) if settings.keep_structure else None,
            begins_word=find_beginnings(tagger.task, encoder.pieces),
            independent=tagger.head.independent,
            compute_logits=None if fixed_shapes else build_label_network(tagger),
            exits=ExitLoss.of(tagger, settings),
        )
