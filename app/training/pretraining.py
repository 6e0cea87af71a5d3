"""Training room: the text of a pretraining run: checked, its word pieces learnt, its records made."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf
from tensorflow.experimental import dtensor

from app.config import BackboneConfig, Config, InputError, TrainingConfig
from app.config.rules import check_lengths, split_beam_options
from app.data.dataset import RowStore
from app.encoder.backbone import Backbone, make_bert_backbone, read_settings
from app.one_keras import keras
from app.run.directory import RunDirectory
from app.run.screen import heartbeat, say
from app.tasks.masked_lm.network import build_pretrainer
from app.tasks.masked_lm.pipeline import compute_vocabulary, write_records
from app.tasks.masked_lm.records import RecordIndex, find_damaged_shard, read_records
from app.tasks.masked_lm.rows import RowFormat
from app.tasks.running_text import check_readable, find_sources
from app.text.word_pieces import WordPieces
from app.training.fine_tuner import SpecialIds
from app.training.masked_lm import Batch, MaskedLmTuner
from app.training.model_parallel import MeshBatches, MeshMaskedLmTuner, check_cuts, fetch, layout_scope, put
from app.training.workers import Workers


def check_text(config: Config, *, to_the_end: bool) -> None:
    """Looks into all text of a run before the run directory is touched.

    Args:
        config: of the run.
        to_the_end: read all of it, not only the beginning of each file; takes a few seconds a gigabyte.

    Raises:
        InputError: text is missing or faulty, or an option of Beam is.
    """
    settings = config.pretrain
    if not settings.train_path:
        raise InputError("pretrain.train_path is empty; pretraining needs text")
    split_beam_options(settings)
    if config.backbone.source == "random":
        check_lengths(settings, positions=config.backbone.max_positions)
    for split, path in (("train", settings.train_path), ("valid", settings.valid_path)):
        if path:
            sources = find_sources(path, split=split, tfds_dir=config.data.tfds_dir)
            if to_the_end:
                check_readable(sources, documents=2 if settings.objective == "next_sentence" else 1)


def learn_vocabulary(config: Config, run_dir: RunDirectory, workers: Workers) -> BackboneConfig:
    """The backbone's section, with word pieces learnt from the text, once for a run."""
    settings, backbone = config.pretrain, config.backbone
    with workers.chief_first():
        if not run_dir.vocabulary.exists():
            say(f"learning {settings.vocabulary_size:,} word pieces from {settings.train_path}")
            lowercase = backbone.lowercase != "false"
            with heartbeat("learning word pieces"):
                pieces = compute_vocabulary(
                    settings.train_path,
                    size=settings.vocabulary_size,
                    lowercase=lowercase,
                    tfds_dir=config.data.tfds_dir,
                )
            run_dir.write_text(run_dir.vocabulary, "".join(f"{piece}\n" for piece in pieces))
    return dataclasses.replace(backbone, vocabulary_path=str(run_dir.vocabulary))


class Records:
    """Training and held-out records of a run, each made once and then read.

    Attributes:
        pieces: the backbone's word pieces.
        index: of the training records.
        train: rows to train on.
        long: rows of the last epochs, if they are longer.
        held_out: held-out rows, of the length that is trained on last; None without held-out text.
    """

    def __init__(self, config: Config, run_dir: RunDirectory, backbone: Backbone) -> None:
        self._settings, self._seed, self._tfds_dir = config.pretrain, config.seed, config.data.tfds_dir
        self._folder = Path(self._settings.records_dir or run_dir.records)
        self.pieces = WordPieces(backbone.vocabulary, lowercase=backbone.lowercase)
        self.index, self.train = self._open("train", self._settings.max_length)
        last = self._settings.long_length if self._settings.long_epochs else self._settings.max_length
        self.long = self._open("train", last)[1] if self._settings.long_epochs else None
        self.held_out = self._open("valid", last)[1] if self._settings.valid_path else None

    def _open(self, split: str, length: int) -> tuple[RecordIndex, RowStore]:
        form = self._settings.objective
        folder = self._folder / f"{split}-{length}"
        vocabulary, lowercase = self.pieces.vocabulary, self.pieces.lowercase
        index = write_records(
            getattr(self._settings, f"{split}_path"),
            folder,
            vocabulary=vocabulary,
            lowercase=lowercase,
            row_format=RowFormat(form, length, share_rows=form == "masked_lm"),
            seed=self._seed,
            split=split,
            tfds_dir=self._tfds_dir,
            beam_options=split_beam_options(self._settings),
            overwrite=not self._settings.records_dir,  # the run's own records follow its text
        )
        rows = read_records(folder, vocabulary=vocabulary, lowercase=lowercase, max_length=length, form=form)
        return index, rows

    @contextmanager
    def damage_named(self) -> Iterator[None]:
        """Turns what TensorFlow raises at a damaged record into one sentence that names the file."""
        try:
            yield
        except tf.errors.DataLossError as error:
            folders = sorted(path.parent for path in self._folder.glob("*/records.json"))
            path = next(filter(None, map(find_damaged_shard, folders)), "")
            if not path:
                raise
            raise InputError(
                f"{path} is damaged (a checksum is wrong): delete it and run the same command, which makes it again"
            ) from error


# The network that pretraining trains: whole on each device, or one network shared out over several.


@dataclasses.dataclass(frozen=True)
class PretrainingNetwork:
    """A network of `build_pretrainer`.

    Attributes:
        backbone: inside the network.
        network: see `build_pretrainer`.
        depths: of its trainable variables, in its order.
        pairs: whether it answers pairs.
        mesh: the devices its weights are shared out over, or None.
    """

    backbone: Backbone
    network: keras.Model
    depths: list[int]
    pairs: bool
    mesh: dtensor.Mesh | None = None

    @classmethod
    def of(cls, backbone: Backbone, *, pairs: bool) -> "PretrainingNetwork":
        """On the backbone as it is; call in the strategy's scope."""
        network, depths = build_pretrainer(backbone, pairs=pairs)
        return cls(backbone, network, depths, pairs)

    def share_out(self, mesh: dtensor.Mesh) -> "PretrainingNetwork":
        """The same network and weights once more, on a mesh; whoever calls drops the one that is whole."""
        check_cuts(self.backbone.model, mesh.size)
        with layout_scope(mesh):
            model = make_bert_backbone(read_settings(self.backbone.model))
            shared = PretrainingNetwork.of(dataclasses.replace(self.backbone, model=model), pairs=self.pairs)
        for whole, parts in ((self.backbone.model, model), (self.network, shared.network)):
            for source, variable in zip(whole.variables, parts.variables, strict=True):
                put(variable, source.numpy())
        return dataclasses.replace(shared, mesh=mesh)

    def make_tuner(self, special: SpecialIds, config: TrainingConfig, *, seed: int) -> MaskedLmTuner:
        """What trains it; see `MaskedLmTuner`."""
        if self.mesh:
            return MeshMaskedLmTuner(self.network, self.mesh, special=special, config=config, seed=seed)
        return MaskedLmTuner(self.network, special=special, config=config, seed=seed)

    def to_devices(self, batches: tf.data.Dataset) -> Iterable[Batch]:
        """Batches as the network takes them outside training."""
        return MeshBatches(batches, self.mesh) if self.mesh else batches

    def whole_backbone(self) -> Backbone:
        """The backbone as one device holds it."""
        if not self.mesh:
            return self.backbone
        model = make_bert_backbone(read_settings(self.backbone.model))
        for variable, parts in zip(model.variables, self.backbone.model.variables, strict=True):
            variable.assign(fetch(parts))
        return dataclasses.replace(self.backbone, model=model)
