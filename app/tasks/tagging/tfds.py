"""Tasks room: corpora of TensorFlow Datasets, read from their prepared files and never downloaded.

Any dataset works that has words in a feature `tokens` and class labels in `ner`, `ner_tags` or `tags`,
named as tags (`O`, `B-PER`, ...). The library marks no documents, so every sentence is a document of its
own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from app.config import InputError
from app.data.sentence import Sentence, words_fault
from app.data.tfds import PREFIX, feature_names, open_dataset, read_rows, split_name
from app.tasks.tagging.labels import decode_tags, detect_scheme, order_fault, tag_fault

_TAG_FEATURES = ("ner", "ner_tags", "tags")
_Row = tuple[tuple[str, ...], tuple[str, ...]]  # words, tags


def read_tfds(
    source: str,
    *,
    split: str,
    tfds_dir: str = "",
    scheme: str = "auto",
    strict: bool = False,
    types: Iterable[str] | None = None,
    on_repair: Callable[[int], None] | None = None,
) -> Iterator[Sentence]:
    """Reads one split of a prepared TensorFlow dataset as IOB2 sentences.

    Args:
        source: "tfds:NAME", for example "tfds:conll2003".
        split: "train", "valid" or "test".
        tfds_dir: folder of the prepared datasets; empty for the library's own (`~/tensorflow_datasets`).
        scheme: as in `read_conll`.
        strict: as in `read_conll`.
        types: as in `read_conll`.
        on_repair: as in `read_conll`.

    Raises:
        InputError: the dataset is unknown, not prepared, or has no such split or features; or a bad
            sentence, named by its number.
    """
    if scheme == "auto":
        scheme = detect_tfds_scheme(source, split=split, tfds_dir=tfds_dir)
    allowed = None if types is None else set(types)
    document = -1
    for document, (words, tags) in enumerate(_read_rows(source, split=split, tfds_dir=tfds_dir)):
        where = f"{source}, split {split}, sentence {document + 1}"
        if fault := _row_fault(words, tags, scheme=scheme, types=allowed):
            raise InputError(f"{where}: {fault}")
        decoded, repaired = decode_tags(tags, scheme)
        if repaired and strict:
            raise InputError(f"{where}: {order_fault(tags, scheme)[1]}")
        if repaired and on_repair:
            on_repair(repaired)
        yield Sentence(words, decoded, document)
    if document < 0:
        raise InputError(f"{source}, split {split} is empty: it holds no sentence")


def detect_tfds_scheme(source: str, *, split: str, tfds_dir: str = "") -> str:
    """Decides the scheme of a split from its tags."""
    rows = _read_rows(source, split=split, tfds_dir=tfds_dir)
    return detect_scheme(tags for _, tags in rows if not any(tag_fault(tag, "auto") for tag in tags))


def describe_tfds(source: str, *, split: str, tfds_dir: str = "") -> tuple[str, int]:
    """Full name with version and split, and the number of rows (0 where it is not prepared)."""
    builder = open_dataset(source, tfds_dir=tfds_dir)
    name = split_name(builder, source, split)
    rows = builder.info.splits[name].num_examples if name in builder.info.splits else 0
    return f"{PREFIX}{builder.info.full_name}/{name}", int(rows)


def _row_fault(
    words: tuple[str, ...], tags: tuple[str, ...], *, scheme: str, types: Collection[str] | None
) -> str:
    if len(words) != len(tags):
        return f"{len(words)} words but {len(tags)} tags"
    faults = (tag_fault(tag, scheme, types) for tag in tags)
    return words_fault(words) or next(filter(None, faults), "")


def _read_rows(source: str, *, split: str, tfds_dir: str) -> Iterator[_Row]:
    """Words and tags as they stand in the dataset."""
    builder = open_dataset(source, tfds_dir=tfds_dir)
    tag_feature, names = _tag_feature(builder, source)
    for row in read_rows(builder, source, split=split, tfds_dir=tfds_dir):
        words = tuple(word.decode("utf-8", errors="replace") for word in row["tokens"])
        yield words, tuple(names[number] for number in row[tag_feature])


def _tag_feature(builder: Any, source: str) -> tuple[str, list[str]]:
    """Name of the feature that holds the tags, and the tag of each class number."""
    features, names = builder.info.features, feature_names(builder)
    for name in _TAG_FEATURES:
        labels = getattr(getattr(features[name], "feature", None), "names", None) if name in names else None
        if labels and "tokens" in names:
            return name, list(labels)
    raise InputError(
        f"{source} is no named-entity corpus: it needs the feature tokens and class labels in "
        f"{' or '.join(_TAG_FEATURES)}, it has {', '.join(names) or 'none'}"
    )
