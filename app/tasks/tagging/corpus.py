"""Tasks room: tagged corpora: from any source, what is odd about them, and a part set aside for validation."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import NamedTuple, Protocol

from app.config import DataConfig, InputError
from app.data.sentence import Sentence
from app.tasks.tagging import conll, jsonl
from app.tasks.tagging import tfds as tfds_corpus
from app.tasks.tagging.corpus_heads import is_jsonl
from app.tasks.tagging.labels import labels_from, look_alike, spans, types_from
from app.tasks.tagging.names import find_non_name_types, is_non_name


class _Reader(Protocol):
    """A reader with its source bound; see `read_conll` for the arguments."""

    def __call__(
        self,
        *,
        scheme: str,
        strict: bool,
        types: Iterable[str] | None,
        on_repair: Callable[[int], None] | None,
    ) -> Iterator[Sentence]: ...


@dataclass(frozen=True)
class Corpus:
    """A split of a corpus.

    Attributes:
        source: the path or `tfds:NAME` it is read from.
        split: "train", "valid" or "test".
        scheme: the tagging scheme of the source: "iob1", "iob2" or "iobes".
        strict: whether illegal tag sequences fail instead of being repaired.
        types: the only entity types allowed, or None.
        further_types: types of the label set that are in it whether this corpus has any of them or not.
    """

    source: str
    split: str
    scheme: str
    strict: bool
    types: tuple[str, ...] | None
    _read: _Reader = field(repr=False)
    further_types: tuple[str, ...] = ()

    def examples(self, on_repair: Callable[[int], None] | None = None) -> Iterator[Sentence]:
        """Reads the corpus from its beginning, sentences of a document one after the other.

        Args:
            on_repair: called with the number of repaired tags of each sentence that had any.

        Raises:
            InputError: at the first fault, naming the file and line.
        """
        return self._read(scheme=self.scheme, strict=self.strict, types=self.types, on_repair=on_repair)


@dataclass(frozen=True)
class CorpusSummary:
    """What one pass over a corpus finds.

    Attributes:
        source: where it was read from.
        scheme: the tagging scheme of the source.
        types: entity types, sorted, with `further_types` of the corpus.
        entities: number of entities of each type.
        sentences: number of sentences.
        words: number of words.
        documents: number of documents.
        repaired: number of tags that its scheme forbids where they stood.
        digest: SHA-256 of its sentences: words, tags as IOB2 and document. The same text with the same entities has
            the same one, in whatever file, format or scheme; nothing else has.
        non_name_types: types whose entities are often dates, mail addresses and the like (see `names.py`).
    """

    source: str
    scheme: str
    types: tuple[str, ...]
    entities: dict[str, int]
    sentences: int
    words: int
    documents: int
    repaired: int
    digest: str
    non_name_types: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The label list: O, then B- and I- of each type.

        Raises:
            InputError: the corpus holds no entity.
        """
        try:
            return labels_from(self.types)
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from error


def open_corpus(path: str, *, split: str, config: DataConfig, types: Sequence[str] | None = None) -> Corpus:
    """Opens a corpus; with `data.scheme=auto` this reads it once to decide the scheme.

    Args:
        path: a CoNLL file, a JSON lines file, or `tfds:NAME`.
        split: "train", "valid" or "test"; chooses the split of a TFDS dataset.
        config: format, scheme, strict, tfds_dir.
        types: the entity types of a fixed label set; any other then is an unknown tag. None allows all.

    Raises:
        InputError: the source is missing, empty or, as far as the scheme needs it, malformed.
    """
    if not path:
        raise InputError(f"data.{split}_path is empty, expected a file or tfds:NAME")
    if types is not None:
        labels_from(types)  # names duplicates and an empty set
    read: _Reader
    detect: Callable[[], str]
    if path.startswith(tfds_corpus.PREFIX):
        read = partial(tfds_corpus.read_tfds, path, split=split, tfds_dir=config.tfds_dir)
        detect = partial(tfds_corpus.detect_tfds_scheme, path, split=split, tfds_dir=config.tfds_dir)
    elif is_jsonl(path, config.format):
        read, detect = partial(jsonl.read_jsonl, path), partial(jsonl.detect_jsonl_scheme, path)
    else:
        word, tag = config.word_column, config.tag_column
        read = partial(conll.read_conll, path, word_column=word, tag_column=tag)
        detect = partial(conll.detect_conll_scheme, path, word_column=word, tag_column=tag)
    scheme = detect() if config.scheme == "auto" else config.scheme
    return Corpus(path, split, scheme, config.strict, None if types is None else tuple(types), read)


def join_corpora(parts: Sequence[Corpus]) -> Corpus:
    """Corpora one after the other as one, each read by its own scheme; documents are numbered on."""

    def read(*, on_repair: Callable[[int], None] | None, **_: object) -> Iterator[Sentence]:
        first = 0
        for part in parts:
            document = -1
            for sentence in part.examples(on_repair):
                document = sentence.document
                yield replace(sentence, document=first + document)
            first += document + 1

    return replace(parts[0], source=" and ".join(part.source for part in parts), _read=read)


def summarize(corpus: Corpus) -> CorpusSummary:
    """Counts a corpus in one pass.

    Raises:
        InputError: at the first fault of the corpus.
    """
    entities: Counter[str] = Counter()
    non_names: Counter[str] = Counter()
    sentences = words = documents = repaired = 0
    digest = hashlib.sha256()

    def count_repaired(tags: int) -> None:
        nonlocal repaired
        repaired += tags

    for sentence in corpus.examples(count_repaired):
        sentences += 1
        words += len(sentence.words)
        documents = sentence.document + 1
        digest.update(json.dumps([sentence.words, sentence.tags, sentence.document]).encode("ascii"))
        for kind, first, last in spans(sentence.tags):
            entities[kind] += 1
            non_names[kind] += is_non_name(sentence.words[first:last])
    return CorpusSummary(
        source=corpus.source,
        scheme=corpus.scheme,
        types=tuple(sorted({*entities, *corpus.further_types})),
        entities=dict(sorted(entities.items())),
        sentences=sentences,
        words=words,
        documents=documents,
        repaired=repaired,
        digest=digest.hexdigest(),
        non_name_types=find_non_name_types(entities, non_names),
    )


def check_same_labels(labels: Sequence[str], summary: CorpusSummary) -> None:
    """Fails if a corpus holds entity types that a label list lacks; it may hold fewer.

    Args:
        labels: the label list of the training corpus or of a stored model.
        summary: of the corpus to be scored with it.

    Raises:
        InputError: naming the corpus, the types it adds, and the types known.
    """
    known = types_from(labels)
    added = [kind for kind in summary.types if kind not in known]
    if added:
        raise InputError(
            f"{summary.source} holds entity types that the label set lacks: {', '.join(added)}; "
            f"the label set has {', '.join(known)}"
        )


# What is odd about corpora without being wrong on any line: labels, and text in two of them.


MANY_TYPES = 200
FEW_ENTITIES_EACH = 2  # so few on average, and many types: the labels are names or numbers of the entities themselves
SENTENCE_WORDS = 8  # shorter ones are often the same in unrelated texts
SHARED_PERCENT = 10  # of the sentences of a news corpus, up to seven are in another part of it


def check_types(summary: CorpusSummary) -> list[str]:
    """What a user should know about the labels of a training corpus, a sentence each.

    Raises:
        InputError: there are hundreds of types, and hardly two entities of each.
    """
    types, entities = len(summary.types), sum(summary.entities.values())
    found = []
    if types > MANY_TYPES:
        if entities < FEW_ENTITIES_EACH * types:
            raise InputError(
                f"{summary.source} has {types:,} entity types for {entities:,} entities "
                f"({', '.join(summary.types[:3])}, ...): they seem to be something else; data.tag_column says which "
                "column of a file has the tags"
            )
        found.append(f"{summary.source} has {types:,} entity types: are the tags in another column (data.tag_column)?")
    for _, group in groupby(sorted(summary.types, key=look_alike), key=look_alike):
        alike = list(group)
        if len(alike) > 1:
            found.append(
                f"{summary.source} has entity types that differ only in case or in how Unicode writes them: "
                f"{', '.join(map(ascii, alike))}; they are learnt as different types"
            )
    return found


def check_scored(summary: CorpusSummary) -> list[str]:
    """The same of a corpus that is scored."""
    if summary.entities:
        return []
    return [f"{summary.source} holds no entity: entity F1 on it says nothing"]


@dataclass(frozen=True)
class SharedText:
    """What a corpus has in common with the training corpus.

    Attributes:
        sentences: of at least 8 words that are in both, word for word.
        of_sentences: those in the corpus.
        documents: of several sentences that are in both as a whole.
    """

    sentences: int
    of_sentences: int
    documents: int

    @property
    def is_worth_a_warning(self) -> bool:
        return bool(self.documents) or 100 * self.sentences > SHARED_PERCENT * self.of_sentences


def find_shared_text(train: Corpus, others: Mapping[str, Corpus]) -> dict[str, SharedText]:
    """How much of other corpora is in the training corpus too, by their names. Reads every corpus once.

    Memory holds a digest of each sentence and document of the others.
    """
    digests = {name: Counter(_digests(corpus)) for name, corpus in others.items()}
    wanted = set().union(*digests.values())
    found = {each for each in _digests(train) if each in wanted}
    return {
        name: SharedText(
            sentences=sum(count for each, count in counts.items() if each in found and not each.document),
            of_sentences=sum(count for each, count in counts.items() if not each.document),
            documents=sum(count for each, count in counts.items() if each in found and each.document),
        )
        for name, counts in digests.items()
    }


class _Digest(NamedTuple):
    """Of a sentence, or of a document."""

    value: bytes
    document: bool


def _digests(corpus: Corpus) -> Iterator[_Digest]:
    """Those of long sentences, and of documents that have several sentences, one of them long."""
    for _, sentences in groupby(corpus.examples(), key=lambda sentence: sentence.document):
        document, count, any_long = hashlib.blake2b(digest_size=8), 0, False
        for sentence in sentences:
            text = "\n".join(sentence.words).encode()
            document.update(text + b"\n\n")
            count += 1
            if len(sentence.words) >= SENTENCE_WORDS:
                any_long = True
                yield _Digest(hashlib.blake2b(text, digest_size=8).digest(), False)
        if count > 1 and any_long:
            yield _Digest(document.digest(), True)


def describe_shared_text(found: Mapping[str, SharedText], sources: Mapping[str, str]) -> list[str]:
    """A sentence for each corpus that has too much in common with the training corpus."""
    return [
        f"{sources[name]}: {each.sentences:,} of {each.of_sentences:,} sentences of {SENTENCE_WORDS} words or more"
        f"{f' and {each.documents:,} whole document(s)' if each.documents else ''} are in the training corpus too, so "
        "scores on it are too good"
        for name, each in found.items()
        if each.is_worth_a_warning
    ]


# A part of the training corpus set aside for validation, without holding the corpus in memory.
#
# What is set aside follows from the corpus, the fraction and a seed alone, so that every mode and every worker finds
# the same sentences. Whole documents go to one side. Where documents are short, or every sentence is one because
# nothing marks them, runs of at least ten sentences stay together: neighbours come from one text and repeat its names.


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
