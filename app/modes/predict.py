"""Modes room: plain text in, answers out, document by document."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from app.config import Config, InputError
from app.data.documents import Document, text_keys
from app.data.inputs import find_inputs, read_documents, too_many
from app.data.sentence import surrogate_fault
from app.evaluation.layers import answer_with_layers
from app.evaluation.predictor import Predictor
from app.evaluation.ranking import PLACE, Measurer, Ranking, open_other_run
from app.evaluation.runtimes import build_predictor
from app.run.directory import Request, atomic
from app.run.files import named, open_special
from app.run.screen import heartbeat
from app.tasks.bundle import load_model
from app.tasks.network import TaskModel, build_encoder


def run(request: Request) -> dict[str, float]:
    """Answers the documents of `request.input` and writes the answers to `request.output` (empty: standard output).

    They are JSON lines, or on a terminal the text with its entities marked. With `predict.rank` they come when the
    input has ended, sorted by what a person should look at next.
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
            model, build_encoder(model, request.config.data), batch_size=config.batch_size, config=config
        )
        target = stack.enter_context(_output(request.output))
        # Lines on the screen are enough, and a pipe may be silent for as long as it likes.
        watched = bool(config.rank) or (bool(request.output) and request.input != "-")
        activity = "reading all texts, to rank them" if config.rank else f"writing {request.output}"
        stack.enter_context(heartbeat(activity, shown=watched))
        task = model.task
        counts[f"predict/{task.labelled}"] = 0
        show = _shown_in(target, config.format, model, to_file=bool(request.output))
        for rows in (_rank if config.rank else _answer)(read_documents(inputs, keys=keys), predictor, request.config):
            for row in rows:
                show(row)
                counts["predict/documents"] += 1
                counts[f"predict/{task.labelled}"] += task.count_answers(row)
            target.flush()
    return counts


def _answer(
    documents: Iterator[list[Document]], predictor: Predictor, config: Config
) -> Iterator[Iterable[dict[str, Any]]]:
    """Rows as their documents come."""
    for part in documents:
        texts = [document.text for document in part]
        found = answer_with_layers(texts, predictor, config.predict)
        yield (document.beside(row) for document, row in zip(part, found, strict=True))


def _rank(
    documents: Iterator[list[Document]], predictor: Predictor, config: Config
) -> Iterator[Iterable[dict[str, Any]]]:
    """All rows in their order of rank, when the last document has been read; one for each different text."""
    settings, other = config.predict, None
    if settings.other_run:
        other = open_other_run(settings.other_run, predictor.model, batch_size=settings.batch_size)
    measurer = Measurer(predictor, by=settings.rank, config=settings, other=other)
    with closing(Ranking()) as ranking:
        for part in documents:
            if len(ranking) + len(part) > settings.rank_limit:
                raise too_many(settings.rank_limit)
            for document, found in zip(part, measurer.measure([each.text for each in part]), strict=True):
                # What the ranking adds to a row counts as the answer's own: a key of the input is kept beside it.
                ranking.add(document.beside({**found.row, **PLACE}), found)
        yield ranking.rows(top=settings.top, seed=config.seed)


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
