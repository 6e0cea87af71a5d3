"""Feedback room: a sample of the training corpus, learnt again beside corrections so that nothing is forgotten.

Rehearsal is the plainest remedy against catastrophic forgetting (Robins 1995, "Catastrophic Forgetting, Rehearsal and
Pseudorehearsal") and hard to beat (Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from app.feedback.learning import fold_text

BLOCK = 8  # neighbours of one group that are drawn together, so that they keep some of their context


def count_replayed(corrected: int, fraction: float) -> int:
    """Examples to replay beside so many of the corrections for them to be `fraction` of what is learnt."""
    return round(corrected * fraction / (1 - fraction))


def sample_examples(
    read: Callable[[], Iterable[Any]], count: int, *, seed: int, group_of: Callable[[Any], int]
) -> list[Any]:
    """Examples drawn without replacement, in corpus order; all of a corpus that has no more. Reads it twice.

    Args:
        read: the examples from the beginning.
        count: how many.
        seed: of the draw.
        group_of: a number that neighbours of one document share.
    """
    if count <= 0:
        return []
    sizes = [len(block) for block in _blocks(read(), group_of)]
    draw = random.Random(seed)
    left, taken = count, {}
    for number in draw.sample(range(len(sizes)), len(sizes)):
        taken[number] = min(left, sizes[number])
        left -= taken[number]
        if not left:
            break
    return [
        example for number, block in enumerate(_blocks(read(), group_of)) for example in block[: taken.get(number, 0)]
    ]


def without(
    examples: Iterable[Any], texts: Collection[tuple[str, ...]], words_of: Callable[[Any], Sequence[str]]
) -> Iterator[Any]:
    """The examples whose words are none of these texts, in whatever case and Unicode form."""
    folded = {fold_text(" ".join(words)) for words in texts}
    return (example for example in examples if fold_text(" ".join(words_of(example))) not in folded)


def _blocks(examples: Iterable[Any], group_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    block: list[Any] = []
    for example in examples:
        if block and (len(block) == BLOCK or group_of(example) != group_of(block[-1])):
            yield block
            block = []
        block.append(example)
    if block:
        yield block
