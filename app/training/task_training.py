"""Training room: what every mode that trains does alike: read the corpora, start a network, fit it, score it."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from app.config import Config, TrainingConfig
from app.data.dataset import RowStore, store_in_memory, store_in_records
from app.data.encoding import Encoder
from app.data.packing import Example
from app.run.directory import RunDirectory
from app.run.screen import heartbeat
from app.tasks import find_task
from app.tasks.network import TaskModel
from app.training.fine_tuner import FineTuner, SpecialIds, find_beginnings
from app.training.kept_structure import KeptStructure
from app.training.plan import Plan
from app.training.workers import Workers


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
        worker = Workers(self.strategy).index
        if worker:
            folder = folder / f"worker-{worker}"
        with heartbeat("writing the cache of sequences"):
            return store_in_records(
                rows, folder, fingerprint=fingerprint, shuffle_buffer=config.shuffle_buffer_sequences
            )

    def plan(
        self,
        store: RowStore,
        settings: TrainingConfig,
        *,
        depths: Sequence[int],
        validate: Callable[[], dict[str, float]] | None,
        phase: str = "",
        seed: int | None = None,
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
        """
        folder, prefix = (self.run_dir.checkpoints / phase, f"{phase}/") if phase else (self.run_dir.checkpoints, "")
        order = self.config.seed if seed is None else seed
        task = find_task(self.config.task)
        return Plan(
            batches=lambda epoch, step: store.make_dataset(
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
        )

    def tuner(self, tagger: TaskModel, encoder: Encoder, settings: TrainingConfig) -> FineTuner:
        """Trains a tagger on the labels of the rows. Call inside the strategy's scope."""
        return FineTuner(
            tagger.network,
            tagger.head.compute_loss,
            special=SpecialIds.of(encoder.pieces),
            config=settings,
            seed=self.config.seed,
            keep=KeptStructure.find(tagger.network.trainable_variables) if settings.keep_structure else None,
            begins_word=find_beginnings(tagger.task, encoder.pieces),
            independent=tagger.head.independent,
        )


