"""Tasks room: labelled texts of TensorFlow Datasets, read from their prepared files and never downloaded.

The features are named by the same settings as columns of a file. Class labels give the names of the classes; labels
that are texts or plain numbers are taken as they are.
"""

from collections.abc import Callable, Iterator
from typing import Any

from app.config import InputError
from app.data.tfds import feature_names, open_dataset, read_rows
from app.tasks.classification.labelled_text import RawText, TextFormat, find_columns


def read_tfds_texts(source: str, text_format: TextFormat, *, split: str, labelled: bool) -> Iterator[RawText]:
    """Reads one split ("train", "valid" or "test") of a prepared dataset.

    Raises:
        InputError: the dataset is unknown, not prepared, or has no such split or features; or a text, named by its
            number, that is not UTF-8 or has no label.
    """
    builder = open_dataset(source, tfds_dir=text_format.tfds_dir)
    try:
        names = tuple(feature_names(builder))
        columns = find_columns(names, text_format, labelled=labelled, kind="feature")
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    read_label = _label_reader(builder.info.features[columns.label]) if labelled else lambda _: None
    count = 0
    for count, row in enumerate(read_rows(builder, source, split=split, tfds_dir=text_format.tfds_dir), 1):
        where = f"{source}, split {split}, text {count}"
        try:
            texts = tuple(_plain(row[name]) for name in columns.texts)
            label = read_label(row[columns.label]) if labelled else None
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: invalid UTF-8 (byte 0x{error.object[error.start]:02x})") from error
        yield RawText(texts, label, where, 0)
    if not count:
        raise InputError(f"{source}, split {split} is empty")


def _label_reader(feature: Any) -> Callable[[Any], object]:
    """What makes a label, or a list of them, of the value that a row has; a class number below 0 is none."""
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)

    def read(value: Any) -> object:
        plain = _plain(value)
        if not names:
            return plain
        if isinstance(plain, list):
            return [names[number] for number in plain]
        return names[plain] if isinstance(plain, int) and plain >= 0 else None

    return read


def _plain(value: Any) -> Any:
    """A NumPy value as Python's own, bytes as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
