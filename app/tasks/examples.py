"""Tasks room: a corpus as the examples that a function reads, for tasks that need no more. Imports nothing heavy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.config import InputError


@dataclass(frozen=True)
class ExampleCorpus:
    """A split of a corpus.

    Attributes:
        source: where it is read from.
        read: its examples from the beginning, anew at each call. Their `repr` tells them apart: they are dataclasses,
            named tuples or plain values.
    """

    source: str
    read: Callable[[], Iterable[Any]] = field(repr=False)

    def examples(self) -> Iterator[Any]:
        return iter(self.read())


@dataclass(frozen=True)
class ExampleSummary:
    """What one pass over a corpus finds.

    Attributes:
        source: where it was read from.
        digest: SHA-256 of the examples in their order.
        examples: number of examples; words: in all of them.
        labels: in the order of their numbers.
    """

    source: str
    digest: str
    examples: int
    words: int
    labels: tuple[str, ...]


def summarize_examples(
    corpus: Any, *, labels_of: Callable[[Any], Iterable[str]], words_of: Callable[[Any], Sequence[str]]
) -> ExampleSummary:
    """Counts a corpus in one pass; its labels are sorted by name.

    Raises:
        InputError: at the first fault of the corpus, or it is empty.
    """
    digest, labels = hashlib.sha256(), set[str]()
    count = words = 0
    for example in corpus.examples():
        count += 1
        words += len(words_of(example))
        labels.update(labels_of(example))
        digest.update(f"{example!r}\n".encode(errors="backslashreplace"))
    if not count:
        raise InputError(f"{corpus.source} holds no example")
    return ExampleSummary(corpus.source, digest.hexdigest(), count, words, tuple(sorted(labels)))


def join_examples(parts: Sequence[Any]) -> ExampleCorpus:
    """Corpora one after the other as one."""
    source = " and ".join(part.source for part in parts)
    return ExampleCorpus(source, lambda: (example for part in parts for example in part.examples()))


def split_off_examples(corpus: Any, *, fraction: float, seed: int) -> tuple[ExampleCorpus, ExampleCorpus]:
    """What is left, and about `fraction` of the examples, at least one. Reads the corpus once.

    Which they are follows from the examples and the seed, not from their order; equal ones go to one side.

    Raises:
        InputError: a fault of the corpus, or it has not two different examples.
    """

    def key_of(example: Any) -> int:
        content = f"{seed} {example!r}".encode(errors="backslashreplace")
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")

    keys = sorted(key_of(example) for example in corpus.examples())
    if not keys or keys[0] == keys[-1]:
        raise InputError(
            f"{corpus.source}: data.valid_fraction={fraction:g} cannot set a part aside, there are no two different "
            "examples: name a file in data.valid_path"
        )
    last = keys[max(1, round(fraction * len(keys))) - 1]
    last = last if last < keys[-1] else max(key for key in keys if key < last)  # something is left to learn from

    def part(source: str, *, aside: bool) -> ExampleCorpus:
        return ExampleCorpus(
            source, lambda: (example for example in corpus.examples() if (key_of(example) <= last) == aside)
        )

    percent = f"{100 * fraction:g} %"
    return (
        part(f"{corpus.source} (without the {percent} set aside)", aside=False),
        part(f"{corpus.source} (the {percent} set aside)", aside=True),
    )
