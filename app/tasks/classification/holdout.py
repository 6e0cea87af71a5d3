"""Tasks room: a part of a training corpus of labelled texts set aside for validation, of each label its share.

What is set aside follows from the texts, their labels, the fraction and a seed, and not from their order: in a file
that is sorted by label, or shuffled anew, the same texts are found. Texts that are there several times with one label
go to one side. Every label keeps a text to learn from.
"""

import hashlib
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from app.config import InputError
from app.tasks.classification.corpus import TextCorpus, text_key
from app.tasks.classification.labelled_text import LabelledText


def split_off_texts(corpus: TextCorpus, *, fraction: float, seed: int) -> tuple[TextCorpus, TextCorpus]:
    """The two parts of a corpus: what is trained on, and about `fraction` of its texts. Reads it once.

    Memory holds a key of eight bytes for each text while it chooses, and for each text that is set aside later.

    Raises:
        InputError: a fault of the corpus, or no text can be set aside.
    """
    aside = _choose(corpus, fraction=fraction, seed=seed)

    def part(split: str, source: str) -> TextCorpus:
        def read() -> Iterator[LabelledText]:
            number = 0
            for text in corpus.examples():
                if (_key(text, seed) in aside) == (split == "valid"):
                    yield replace(text, number=number)
                    number += 1

        return replace(corpus, source=source, split=split, _read=read)

    percent = f"{100 * fraction:g} %"
    return (
        part("train", f"{corpus.source} (without the {percent} set aside)"),
        part("valid", f"{corpus.source} (the {percent} set aside)"),
    )


def _choose(corpus: TextCorpus, *, fraction: float, seed: int) -> frozenset[int]:
    """Keys of the texts that are set aside: of each set of labels the first of its texts in the order of their keys.

    Shares are rounded over all sets together, so that of sets with few texts some give one and the sum is right.
    """
    groups: dict[tuple[str, ...], array[int]] = {}
    for text in corpus.examples():
        groups.setdefault(text.labels, array("Q")).append(_key(text, seed))
    left = Counter(label for labels, keys in groups.items() for _ in set(keys) for label in labels)  # to learn from
    aside: set[int] = set()
    taken = before = 0

    def takes(labels: tuple[str, ...], key: int) -> bool:
        if any(left[label] < 2 for label in labels):
            return False
        aside.add(key)
        left.subtract(labels)
        return True

    for labels, keys in sorted(groups.items()):
        before += len(keys)
        quota = min(round(fraction * before) - taken, math.ceil(fraction * len(keys)))
        for key, count in sorted(Counter(keys).items()):
            if quota < 1:
                break
            if count <= quota and takes(labels, key):
                quota, taken = quota - count, taken + count
    if not aside and not any(takes(labels, min(keys)) for labels, keys in sorted(groups.items())):
        raise InputError(
            f"{corpus.source}: no label has a second text, so data.valid_fraction={fraction:g} cannot set a part "
            "aside: name a file in data.valid_path"
        )
    return frozenset(aside)


def _key(text: LabelledText, seed: int) -> int:
    """Tells a text with its labels from any other, and puts them into an order that is as good as drawn by lot."""
    content = f"{seed} {text_key(text.texts).hex()} {json.dumps(text.labels)}"
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big")
