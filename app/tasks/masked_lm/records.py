"""Tasks room: folders of pretraining records, read. `pretraining_pipeline` writes them.

- `records.json`: what the rows were made of and with, and the list of shards
- `rows-00000.tfrecord`: one unit of the corpus, `tf.train.Example`s whose features are int32 arrays as bytes
- `rows-00000.json`: what is in it; written after the shard, so it marks a finished one
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf

from app.config import InputError
from app.config.paths import plain, real_names
from app.data.dataset import RowStore, epochs_of_shards
from app.run.directory import locked_folder
from app.run.files import named
from app.tasks.masked_lm.rows import NO_PAIR
from app.tasks.running_text import FileSystems

INDEX = "records.json"


@dataclass(frozen=True)
class Shard:
    """One file of rows.

    Attributes:
        name: file name.
        size: bytes of the file.
        rows: how many it holds.
        pieces: word pieces of the corpus in it, special pieces and padding not counted.
        documents: documents it was made of.
        text_bytes: their text in UTF-8.
    """

    name: str
    size: int
    rows: int
    pieces: int
    documents: int
    text_bytes: int


@dataclass(frozen=True)
class RecordIndex:
    """`records.json`.

    Attributes:
        fingerprint: of `made_with` and `sources`.
        made_with: every setting the rows depend on, the digest of the vocabulary included.
        sources: name, size and digest of the first bytes of every file of the corpus.
        pad_id: piece id of `[PAD]`.
        start_id: piece id of `[CLS]`.
        shards: the files; none while they are being written.
    """

    fingerprint: str
    made_with: dict[str, Any]
    sources: list[dict[str, Any]]
    pad_id: int
    start_id: int
    shards: tuple[Shard, ...] = ()

    @property
    def complete(self) -> bool:
        return bool(self.shards)

    @property
    def form(self) -> str:
        return str(self.made_with["form"])

    @property
    def max_length(self) -> int:
        return int(self.made_with["max_length"])

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def pieces(self) -> int:
        return sum(shard.pieces for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        return sum(shard.text_bytes for shard in self.shards)

    def to_json(self) -> str:
        totals = {name: getattr(self, name) for name in ("complete", "rows", "pieces", "documents", "text_bytes")}
        return json.dumps({**asdict(self), **totals}, indent=1, ensure_ascii=False) + "\n"


def fingerprint_of(made_with: dict[str, Any], sources: list[dict[str, Any]]) -> str:
    text = json.dumps([made_with, sources], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def vocabulary_sha256(vocabulary: Sequence[str]) -> str:
    """Digest of the pieces in their order, one a line."""
    return hashlib.sha256("".join(f"{piece}\n" for piece in vocabulary).encode("utf-8")).hexdigest()


def load_index(folder: str | os.PathLike[str]) -> RecordIndex | None:
    """Reads `records.json`; None where there is none.

    Raises:
        InputError: it is not one of this program.
    """
    path = tf.io.gfile.join(plain(folder), INDEX)
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            facts = json.loads(file.read())
        shards = tuple(Shard(**shard) for shard in facts["shards"])
        names = ("fingerprint", "made_with", "sources", "pad_id", "start_id")
        return RecordIndex(**{name: facts[name] for name in names}, shards=shards)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{real_names(path)} is not an index of pretraining records ({type(error).__name__}); delete its folder to "
            "make others"
        ) from error


def read_records(
    folder: str | os.PathLike[str],
    *,
    vocabulary: Sequence[str] | None = None,
    lowercase: bool | None = None,
    max_length: int | None = None,
    form: str | None = None,
    shuffle_buffer: int = 4096,
) -> RowStore:
    """Opens a folder of records. What is given must be what the records were made with.

    Args:
        folder: local or any place TensorFlow reads.
        vocabulary: the pieces of the backbone.
        lowercase: whether the backbone is uncased.
        max_length: pieces in a row.
        form: "masked_lm", "next_sentence" or "sentence_order".
        shuffle_buffer: rows held for shuffling; shards are also read in another order in each epoch.

    Returns:
        A store whose batches hold int32 token_ids, segment_ids, padding_mask [batch, length] and pair_label [batch].
        padding_mask is 0 at padding, else the number of the document in its row: 1 unless rows are shared. pair_label
        is -1 where a row has no pair.

    Raises:
        InputError: no finished records, other settings, or a shard is missing or truncated.
    """
    folder = os.fspath(folder)
    index = load_index(folder)
    if index is None or not index.complete:
        state = "are not finished: run the command that makes them again" if index else f"are missing: no {INDEX}"
        raise InputError(f"the pretraining records in {folder} {state}")
    _check_made_with(
        folder,
        index,
        vocabulary_sha256=None if vocabulary is None else vocabulary_sha256(vocabulary),
        lowercase=lowercase,
        max_length=max_length,
        form=form,
    )
    files = [_checked_shard(folder, shard) for shard in index.shards if shard.rows]
    length = index.max_length
    empty_row = {
        "token_ids": tf.fill([length], index.pad_id),
        "segment_ids": tf.zeros([length], tf.int32),
        "padding_mask": tf.zeros([length], tf.int32),
        "pair_label": tf.constant(NO_PAIR),
    }
    names = ["token_ids"] if index.form == "masked_lm" else ["token_ids", "segment_ids", "pair_label"]
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        raw = tf.io.parse_single_example(record, features)
        row = {name: tf.reshape(tf.io.decode_raw(raw[name], tf.int32), empty_row[name].shape) for name in names}
        tokens = row["token_ids"]
        number = tf.cumsum(tf.cast(tokens == index.start_id, tf.int32))
        return {**empty_row, **row, "padding_mask": tf.where(tokens == index.pad_id, 0, number)}

    epoch = epochs_of_shards(files, parse, shuffle_buffer)
    return RowStore(index.rows, length, epoch, empty_row=empty_row)


def find_damaged_shard(folder: str | os.PathLike[str]) -> str:
    """Reads all records again and returns the path of the first file whose checksums are wrong; empty if none is."""
    index = load_index(folder)
    for shard in index.shards if index else ():
        path = tf.io.gfile.join(plain(folder), shard.name)
        try:
            for _ in tf.data.TFRecordDataset(path).batch(1024):
                pass
        except tf.errors.DataLossError:
            return real_names(str(path))
    return ""


def _check_made_with(folder: str, index: RecordIndex, **expected: Any) -> None:
    for name, wanted in expected.items():
        made = index.made_with[name]
        if wanted is not None and wanted != made:
            if name == "vocabulary_sha256":
                raise InputError(f"the records in {folder} were made with another vocabulary (SHA-256 {made[:12]}..., "
                                 f"the backbone's is {wanted[:12]}...)")  # fmt: skip
            raise InputError(f"the records in {folder} were made with {name} {made}, received {wanted}")


def _checked_shard(folder: str, shard: Shard) -> str:
    path = tf.io.gfile.join(plain(folder), shard.name)
    name = real_names(path)
    if not tf.io.gfile.exists(path):
        raise InputError(f"{name} is missing: run the command that makes the records again, it makes what is missing")
    size = tf.io.gfile.stat(path).length
    if size != shard.size:
        raise InputError(f"{name} is truncated or another file: {size:,} bytes, {INDEX} says {shard.size:,}")
    return str(path)


# The files of a folder of pretraining records, written through Beam's file systems, local or remote.
#
# A file appears under its name only when it is complete.


_TEMPORARY = ".tmp-"


class RecordFolder:
    """A folder of records; making one touches no file. It can be sent to other processes.

    Beam takes names for patterns, even those of files to delete, so it gets `plain` ones.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other processes of this machine from writing it. A kill frees the lock.

        A remote folder is not locked: Beam's file systems have no locks.

        Raises:
            InputError: the folder cannot be made, or another process holds the lock.
        """
        self._make()
        if "://" in self.path:
            yield
            return
        with locked_folder(self.path, otherwise="name another folder"):
            yield

    def _make(self) -> None:
        try:
            if not FileSystems.exists(self.path):
                FileSystems.mkdirs(self.path)
        except OSError as error:
            if not FileSystems.exists(self.path):  # another worker may have made it meanwhile
                raise InputError(f"the folder {self.path} cannot be made: {error}") from error

    def join(self, name: str) -> str:
        return str(FileSystems.join(self.path if "://" in self.path else plain(self.path), name))

    def sizes(self, pattern: str) -> dict[str, int]:
        """File names that match, sorted, and their bytes."""
        found = FileSystems.match([self.join(pattern)])[0].metadata_list
        return dict(sorted((FileSystems.split(file.path)[1], file.size_in_bytes) for file in found))

    def read(self, name: str) -> str:
        with FileSystems.open(self.join(name)) as file:
            return str(file.read().decode("utf-8"))

    def write(self, name: str, text: str) -> None:
        with self.renamed(name) as temporary, FileSystems.create(temporary) as file:
            file.write(text.encode("utf-8"))

    @contextlib.contextmanager
    def renamed(self, name: str) -> Iterator[str]:
        """Yields a temporary path, which gets its name when the block succeeds. Two workers may do the same."""
        self._make()
        temporary = self.join(f"{_TEMPORARY}{uuid.uuid4().hex}-{name}")
        try:
            with named(f"{self.path}/{name}"):
                yield temporary
        except BaseException:
            self._delete([temporary] if FileSystems.exists(temporary) else [])
            raise
        FileSystems.rename([temporary], [self.join(name)])

    def finish_shard(self, shard: Shard, fingerprint: str) -> None:
        """Marks a shard as finished; called when its rows are written."""
        facts = {"fingerprint": fingerprint, "shard": asdict(shard)}
        self.write(shard.name.replace(".tfrecord", ".json"), json.dumps(facts))

    def finished_shards(self, fingerprint: str) -> dict[str, Shard]:
        """The shards made under this fingerprint whose file has the size that was noted, by name."""
        sizes = self.sizes("rows-*")
        finished = {}
        for name in sizes:
            if name.endswith(".json"):
                facts = json.loads(self.read(name))
                shard = Shard(**facts["shard"])
                if facts["fingerprint"] == fingerprint and sizes.get(shard.name) == shard.size:
                    finished[shard.name] = shard
        return finished

    def note_fault(self, number: int, message: str) -> None:
        self.write(f"rows-{number:05d}.fault", message)

    def first_fault(self) -> str:
        """What the earliest unit with a fault was refused for; empty if there is none."""
        return next((self.read(name) for name in self.sizes("rows-*.fault")), "")

    def clear_leftovers(self) -> None:
        """Deletes what a killed or refused run left that is of no use to the next."""
        self._delete([self.join(name) for name in (*self.sizes(f"{_TEMPORARY}*"), *self.sizes("rows-*.fault"))])

    def clear(self) -> None:
        """Deletes all records, the index first: what a kill leaves of them is not taken for whole."""
        self._delete([self.join(INDEX), *(self.join(name) for name in self.sizes("rows-*"))])

    def _delete(self, paths: list[str]) -> None:
        if paths:
            FileSystems.delete(paths)
