"""Tasks room: the beginnings of corpora and texts, looked into within milliseconds, before TensorFlow is imported.

What is found here is found again by the readers, which read everything.
"""

import glob
import gzip
import os
import zlib
from collections.abc import Sequence

from app.config import Config, DataConfig, InputError
from app.config.paths import escape_existing, split_list
from app.data.sentence import DOCUMENT_MARK
from app.data.text_lines import read_lines
from app.data.tfds import PREFIX, check_tfds_head
from app.tasks.tagging.conll import check_conll_head
from app.tasks.tagging.labels import types_from

HEAD_BYTES = 2**17
_MOST_FILES = 16  # of a glob, that are looked into
_MAGIC = frozenset("*?[")
_JSON_ENDINGS = (".jsonl", ".json")
_TABLE_ENDINGS = (".csv", ".tsv", ".tab")


def is_jsonl(path: str, file_format: str) -> bool:
    """Whether a labelled corpus is read as JSON lines."""
    if file_format != "auto":
        return file_format == "jsonl"
    return path.lower().removesuffix(".gz").endswith(_JSON_ENDINGS)


def check_corpus_head(path: str, *, config: DataConfig, types: Sequence[str] | None = None) -> None:
    """Looks into a labelled corpus.

    Args:
        path: a file or `tfds:NAME`, of which only the folder is looked for.
        config: format, scheme, tfds_dir.
        types: the only entity types allowed, or None.

    Raises:
        InputError: the corpus is missing, or there is a fault near its beginning.
    """
    if path.startswith(PREFIX):
        check_tfds_head(path, config.tfds_dir)
    elif is_jsonl(path, config.format):
        from app.tasks.tagging.jsonl import check_jsonl_head  # its patterns take a moment

        check_jsonl_head(path, scheme=config.scheme, types=types, at_most_bytes=HEAD_BYTES)
    else:
        columns = {"word_column": config.word_column, "tag_column": config.tag_column}
        check_conll_head(path, scheme=config.scheme, types=types, at_most_bytes=HEAD_BYTES, **columns)


def check_split_head(path: str, *, config: Config, split: str, labels: Sequence[str] | None = None) -> None:
    """What can be known of a split before TensorFlow is there; raises InputError."""
    try:
        check_corpus_head(path, config=config.data, types=None if labels is None else types_from(labels))
    except InputError as error:
        if os.path.isdir(path) or (os.path.exists(path) and path.lower().removesuffix(".gz").endswith(_TABLE_ENDINGS)):
            raise InputError(f"{error}; labelled texts, one label each, need --set task=classification") from error
        raise


def check_text_head(source: str, *, tfds_dir: str = "") -> None:
    """Looks into running text as `find_sources` reads it: files, globs or `tfds:NAME`, parted by commas.

    Raises:
        InputError: nothing matches, all files are empty, or there is a fault near the beginning of one.
    """
    size = 0
    for pattern in split_list(source):
        if pattern.startswith(PREFIX):
            check_tfds_head(pattern, tfds_dir)
        if pattern.startswith(PREFIX) or "://" in pattern or "**" in pattern:
            return  # the libraries that read these know more
        found = _matching(pattern)
        for path in found[:_MOST_FILES]:
            _check_text_file(path)
        size += sum(os.path.getsize(path) for path in found)
    if not size:
        raise InputError(f"the corpus is empty: {source}")


def _matching(pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        raise InputError(f"{pattern} is a folder: name its files, for example {os.path.join(pattern, '*.txt')}")
    if os.path.exists(pattern):
        return [pattern]
    found = glob.glob(escape_existing(pattern), include_hidden=True) if _MAGIC & set(pattern) else []
    if not found:
        raise InputError(f"no file matches {pattern}")
    return sorted(filter(os.path.isfile, found))


def _check_text_file(path: str) -> None:
    name = path.lower().removesuffix(".gz")
    if name.endswith(_JSON_ENDINGS):
        check_corpus_head(path, config=DataConfig(format="jsonl"))
    elif name.endswith(".conll") or _head(path).lstrip().startswith(DOCUMENT_MARK.encode()):
        check_corpus_head(path, config=DataConfig(format="conll"))
    else:
        for number, line in read_lines(path, at_most_bytes=HEAD_BYTES):
            if "\0" in line:
                raise InputError(f"{path}, line {number}: a NUL byte: this is a binary file, not text")


def _head(path: str) -> bytes:
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            return bytes(file.read(256)).removeprefix(b"\xef\xbb\xbf")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
