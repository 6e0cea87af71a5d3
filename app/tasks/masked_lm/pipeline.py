"""Tasks room: a text corpus to folders of pretraining records, by Apache Beam on this machine or on a cluster.

No row is ever shuffled between workers: the corpus is cut into units of some megabytes (`text_corpus.plan_units`), and
one call streams one unit into one shard. So memory does not grow with the corpus, a shard depends on its unit and the
settings alone, and a stopped run goes on with the shards that are missing.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import tensorflow as tf
from keras_nlp.tokenizers import compute_word_piece_vocabulary

from app.config import InputError
from app.tasks.masked_lm.records import (
    INDEX,
    RecordFolder,
    RecordIndex,
    Shard,
    fingerprint_of,
    load_index,
    vocabulary_sha256,
)
from app.tasks.masked_lm.rows import FORMS, PieceBlock, RowFormat, Rows, encode_blocks, make_rows
from app.tasks.running_text import Segment, Source, beam, check_documents, find_sources, plan_units, read_unit
from app.text import SPECIAL_PIECES
from app.text.word_pieces import WordPieces

VERSION = 1  # of the rows: raise it when the same settings give other rows
UNIT_BYTES = 8 * 2**20
_PROCESSES_FROM_UNITS = 8  # each process imports TensorFlow first: seconds of all cores, for which less is done in one
_LOCAL_RUNNERS = ("", "DirectRunner", "FnApiRunner")
Unit = tuple[Segment, ...]


@dataclass(frozen=True)
class _Job:
    """What a worker needs besides the unit; it is sent to other processes."""

    folder: RecordFolder
    fingerprint: str
    vocabulary: tuple[str, ...]
    lowercase: bool
    row_format: RowFormat
    seed: int


def write_records(
    source: str | Sequence[str],
    folder: str | os.PathLike[str],
    *,
    vocabulary: Sequence[str],
    lowercase: bool,
    row_format: RowFormat,
    seed: int,
    file_format: str = "auto",
    split: str = "train",
    tfds_dir: str = "",
    unit_bytes: int = UNIT_BYTES,
    beam_options: Sequence[str] = (),
    overwrite: bool = False,
) -> RecordIndex:
    """Makes the records of a corpus, or what is missing of them; finished ones are returned as they are.

    The same arguments give the same bytes, whatever the runner and the number of workers.

    Args:
        source: files, globs or `tfds:NAME`, see `find_sources`.
        folder: of the records; local, or a place that Beam and TensorFlow both write.
        vocabulary: the pieces of the backbone, or of `compute_vocabulary`.
        lowercase: whether the vocabulary is uncased.
        row_format: form and length of the rows.
        seed: of the pairs and of the order of rows in a shard.
        file_format: see `find_sources`.
        split: of a TFDS dataset.
        tfds_dir: see `DataConfig`.
        unit_bytes: bytes of text in a shard.
        beam_options: as on Beam's command line, `["--runner=FlinkRunner", ...]`. Without a runner, all cores here.
        overwrite: replace records made of another corpus or with other settings.

    Raises:
        InputError: a fault of the corpus, named by file and line; the folder holds other records, cannot be written, or
            another process is writing it.
    """
    _check(row_format)
    pieces = WordPieces(vocabulary, lowercase=lowercase)
    sources = find_sources(source, file_format=file_format, split=split, tfds_dir=tfds_dir)
    index = _index_to_be(sources, pieces, row_format, seed=seed, unit_bytes=unit_bytes)
    records = RecordFolder(os.fspath(folder))
    previous = load_index(folder)
    if previous is not None and previous.fingerprint != index.fingerprint:
        if not overwrite:
            raise InputError(f"the records in {folder} were made {_difference(previous, index)}; name another folder")
    units = {_shard_name(i): unit for i, unit in enumerate(plan_units(sources, unit_bytes=unit_bytes))}
    anew = previous is not None and previous.fingerprint != index.fingerprint
    if previous is not None and previous.complete and not anew:
        if units.keys() <= records.finished_shards(index.fingerprint).keys():
            return previous
    with records.locked():
        if anew:
            records.clear()
        records.write(INDEX, index.to_json())
        records.clear_leftovers()
        job = _Job(records, index.fingerprint, tuple(vocabulary), lowercase, row_format, seed)
        finished = records.finished_shards(index.fingerprint)
        _run([(i, units[name]) for i, name in enumerate(units) if name not in finished], job, beam_options)
        finished = records.finished_shards(index.fingerprint)
        complete = replace(index, shards=tuple(finished[name] for name in units))
        check_documents(complete.documents, sources, at_least=2 if row_format.form == "next_sentence" else 1)
        records.write(INDEX, complete.to_json())
    return complete


def _shard_name(number: int) -> str:
    return f"rows-{number:05d}.tfrecord"


def _check(row_format: RowFormat) -> None:
    if row_format.form not in FORMS:
        raise InputError(f"the form of a row must be one of {', '.join(FORMS)}, received {row_format.form!r}")
    if not 8 <= row_format.max_length:
        raise InputError(f"a row must hold at least 8 pieces, received {row_format.max_length}")
    if row_format.share_rows and row_format.form != "masked_lm":
        raise InputError(f"documents can share rows only in the form masked_lm, received {row_format.form!r}")


def _index_to_be(
    sources: Sequence[Source], pieces: WordPieces, row_format: RowFormat, *, seed: int, unit_bytes: int
) -> RecordIndex:
    made_with = {
        "version": VERSION,
        **asdict(row_format),
        "seed": seed,
        "lowercase": pieces.lowercase,
        "unit_bytes": unit_bytes,
        "vocabulary_sha256": vocabulary_sha256(pieces.vocabulary),
    }
    files = [{name: getattr(source, name) for name in ("name", "format", "size", "head")} for source in sources]
    return RecordIndex(fingerprint_of(made_with, files), made_with, files, pieces.pad_id, pieces.start_id)


def _difference(old: RecordIndex, new: RecordIndex) -> str:
    different = {name: value for name, value in new.made_with.items() if old.made_with.get(name) != value}
    changed = ["another vocabulary"] if different.pop("vocabulary_sha256", None) else []
    changed += [f"{name} {old.made_with.get(name)!r} (now {value!r})" for name, value in different.items()]
    return f"with {', '.join(changed)}" if changed else "of another corpus"


def _run(units: Sequence[tuple[int, Unit]], job: _Job, beam_options: Sequence[str]) -> None:
    """Runs the pipeline and raises the first fault it met."""
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    if not units:
        return
    options = PipelineOptions(list(beam_options))
    runner = options.view_as(StandardOptions).runner or ""
    local = runner in _LOCAL_RUNNERS
    if local:
        _check_local_options(beam_options)
    if local and not any(option.startswith("--direct_") for option in beam_options):
        direct = options.view_as(DirectOptions)
        large = len(units) >= _PROCESSES_FROM_UNITS
        direct.direct_num_workers = min(len(os.sched_getaffinity(0)), len(units)) if large else 1
        direct.direct_running_mode = "multi_processing" if direct.direct_num_workers > 1 else "in_memory"
    # Beam's DirectRunner would try to download a runner written in Go first.
    try:
        described = beam.Pipeline(runner=FnApiRunner() if local else runner, options=options)
    except (ValueError, ImportError) as error:
        raise InputError(f"Beam's options {' '.join(beam_options)}: {str(error).splitlines()[0]}") from error
    with described as pipeline:
        units_ = pipeline | "units" >> beam.Create(list(units)) | "spread" >> beam.Reshuffle()
        _ = units_ | "write" >> beam.ParDo(_WriteShard(job))
    if fault := job.folder.first_fault():
        raise InputError(fault)


def _check_local_options(given: Sequence[str]) -> None:
    """Raises InputError for an option Beam would pass over in silence; runners of clusters have their own."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(cast(Any, parser))
    try:
        _, unknown = parser.parse_known_args(list(given))
    except argparse.ArgumentError as error:
        raise InputError(f"pretrain.beam_options {' '.join(given)}: {error}") from error
    if unknown:
        raise InputError(f"pretrain.beam_options {' '.join(given)}: Beam knows no option {unknown[0]!r}")


class _WriteShard(beam.DoFn):
    """One unit to one shard. Yields the number of its rows."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._failed = False

    def setup(self) -> None:
        self._pieces = WordPieces(self._job.vocabulary, lowercase=self._job.lowercase)

    def process(self, element: tuple[int, Unit]) -> Iterator[int]:
        number, unit = element
        if self._failed:  # the run is lost; what other workers finish is used again
            return
        try:
            shard = _write_shard(number, unit, self._job, self._pieces)
        except InputError as error:
            self._failed = True
            self._job.folder.note_fault(number, str(error))
            return
        yield shard.rows


def _write_shard(number: int, unit: Unit, job: _Job, pieces: WordPieces) -> Shard:
    name = _shard_name(number)
    rows = _Unit(unit, job, pieces, np.random.default_rng([job.seed, number]))
    with job.folder.renamed(name) as temporary, tf.io.TFRecordWriter(temporary) as writer:
        for record in rows.records():
            writer.write(record)
    size = job.folder.sizes(name)[name]
    shard = Shard(name, size, rows.rows, rows.pieces, rows.documents, rows.text_bytes)
    job.folder.finish_shard(shard, job.fingerprint)
    return shard


class _Unit:
    """The records of a unit, and what was counted on the way."""

    def __init__(self, unit: Unit, job: _Job, pieces: WordPieces, random: np.random.Generator) -> None:
        self.rows = self.pieces = self.documents = self.text_bytes = 0
        self._unit, self._job, self._word_pieces, self._random = unit, job, pieces, random

    def records(self) -> Iterator[bytes]:
        """Serialized rows, shuffled within each block of text."""
        blocks = self._counted(encode_blocks(self._lines(), self._word_pieces))
        for rows in make_rows(blocks, self._job.row_format, pieces=self._word_pieces, random=self._random):
            count = len(rows["token_ids"])
            self.rows += count
            for i in self._random.permutation(count):
                yield _serialized(rows, i)

    def _lines(self) -> Iterator[str | None]:
        for line in read_unit(self._unit):
            self.text_bytes += len(line.encode("utf-8")) if line else 0
            yield line

    def _counted(self, blocks: Iterator[PieceBlock]) -> Iterator[PieceBlock]:
        for block in blocks:
            self.pieces += len(block.ids)
            self.documents += len(block.document_starts) - 1 - block.continues
            yield block


def _serialized(rows: Rows, i: int) -> bytes:
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[values[i].tobytes()]))
        for name, values in rows.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


# word pieces learnt from a text corpus.


_UNIT_BYTES = 8 * 2**20


def compute_vocabulary(
    source: str | Sequence[str], *, size: int, lowercase: bool, file_format: str = "auto", tfds_dir: str = ""
) -> list[str]:
    """Word pieces of a corpus (the word-piece learner of TF Text, by KerasNLP), special pieces first.

    Texts pass through one by one; only the count of each distinct word is held.

    Args:
        source: files, globs or `tfds:NAME`, see `find_sources`.
        size: how many at most, special pieces included.
        lowercase: make an uncased vocabulary: lower case, accents stripped.
        file_format: see `find_sources`.
        tfds_dir: see `DataConfig`.

    Raises:
        InputError: the corpus is faulty or empty, or the size is too small.
    """
    if size <= len(SPECIAL_PIECES):
        raise InputError(
            f"a vocabulary must have room for more than {', '.join(SPECIAL_PIECES)}; received a size of {size}"
        )
    sources = find_sources(source, file_format=file_format, tfds_dir=tfds_dir)

    def lines() -> Iterator[str]:
        for unit in plan_units(sources, unit_bytes=_UNIT_BYTES):
            yield from (line for line in read_unit(unit) if line)

    if next(lines(), None) is None:  # also names the first fault before tf.data hides it
        raise InputError(f"the corpus {source} is empty: a vocabulary cannot be learnt from it")
    texts = tf.data.Dataset.from_generator(lines, output_signature=tf.TensorSpec([], tf.string))
    try:
        pieces = compute_word_piece_vocabulary(
            texts.batch(512), size, lowercase=lowercase, strip_accents=lowercase, reserved_tokens=list(SPECIAL_PIECES)
        )
    except tf.errors.InvalidArgumentError as error:  # what the generator raised
        raise InputError(f"the corpus {source} cannot be read: {str(error.message).splitlines()[0]}") from error
    return list(pieces)
