"""Modes room: plain text in, entities with character offsets out, line by line."""

import json
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO

from app.artifacts import Request, atomic
from app.config import InputError, PredictConfig
from app.data.labels import types_from
from app.data.names import find_names, is_in_path
from app.data.raw_text import Word, split_sentences, split_words
from app.data.sentence import Sentence
from app.evaluation.predictor import Predictor, TaggedSentence
from app.models.tagger import Tagger
from app.models.tagger_bundle import load_tagger
from app.modes.scoring import build_encoder, build_predictor

BYTES_AT_A_TIME = 1 << 16
LONGEST_SENTENCE_WORDS = 512  # far more than any real sentence has; text without punctuation is cut there


def run(request: Request) -> dict[str, float]:
    """Tags `request.input` (`-`: standard input) and writes JSON lines to `request.output` (empty: standard output)."""
    if not request.input:
        raise InputError("--mode=predict needs --input=FILE, or --input=- for standard input")
    config = request.config.predict
    counts: dict[str, float] = {"predict/documents": 0, "predict/entities": 0}
    with ExitStack() as stack:
        source = stack.enter_context(_open(request.input))  # before the model, so that a typing error is told at once
        tagger = load_tagger(request.run_dir.model)
        predictor = build_predictor(
            tagger, build_encoder(tagger, request.config.data), batch_size=config.batch_size
        )
        target = stack.enter_context(_output(request.output))
        place = "standard input" if request.input == "-" else request.input
        for texts in _chunks(source, place=place):
            for row in tag_texts(
                texts,
                predictor,
                split=config.split_sentences,
                min_score=config.min_score,
                non_names=find_non_names(tagger, config),
            ):
                target.write(json.dumps(row, ensure_ascii=False) + "\n")
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
    """Entities of documents, one row a document, offsets in characters of the text as given.

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


def _chunks(source: BufferedReader, *, place: str) -> Iterator[list[str]]:
    """Documents as they come: the lines that are there already are taken together, and nobody waits for more."""
    pending, number = b"", 0
    while block := source.read1(BYTES_AT_A_TIME):
        *lines, pending = (pending + block).split(b"\n")
        if lines:
            yield [_text(line, place=place, number=number + i) for i, line in enumerate(lines, start=1)]
            number += len(lines)
    if pending:
        yield [_text(pending, place=place, number=number + 1)]


def _text(line: bytes, *, place: str, number: int) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place}, line {number}: not UTF-8 at byte {error.start + 1} (0x{line[error.start]:02x}); "
            "convert the text to UTF-8"
        ) from error
    return text.removesuffix("\r")


def _open(path: str) -> BufferedReader:
    if path == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"--input={path} cannot be read: {error.strerror}") from error


@contextmanager
def _output(path: str) -> Iterator[IO[str]]:
    """Standard output, or a file that appears only when it is complete."""
    if not path:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8 whatever the locale
        yield sys.stdout
        return
    with atomic(Path(path)) as waiting, open(waiting, "w", encoding="utf-8") as target:
        yield target
