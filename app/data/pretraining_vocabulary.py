"""Data room: word pieces learnt from a text corpus."""

from collections.abc import Iterator, Sequence

import tensorflow as tf
from keras_nlp.tokenizers import compute_word_piece_vocabulary

from app.config import InputError
from app.data.text_corpus import find_sources, plan_units, read_unit
from app.data.word_pieces import SPECIAL_PIECES

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
