"""Modes room: plain text in, entities with character offsets out, document by document."""

import json
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO

from app.artifacts import Request, atomic
from app.config import InputError, PredictConfig
from app.data.documents import find_inputs, read_documents
from app.data.labels import types_from
from app.data.names import find_names, is_in_path
from app.data.raw_text import Word, split_sentences, split_words
from app.data.sentence import Sentence, surrogate_fault
from app.evaluation.predictor import Predictor, TaggedSentence
from app.files import named, open_special
from app.heartbeat import heartbeat
from app.models.tagger import Tagger
from app.models.tagger_bundle import load_tagger
from app.modes.entity_display import EntityDisplay
from app.modes.scoring import build_encoder, build_predictor

LONGEST_SENTENCE_WORDS = 512  # far more than any real sentence has; text without punctuation is cut there


def run(request: Request) -> dict[str, float]:
    """Tags the documents of `request.input` and writes the answers to `request.output` (empty: standard output).

    They are JSON lines, or on a terminal the text with its entities marked.
    """
    config = request.config.predict
    counts: dict[str, float] = {"predict/documents": 0, "predict/entities": 0}
    with ExitStack() as stack:
        inputs = find_inputs(  # before the model, so that a typing error is told at once
            [each for each in (request.input, *request.more_inputs) if each],
            input_format=config.input_format,
            output=request.output,
        )
        tagger = load_tagger(request.run_dir.model)
        predictor = build_predictor(
            tagger, build_encoder(tagger, request.config.data), batch_size=config.batch_size
        )
        target = stack.enter_context(_output(request.output))
        # Lines on the screen are enough, and a pipe may be silent for as long as it likes.
        watched = bool(request.output) and request.input != "-"
        stack.enter_context(heartbeat(f"writing {request.output}", shown=watched))
        show = _shown_in(target, config.format, types_from(tagger.labels), to_file=bool(request.output))
        non_names = find_non_names(tagger, config)
        for documents in read_documents(inputs):
            found = tag_texts(
                [document.text for document in documents],
                predictor,
                split=config.split_sentences,
                min_score=config.min_score,
                non_names=non_names,
            )
            for document, row in zip(documents, found, strict=True):
                show(document.fields | row)
                counts["predict/documents"] += 1
                counts["predict/entities"] += len(row["entities"])
            target.flush()
    return counts


def tag_texts(
    texts: list[str],
    predictor: Predictor,
    *,
    split: bool = True,
    min_score: float = 0.0,
    non_names: Collection[str] = (),
) -> Iterator[dict]:
    """Entities of documents, one row per document, offsets in characters of the text as given.

    Args:
        texts: one document each, of any length.
        predictor: of the model to use.
        split: split documents into sentences; off, a document is one sentence.
        min_score: entities below it are left out.
        non_names: types that need be no names, see `names.find_names`.

    Yields:
        `{"text", "entities": [{"start", "end", "label", "text", "score"}]}`; the score is the smallest posterior
        probability among the tags of the entity's words.
    """
    rows = [split_sentences(text) if split else [split_words(text)] for text in texts]
    rows = [[part for words in sentences for part in _parts(words)] for sentences in rows]
    flat = [
        Sentence(tuple(text[word.start : word.end] for word in words), (), number)
        for number, (text, sentences) in enumerate(zip(texts, rows, strict=True))
        for words in sentences
    ]
    tagged = predictor.tag(flat, probabilities=True)
    for text, sentences in zip(texts, rows, strict=True):
        entities: list[dict] = []
        for words, found in zip(sentences, islice(tagged, len(sentences)), strict=True):
            entities.extend(_entities(text, words, found, non_names))
        yield {"text": text, "entities": [entity for entity in entities if entity["score"] >= min_score]}


def find_non_names(tagger: Tagger, config: PredictConfig) -> tuple[str, ...]:
    """Entity types that need be no names: those that the training corpus shows, or all."""
    return tagger.non_name_types if config.drop_non_names else tuple(types_from(tagger.labels))


def _parts(words: list[Word]) -> Iterator[list[Word]]:
    """A sentence in runs of bounded length: decoding takes as many steps as the longest sentence has words."""
    return (words[at : at + LONGEST_SENTENCE_WORDS] for at in range(0, len(words), LONGEST_SENTENCE_WORDS))


def _entities(text: str, words: list[Word], found: TaggedSentence, non_names: Collection[str]) -> Iterator[dict]:
    spelled = [text[word.start : word.end] for word in words]
    for name in find_names(spelled, found.tags, non_names):
        start, end = words[name.first].start, words[name.last - 1].end
        if name.label not in non_names and is_in_path(text, start, end):
            continue
        score = round(float(found.probabilities[name.sure_first : name.sure_last].min()), 4)
        yield {"start": start, "end": end, "label": name.label, "text": text[start:end], "score": min(score, 1.0)}


def _shown_in(target: IO[str], form: str, types: list[str], *, to_file: bool) -> Callable[[dict], None]:
    """What writes an answer: in colour for a person at a terminal, else as a JSON line."""
    if form == "text" or (form == "auto" and not to_file and target.isatty()):
        return EntityDisplay(target, types).show

    def write(row: dict) -> None:
        line = json.dumps(row, ensure_ascii=False)
        # What comes back with an answer may hold half of a surrogate pair, which only an escape can write.
        target.write((json.dumps(row) if surrogate_fault(line) else line) + "\n")

    return write


@contextmanager
def _output(path: str) -> Iterator[IO[str]]:
    """Standard output, a device or pipe, or a file that appears only when it is complete."""
    if not path:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8 whatever the locale
        yield sys.stdout
        return
    try:
        special = open_special(path)
    except OSError as error:
        raise InputError(f"--output={path} cannot be written: {error.strerror}") from error
    if special:
        with named(path), special:
            yield special
        return
    with atomic(Path(path)) as waiting, open(waiting, "w", encoding="utf-8") as target:
        yield target
