"""Data room: datasets of TensorFlow Datasets, read from their prepared files and never downloaded.

Imports the library only when a dataset is opened: it brings TensorFlow in.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.config import InputError
from app.config.paths import plain

PREFIX = "tfds:"
SPLITS = {"train": ("train",), "valid": ("validation", "dev", "valid"), "test": ("test",)}


def open_dataset(source: str, *, tfds_dir: str) -> Any:
    """The builder of a dataset; its features and splits are in `.info`.

    Args:
        source: "tfds:NAME", for example "tfds:conll2003".
        tfds_dir: folder of the prepared datasets; empty for the library's own (`~/tensorflow_datasets`).

    Raises:
        InputError: the library is missing or broken, or knows no such dataset.
    """
    name = source.removeprefix(PREFIX)
    if not name:
        raise InputError(f"{source!r} names no dataset, expected for example tfds:conll2003")
    tfds = _import_tfds()
    try:
        return tfds.builder(name, data_dir=_place(tfds_dir), try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(f"{source}: TensorFlow Datasets knows no dataset {name!r}") from error
    except (ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{source}: {str(error).splitlines()[0]}") from error


def read_rows(builder: Any, source: str, *, split: str, tfds_dir: str) -> Iterator[Any]:
    """The rows of a split ("train", "valid" or "test") as NumPy values by feature, in the order of the files.

    Raises:
        InputError: there is no such split, or the dataset is not prepared.
    """
    name_of_split = split_name(builder, source, split)
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
    yield from _import_tfds().as_numpy(dataset)


def split_name(builder: Any, source: str, split: str) -> str:
    """What the dataset calls the split."""
    known = list(builder.info.splits)
    found = [name for name in SPLITS[split] if name in known or not known]
    if not found:
        raise InputError(f"{source} has no split {' or '.join(SPLITS[split])}; it has {', '.join(known)}")
    return str(found[0])


def feature_names(builder: Any) -> list[str]:
    features = builder.info.features
    return list(features.keys()) if hasattr(features, "keys") else []


def check_tfds_head(source: str, tfds_dir: str) -> None:
    """What can be said of a dataset without the library: that it has a name, and that the folder is there."""
    if source == PREFIX:
        raise InputError(f"{source!r} names no dataset, expected for example tfds:conll2003")
    if tfds_dir and "://" not in tfds_dir and not Path(tfds_dir).is_dir():
        raise InputError(f"data.tfds_dir: {tfds_dir} is no folder; {source} is read from there")


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


def _place(tfds_dir: str) -> str | None:
    """A folder as the library takes it literally; a remote one as it is."""
    return tfds_dir if "://" in tfds_dir else plain(tfds_dir) or None
