"""The text of a pretraining run, and the batches of its stages, before anything is trained."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import toy

from app.config import Config, DataConfig, InputError, PretrainConfig
from app.data.dataset import RowStore
from app.modes.pretrain import _Stages
from app.run.directory import RunDirectory
from app.training.pretraining import Records, check_text, learn_vocabulary
from app.training.workers import Workers


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a dataset that TensorFlow Datasets has prepared there and nowhere else."""
    folder = tmp_path_factory.mktemp("prepared")
    names = tfds.features.ClassLabel(names=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
    lists = {"tokens": tfds.features.Sequence(tf.string), "ner": tfds.features.Sequence(names)}
    features = tfds.features.FeaturesDict(lists)
    numbers = {name: number for number, name in enumerate(names.names)}
    rows = [{"tokens": one.words, "ner": [numbers[tag] for tag in one.tags]} for one in toy.make_sentences(30)]
    kinds = {"tokens": tf.TensorSpec([None], tf.string), "ner": tf.TensorSpec([None], tf.int64)}
    dataset = tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=kinds)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="toy_corpus", version="1.0.0", features=features, data_dir=folder,
        split_datasets={"train": dataset, "validation": dataset},
    )  # fmt: skip
    return folder


def test_a_prepared_dataset_is_pretrained_on_from_the_folder_that_is_named(prepared, tmp_path):
    paths = {"train_path": "tfds:toy_corpus", "valid_path": "tfds:toy_corpus"}
    pretrain = PretrainConfig(**paths, max_length=16, vocabulary_size=90)
    config = Config(data=DataConfig(tfds_dir=str(prepared)), pretrain=pretrain)
    check_text(config, to_the_end=True)
    run_dir, workers = RunDirectory(tmp_path / "run"), Workers(tf.distribute.get_strategy())
    learnt = learn_vocabulary(config, run_dir, workers)
    backbone = SimpleNamespace(vocabulary=tuple(run_dir.vocabulary.read_text().splitlines()), lowercase=True)
    assert learnt.vocabulary_path and "[MASK]" in backbone.vocabulary
    records = Records(config, run_dir, backbone)
    assert records.index.documents == 30 and records.held_out.rows
    with pytest.raises(InputError, match="toy_corpus"):
        check_text(replace(config, data=DataConfig(tfds_dir=str(tmp_path))), to_the_end=False)


def make_rows(count: int, length: int) -> RowStore:
    rows = {"token_ids": np.ones((count, length), np.int32)}
    return RowStore(
        count, length, lambda number, seed: tf.data.Dataset.from_tensor_slices(rows),
        empty_row={"token_ids": tf.zeros([length], tf.int32)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("batch_size", "parts", "replicas", "long_rows"),
    [
        (32, 1, 1, 8), (12, 1, 2, 2), (20, 1, 2, 4), (24, 1, 4, 4), (24, 3, 2, 6), (4, 1, 4, 4), (2, 2, 1, 2),
        (40, 2, 2, 8),
    ],
)  # fmt: skip
def test_each_part_of_each_replica_gets_as_many_long_rows_as_the_others(batch_size, parts, replicas, long_rows):
    training = replace(toy.TRAINING, epochs=2, batch_size=batch_size, accumulation_steps=parts)
    config = Config(training=training, pretrain=PretrainConfig(max_length=16, long_length=64, long_epochs=1))
    records = SimpleNamespace(train=make_rows(100, 16), long=make_rows(30, 64))
    stages = _Stages(records, config, steps_per_epoch=3, replicas=replicas)
    assert stages.batches(0, 0).element_spec["token_ids"].shape == [batch_size, 16]
    assert stages.batches(1, 0).element_spec["token_ids"].shape == [long_rows, 64]
    assert long_rows % (parts * replicas) == 0
