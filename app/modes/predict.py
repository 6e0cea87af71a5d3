"""Modes room: plain text in, answers out, document by document."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from app.config import InputError
from app.data.documents import find_inputs, read_documents, text_keys
from app.data.sentence import surrogate_fault
from app.evaluation.runtimes import build_predictor
from app.run.directory import Request, atomic
from app.run.files import named, open_special
from app.run.screen import heartbeat
from app.tasks.bundle import load_model
from app.tasks.network import TaskModel, build_encoder


def run(request: Request) -> dict[str, float]:
    """Answers the documents of `request.input` and writes the answers to `request.output` (empty: standard output).

    They are JSON lines, or on a terminal the text with its entities marked.
    """
    config = request.config.predict
    counts: dict[str, float] = {"predict/documents": 0}
    with ExitStack() as stack:
        model = load_model(request.run_dir.model)
        keys = text_keys(
            request.config.data, pairs=model.task.segments(model.facts), tables=not model.task.labels_words
        )
        inputs = find_inputs(
            [each for each in (request.input, *request.more_inputs) if each],
            input_format=config.input_format,
            output=request.output,
            keys=keys,
        )
        predictor = build_predictor(
            model, build_encoder(model, request.config.data), batch_size=config.batch_size
        )
        target = stack.enter_context(_output(request.output))
        # Lines on the screen are enough, and a pipe may be silent for as long as it likes.
        watched = bool(request.output) and request.input != "-"
        stack.enter_context(heartbeat(f"writing {request.output}", shown=watched))
        task = model.task
        counts[f"predict/{task.labelled}"] = 0
        show = _shown_in(target, config.format, model, to_file=bool(request.output))
        for documents in read_documents(inputs, keys=keys):
            found = task.answer_texts(model, [document.text for document in documents], predictor, config)
            for document, row in zip(documents, found, strict=True):
                show(document.beside(row))
                counts["predict/documents"] += 1
                counts[f"predict/{task.labelled}"] += task.count_answers(row)
            target.flush()
    return counts


def _shown_in(target: IO[str], form: str, model: TaskModel, *, to_file: bool) -> Callable[[dict], None]:
    """What writes an answer: in colour for a person at a terminal, else as a JSON line."""
    if form == "text" or (form == "auto" and not to_file and target.isatty()):
        return model.task.open_display(target, model.labels).show

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
