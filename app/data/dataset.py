"""Data room: packed rows to `tf.data` batches, from memory or from TFRecord files.

The batch of any step is a function of (seed, epoch, step) alone, so a resumed run reads on where it stopped.
Batches are global; Keras shares them out among the replicas.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from app.config.paths import plain
from app.data.packing import FEATURES, IGNORED, Example
from app.run.directory import atomic
from app.run.files import lock, named

FIELDS = (*FEATURES, "labels", "unit_ids")
ROWS_PER_SHARD = 2048


class RowStore:
    """Rows to train on. `epoch(number, seed)` gives them in the order of that epoch.

    Attributes:
        rows: how many there are.
        max_length: pieces in each.
        empty_row: a row that weighs nothing, {name: int32, or float32 of added columns}; a batch has its features.
    """

    def __init__(
        self,
        rows: int,
        max_length: int,
        epoch: Callable[[tf.Tensor, int], tf.data.Dataset],
        *,
        empty_row: Mapping[str, tf.Tensor] | None = None,
    ) -> None:
        self.rows = rows
        self.max_length = max_length
        self.empty_row = empty_row or {
            name: tf.fill([max_length], IGNORED if name == "labels" else 0) for name in (*FEATURES, "labels")
        }
        self._epoch = epoch

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last one is filled up with empty rows, so that no row is left out."""
        return -(-self.rows // batch_size)

    def make_dataset(
        self, *, batch_size: int, seed: int, epochs: int, first_epoch: int = 0, first_step: int = 0
    ) -> tf.data.Dataset:
        """All batches from (first_epoch, first_step) to the end of the last epoch.

        Yields:
            dict of int32 [batch_size, max_length]: token_ids, shape_ids, padding_mask, labels; or what `empty_row` has.
        """
        filler = tf.data.Dataset.from_tensors(dict(self.empty_row)).repeat(-self.rows % batch_size)

        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            rows = self._epoch(number, seed).map(lambda row: {name: row[name] for name in self.empty_row})
            return rows.concatenate(filler).batch(batch_size, drop_remainder=True)

        batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).skip(first_step)
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        options.deterministic = True
        return batches.with_options(options).prefetch(tf.data.AUTOTUNE)


class RowsInMemory(RowStore):
    """Rows that are all in memory; every epoch is a full permutation.

    Attributes:
        columns: {name: array [rows, max_length, ...]}.
    """

    def __init__(
        self, columns: Mapping[str, np.ndarray | tf.Tensor], *, empty_row: Mapping[str, tf.Tensor] | None = None
    ) -> None:
        rows, max_length = columns["token_ids"].shape
        super().__init__(rows, max_length, self._shuffled_rows, empty_row=empty_row)
        self.columns = columns

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> "RowsInMemory":
        """The same rows with more in each, 0 in an empty one: float32 [rows, max_length, ...]."""
        with tf.device("CPU:0"):  # outside the graph of the batches, which would hold a copy for every epoch
            added = {name: tf.constant(values) for name, values in columns.items()}
            empty = {name: tf.zeros(values.shape[1:], values.dtype) for name, values in columns.items()}
        return RowsInMemory({**self.columns, **added}, empty_row={**self.empty_row, **empty})

    def _shuffled_rows(self, number: tf.Tensor, seed: int) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(self.rows, dtype=tf.int64), seed=tf.stack([tf.cast(seed, tf.int64), number])
        )
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda i: {name: tf.gather(values, i) for name, values in self.columns.items()}
        )


def store_in_memory(examples: Iterable[Example]) -> RowsInMemory:
    """Holds all rows in memory."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for example in examples:
        for name in FIELDS:
            columns[name].append(getattr(example, name))
    return RowsInMemory({name: np.stack(values) for name, values in columns.items()})


def store_in_records(
    examples: Iterable[Example], folder: Path, *, fingerprint: str, shuffle_buffer: int
) -> RowStore:
    """Writes the rows to TFRecord shards once and streams them: memory does not grow with the corpus.

    Each epoch reads the shards in an order of its own and shuffles within a buffer.

    Args:
        examples: the rows; consumed shard by shard.
        folder: where the shards go; finished shards of the same fingerprint are used as they are.
        fingerprint: of everything the rows depend on.
        shuffle_buffer: rows held for shuffling.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "rows.json"
    facts = _read_finished(index, fingerprint)
    if facts is None:
        with (folder / "rows.lock").open("a") as file:  # a kill frees the lock
            lock(file.fileno(), folder, wait=True)
            facts = _read_finished(index, fingerprint)  # another run may have written them meanwhile
            if facts is None:
                index.unlink(missing_ok=True)  # half-written shards must not look finished
                _remove_shards(folder)
                facts = {"fingerprint": fingerprint, **_write_shards(examples, folder)}
                with atomic(index) as path:
                    path.write_text(json.dumps(facts), encoding="utf-8")
    files = [plain(folder / name) for name in facts["shards"]]
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in FIELDS}

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        row = tf.io.parse_single_example(record, spec)
        return {
            name: tf.ensure_shape(tf.io.decode_raw(row[name], tf.int32), [facts["max_length"]]) for name in FIELDS
        }

    return RowStore(facts["rows"], facts["max_length"], epochs_of_shards(files, parse, shuffle_buffer))


def epochs_of_shards(
    files: Sequence[str], parse: Callable[[tf.Tensor], dict[str, tf.Tensor]], shuffle_buffer: int
) -> Callable[[tf.Tensor, int], tf.data.Dataset]:
    """TFRecord files as the `epoch` of a `RowStore`: files in an order of its own, rows shuffled within a buffer."""
    names = tf.constant(list(files))

    def epoch(number: tf.Tensor, seed: int) -> tf.data.Dataset:
        key = tf.stack([tf.cast(seed, tf.int64), number])
        order = tf.random.experimental.stateless_shuffle(names, seed=key)
        rows = tf.data.Dataset.from_tensor_slices(order).interleave(tf.data.TFRecordDataset, cycle_length=4)
        mixed = tf.random.stateless_uniform([], seed=key, minval=1, maxval=2**31 - 1, dtype=tf.int64)
        return _shuffled(rows, shuffle_buffer, seed=mixed).map(parse)

    return epoch


def _shuffled(records: tf.data.Dataset, buffer: int, *, seed: tf.Tensor) -> tf.data.Dataset:
    """`records.shuffle` with a seed that is a tensor: the method asks it for its truth where the global seed is 0."""
    spec = records.element_spec
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=tf.constant(buffer, tf.int64),
        seed=seed,
        seed2=seed,
        reshuffle_each_iteration=False,
        output_types=[spec.dtype],
        output_shapes=[spec.shape],
    )
    return tf.data.experimental.from_variant(variant, spec)


def _read_finished(index: Path, fingerprint: str) -> dict | None:
    """What is known of finished shards; None if they are of something else, damaged or not all there."""
    try:
        facts = json.loads(index.read_text(encoding="utf-8"))
        sizes = [(index.parent / name).stat().st_size for name in facts["shards"]]
        return dict(facts) if facts["fingerprint"] == fingerprint and facts["bytes"] == sizes else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _write_shards(examples: Iterable[Example], folder: Path) -> dict:
    names: list[str] = []
    count = max_length = 0
    stream = iter(examples)
    for first in stream:
        name = f"rows-{len(names):05d}.tfrecord"
        try:
            with named(folder / name), tf.io.TFRecordWriter(plain(folder / name)) as writer:
                for example in chain([first], islice(stream, ROWS_PER_SHARD - 1)):
                    writer.write(_serialized(example))
                    count += 1
                    max_length = len(example.token_ids)
        except Exception:
            _remove_shards(folder)
            raise
        names.append(name)
    sizes = [(folder / name).stat().st_size for name in names]
    return {"rows": count, "max_length": max_length, "shards": names, "bytes": sizes}


def _remove_shards(folder: Path) -> None:
    for shard in folder.glob("rows-*.tfrecord"):
        shard.unlink()


def _serialized(example: Example) -> bytes:
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[getattr(example, name).tobytes()]))
        for name in FIELDS
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

