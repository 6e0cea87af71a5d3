"""Tasks room: sentences of a corpus to packed rows, for training (rows are shared, nothing read twice) and for scoring
(every document for itself, each word with context on both sides).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from app.data.encoding import Encoder
from app.data.packing import IGNORED, EncodedDocument, Example, encode_document, pack
from app.data.sentence import Sentence

DOCUMENTS_PER_CALL = 256  # documents tokenized by one call into TF Text


@dataclass(frozen=True)
class SentenceEncoder(Encoder):
    """Sentences to rows in which the first piece of each word is labelled.

    Attributes:
        by_document: whether the sentences of a document share windows; off, each sentence stands alone.
    """

    by_document: bool = True

    def training_rows(self, sentences: Iterable[Sentence]) -> Iterator[Example]:
        """Rows to learn from: windows of several documents share a row, no piece is read twice.

        Raises:
            AssertionError: the label of a word outside entities, or of an entity's first word, was lost on the way.
        """
        goes_on = np.array([label.startswith("I-") for label in self.labels] + [True])  # the last one is for IGNORED
        expected = found = 0

        def counted() -> Iterator[Sentence]:
            nonlocal expected
            for sentence in sentences:
                expected += sum(not tag.startswith("I-") for tag in sentence.tags)
                yield sentence

        for row in self._rows(counted(), context=0, share_rows=True):
            found += int(np.count_nonzero(~goes_on[row.labels]))
            yield row
        if found != expected:
            raise AssertionError(f"{expected:,} labels were to be learnt, the rows hold {found:,}")

    def scoring_rows(self, sentences: Iterable[Sentence]) -> Iterator[Example]:
        """Rows to score, in corpus order: their cores, read in order, are the words of the corpus in order."""
        return self._rows(sentences, context=self.overlap, share_rows=False)

    def _rows(self, sentences: Iterable[Sentence], *, context: int, share_rows: bool) -> Iterator[Example]:
        return pack(
            self.documents(sentences),
            max_length=self.max_length,
            context=context,
            share_rows=share_rows,
            start_id=self.pieces.start_id,
            pad_id=self.pieces.pad_id,
        )

    def documents(self, sentences: Iterable[Sentence]) -> Iterator[EncodedDocument]:
        """Encodes documents one after the other; words are numbered through the corpus from 0."""
        first_word, group = 0, []
        for document in self._grouped(sentences):
            group.append(document)
            if len(group) == DOCUMENTS_PER_CALL:
                yield from self._encode(group, first_word)
                first_word += sum(len(sentence.words) for document in group for sentence in document)
                group = []
        yield from self._encode(group, first_word)

    def _grouped(self, sentences: Iterable[Sentence]) -> Iterator[list[Sentence]]:
        if not self.by_document:
            return ([sentence] for sentence in sentences)
        return (list(group) for _, group in groupby(sentences, key=lambda sentence: sentence.document))

    def _encode(self, group: list[list[Sentence]], first_word: int) -> Iterator[EncodedDocument]:
        words = [word for document in group for sentence in document for word in sentence.words]
        rows = self.pieces.encode(words)
        shapes = self.shapes(words)
        at = 0
        for document in group:
            words_per_sentence = [len(sentence.words) for sentence in document]
            end = at + sum(words_per_sentence)
            splits = rows.splits[at : end + 1]
            label_ids, inside = self._labels(document, end - at)
            yield encode_document(
                words_per_sentence,
                rows.ids[splits[0] : splits[-1]],
                splits - splits[0],
                shapes[at:end],
                label_ids,
                inside,
                end_id=self.pieces.end_id,
                first_word=first_word + at,
                max_pieces_per_word=self.max_pieces_per_word,
            )
            at = end

    def _labels(self, document: list[Sentence], words: int) -> tuple[np.ndarray, np.ndarray]:
        """Label ids of the words of a document, and which of them continue an entity."""
        if not document[0].tags:
            return np.full(words, IGNORED, np.int32), np.zeros(words, bool)
        ids = {label: i for i, label in enumerate(self.labels)}
        tags = [tag for sentence in document for tag in sentence.tags]
        return np.array([ids[tag] for tag in tags], np.int32), np.array([tag.startswith("I-") for tag in tags])
