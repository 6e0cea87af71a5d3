"""Modes room: plain text in, entities with character offsets out, document by document."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from app.config import InputError
from app.data.documents import find_inputs, read_documents
from app.data.sentence import surrogate_fault
from app.evaluation.runtimes import build_predictor
from app.run.directory import Request, atomic
from app.run.files import named, open_special
from app.run.screen import heartbeat
from app.tasks.bundle import load_tagger
from app.tasks.network import build_encoder
from app.tasks.tagging.answers import find_non_names, tag_texts
from app.tasks.tagging.display import EntityDisplay
from app.tasks.tagging.labels import types_from


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
