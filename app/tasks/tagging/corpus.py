"""Tasks room: one corpus from any source, read from the start as often as wanted, never held in memory."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from app.config import DataConfig, InputError
from app.data.sentence import Sentence
from app.tasks.tagging import conll, jsonl
from app.tasks.tagging import tfds as tfds_corpus
from app.tasks.tagging.corpus_heads import is_jsonl
from app.tasks.tagging.labels import labels_from, spans, types_from
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
