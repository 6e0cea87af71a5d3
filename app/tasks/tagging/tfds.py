"""Tasks room: corpora of TensorFlow Datasets, read from their prepared files and never downloaded.

Any dataset works that has words in a feature `tokens` and class labels in `ner`, `ner_tags` or `tags`,
named as tags (`O`, `B-PER`, ...). The library marks no documents, so every sentence is a document of its
own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from app.config import InputError
from app.config.paths import plain
from app.data.sentence import Sentence, words_fault
from app.tasks.tagging.labels import decode_tags, detect_scheme, order_fault, tag_fault

PREFIX = "tfds:"
SPLITS = {"train": ("train",), "valid": ("validation", "dev", "valid"), "test": ("test",)}
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
    builder = _builder(_import_tfds(), source, tfds_dir=tfds_dir)
    name = _split_name(builder, source, split)
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
    tfds = _import_tfds()
    builder = _builder(tfds, source, tfds_dir=tfds_dir)
    tag_feature, names = _tag_feature(builder, source)
    name_of_split = _split_name(builder, source, split)
    try:
        dataset = builder.as_dataset(split=name_of_split, shuffle_files=False)
    except AssertionError as error:  # what the library raises where prepared files are missing
        folder = tfds_dir or "~/tensorflow_datasets"
        name = source.removeprefix(PREFIX)
        raise InputError(
            f"{source} is not prepared in {folder}, and this program does not download it: run "
            f"`python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', data_dir='{folder}')"
            '.download_and_prepare()"` once, and set data.tfds_dir to that folder if it is another'
        ) from error
    for row in tfds.as_numpy(dataset):
        words = tuple(word.decode("utf-8", errors="replace") for word in row["tokens"])
        yield words, tuple(names[number] for number in row[tag_feature])


def _import_tfds() -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise InputError("tfds: needs the package tensorflow-datasets, which is not installed") from error
    if not hasattr(tfds, "builder"):  # the package logs its own import errors and carries on without contents
        raise InputError(
            "tfds: the installed tensorflow-datasets does not work, its packages do not fit together: "
            "install the versions of the lock file"
        )
    return tfds


def _builder(tfds: Any, source: str, *, tfds_dir: str) -> Any:
    name = source.removeprefix(PREFIX)
    if not name:
        raise InputError(f"{source!r} names no dataset, expected for example tfds:conll2003")
    try:
        return tfds.builder(name, data_dir=_place(tfds_dir), try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(f"{source}: TensorFlow Datasets knows no dataset {name!r}") from error
    except (ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{source}: {str(error).splitlines()[0]}") from error


def _place(tfds_dir: str) -> str | None:
    """A folder as the library takes it literally; a remote one as it is."""
    return tfds_dir if "://" in tfds_dir else plain(tfds_dir) or None


def _split_name(builder: Any, source: str, split: str) -> str:
    """What the dataset calls the split."""
    known = list(builder.info.splits)
    found = [name for name in SPLITS[split] if name in known or not known]
    if not found:
        raise InputError(f"{source} has no split {' or '.join(SPLITS[split])}; it has {', '.join(known)}")
    return str(found[0])


def _tag_feature(builder: Any, source: str) -> tuple[str, list[str]]:
    """Name of the feature that holds the tags, and the tag of each class number."""
    features = builder.info.features
    names = list(features.keys()) if hasattr(features, "keys") else []
    for name in _TAG_FEATURES:
        labels = getattr(getattr(features[name], "feature", None), "names", None) if name in names else None
        if labels and "tokens" in names:
            return name, list(labels)
    raise InputError(
        f"{source} is no named-entity corpus: it needs the feature tokens and class labels in "
        f"{' or '.join(_TAG_FEATURES)}, it has {', '.join(names) or 'none'}"
    )
