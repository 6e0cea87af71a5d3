"""Tasks room: a part of the training corpus set aside for validation, without holding the corpus in memory.

What is set aside follows from the corpus, the fraction and a seed alone, so that every mode and every worker finds the
same sentences. Whole documents go to one side. Where documents are short, or every sentence is one because nothing
marks them, runs of at least ten sentences stay together: neighbours come from one text and repeat its names.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from app.config import InputError
from app.data.sentence import Sentence
from app.tasks.tagging.corpus import Corpus
from app.tasks.tagging.labels import spans

BLOCK_SENTENCES = 10


@dataclass(frozen=True)
class _Choice:
    """Which blocks are set aside: one of each `blocks / aside` that follow one another, chosen by the seed.

    Attributes:
        least: a block ends with the first document that brings it to so many sentences.
        blocks: in the corpus.
        aside: how many of them are set aside.
        seed: of the choice.
    """

    least: int
    blocks: int
    aside: int
    seed: int

    def takes(self, block: int) -> bool:
        stratum = block * self.aside // self.blocks
        first = -(-stratum * self.blocks // self.aside)
        end = -(-(stratum + 1) * self.blocks // self.aside)
        digest = hashlib.sha256(f"{self.seed} {stratum}".encode()).digest()
        return block == first + int.from_bytes(digest[:8], "big") % (end - first)


def split_off(corpus: Corpus, *, fraction: float, seed: int) -> tuple[Corpus, Corpus]:
    """The two parts of a corpus: what is trained on, and about `fraction` of its blocks. Reads it once.

    Both parts belong to one label set, that of the whole corpus; a rare type may be missing in either.

    Raises:
        InputError: a fault of the corpus, or it is a single document.
    """
    choice, types = _choose(corpus, fraction=fraction, seed=seed)

    def part(split: str, source: str) -> Corpus:
        def read(*, on_repair: Callable[[int], None] | None, **_: object) -> Iterator[Sentence]:
            return _read_part(corpus, choice, aside=split == "valid", on_repair=on_repair)

        return replace(corpus, source=source, split=split, further_types=types, _read=read)

    percent = f"{100 * fraction:g} %"
    return (
        part("train", f"{corpus.source} (without the {percent} set aside)"),
        part("valid", f"{corpus.source} (the {percent} set aside)"),
    )


def _choose(corpus: Corpus, *, fraction: float, seed: int) -> tuple[_Choice, tuple[str, ...]]:
    """The choice, and the entity types of the whole corpus."""
    types: set[str] = set()
    documents = 0

    def counted() -> Iterator[Sentence]:
        nonlocal documents
        for sentence in corpus.examples():
            documents = sentence.document + 1
            types.update(kind for kind, _, _ in spans(sentence.tags))
            yield sentence

    blocks = 0
    for block, _ in _numbered(counted(), least=BLOCK_SENTENCES):
        blocks = block + 1
    least = BLOCK_SENTENCES
    if fraction * blocks < 1:  # a small corpus: its documents, or sentences, one by one
        least, blocks = 1, documents
    if blocks < 2:
        raise InputError(
            f"{corpus.source} is a single document, of which data.valid_fraction={fraction:g} cannot set a part aside: "
            "mark its documents (-DOCSTART- in columns), or name a file in data.valid_path"
        )
    aside = min(max(1, round(fraction * blocks)), blocks - 1)
    return _Choice(least, blocks, aside, seed), tuple(sorted(types))


def _numbered(sentences: Iterable[Sentence], *, least: int) -> Iterator[tuple[int, Sentence]]:
    """Each sentence with the number of its block."""
    block = in_block = 0
    document = -1
    for sentence in sentences:
        if sentence.document != document and in_block >= least:
            block, in_block = block + 1, 0
        document = sentence.document
        in_block += 1
        yield block, sentence


def _read_part(
    corpus: Corpus, choice: _Choice, *, aside: bool, on_repair: Callable[[int], None] | None
) -> Iterator[Sentence]:
    """The sentences of one part; documents are numbered anew, and repairs counted in this part only."""
    repairs: list[int] = []
    document = before = -1
    for block, sentence in _numbered(corpus.examples(repairs.append), least=choice.least):
        repaired = sum(repairs)
        repairs.clear()
        if choice.takes(block) != aside:
            continue
        if repaired and on_repair:
            on_repair(repaired)
        document += sentence.document != before
        before = sentence.document
        yield replace(sentence, document=document)
