"""Compression room: a vocabulary of the word pieces that the text at hand needs."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from app.compression.step import Bench

CONTINUATION = "##"
_SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK)\]")


class TrimVocabulary:
    """Keeps the pieces of the training text and, so that every text stays readable, those of one character."""

    def run(self, bench: Bench) -> None:
        config = bench.config.trim_vocabulary

        def trim(tagger: Any) -> Any:
            vocabulary = tagger.backbone.vocabulary
            counts = bench.count_pieces(tagger)
            ids = choose_pieces(vocabulary, counts, at_least=config.min_piece_count, first=config.kept_first_pieces)
            bench.say(f"trim_vocabulary: {len(ids):,} of {len(vocabulary):,} word pieces stay")
            return bench.cut_vocabulary(tagger, ids)

        bench.once("trim", trim)
        if config.epochs:
            bench.once("train", partial(bench.train, part="train", epochs=config.epochs))


def choose_pieces(vocabulary: Sequence[str], counts: np.ndarray, *, at_least: int, first: int = 0) -> list[int]:
    """Ids of the pieces that stay, ascending.

    A word whose own pieces are gone is cut into smaller ones; single characters, alone and as continuations, are the
    smallest, so no word becomes `[UNK]` that was not one before.

    Args:
        vocabulary: word pieces in id order.
        counts: int [vocabulary], how often the text has each piece.
        at_least: the count from which on a piece stays.
        first: this many pieces from the beginning of the vocabulary are always kept; published ones begin with special
            and single-character pieces, followed by others in order of frequency.
    """
    return [
        number
        for number, piece in enumerate(vocabulary)
        if counts[number] >= at_least
        or number < first
        or len(piece.removeprefix(CONTINUATION)) == 1
        or piece == CONTINUATION
        or _SPECIAL.fullmatch(piece)
    ]
