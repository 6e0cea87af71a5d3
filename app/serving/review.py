"""Serving room: what people say about answers, what waits for their review, and which version goes live.

This adds to the server's routes:

    POST   /feedback   corrections are stored        GET  /feedback   the latest ones
    DELETE /feedback   what an author said, or what was said about a text, is deleted
    POST   /queue      texts wait for review         GET  /queue      those that are worth most first
    GET    /versions   versions and how often people agreed with them
    POST   /promote    a version becomes stable      POST /rollback   the one before it does again
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.config import InputError, RunError
from app.evaluation.predictor import Features, Predictor
from app.evaluation.uncertainty import measure_row, measure_texts
from app.feedback.actions import check_agreement
from app.feedback.correction import JUDGED, VERDICTS, Correction, check_storable, correction_from
from app.feedback.learning import gives_several
from app.feedback.queue import ORDERS, ReviewQueue, Waiting, compute_disagreement
from app.feedback.versions import LABELS, Labels, find_versions, read_labels, roll_back, set_label
from app.serving.errors import RequestError
from app.serving.http import Handler, JsonResponse, log
from app.serving.models import ServedModel, Version
from app.serving.openapi import describe_route
from app.serving.predict_json import parse_texts, shown
from app.serving.server import ROUTES, ModelServer, read_object, server_of

MOST_CORRECTIONS = 1000  # of one request
MOST_LISTED = 200
AGREEMENT_OF = 200  # newest judgements that count
_DIGEST = re.compile("[0-9a-fA-F]{64}")
ROWS_ASKED = 4  # in one call of the network, so that others who ask do not wait long
TOGETHER = 64  # texts that are answered before the next ones
_Result = TypeVar("_Result")


async def in_thread(work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Runs what waits for a disk beside the loop; a database that fails is a 503."""
    try:
        return await run_in_threadpool(work, *arguments)
    except RunError as error:
        raise RequestError(503, str(error), {"Retry-After": "1"}) from error


def from_here(handler: Handler) -> Handler:
    """Refuses what a page of another site makes a browser send: it must not write into the store."""

    async def checked(request: Request) -> Response:
        site, origin = request.headers.get("sec-fetch-site", ""), request.headers.get("origin", "")
        # "null" is a frame without an origin of its own, which any site can make.
        other = bool(origin) and origin.partition("://")[2] != request.headers.get("host", "")
        if site not in ("same-origin", "none") if site else other:
            raise RequestError(403, "a page of another site must not change what is stored here")
        return await handler(request)

    return checked


def find_model(server: ModelServer, name: Any) -> ServedModel:
    """A model by its name; without one the first. Raises RequestError."""
    if name in (None, ""):
        return next(iter(server.models.values()))
    if not isinstance(name, str):
        raise RequestError(400, f'"model" must be a name, received {shown(name)}')
    return server.find(name)


def labels_of(about: Mapping[str, Any]) -> Collection[str] | None:
    """The labels that answers of a model may have; types of entities for tagging, None for a task of one's own."""
    if about["task"] == "tagging":
        return {label.partition("-")[2] or label for label in about["labels"] if label != "O"}
    return set(about["labels"]) if about["task"] == "classification" else None


def find_version(model: ServedModel, number: int) -> Version:
    """The version that a correction is about; the stable one if it is retired or not named."""
    try:
        return model.find(number or None)
    except RequestError as error:
        if error.status == 404:
            return model.stable
        raise


def digest_of(version: Version) -> str:
    """SHA-256 of what computes a version."""
    return _digest(version.source.path, version.source.content)


@lru_cache(maxsize=64)
def _digest(path: Path, content: str) -> str:
    """Args: content: changes with what is at the path."""
    found = hashlib.sha256()
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for each in files:
        found.update(each.relative_to(path).as_posix().encode() if each != path else b"")
        with each.open("rb") as file:
            while part := file.read(2**20):
                found.update(part)
    return found.hexdigest()


# Corrections.


async def post_feedback(request: Request) -> Response:
    server = server_of(request)
    found = await read_object(request, required=("corrections",))
    records = found["corrections"]
    if not isinstance(records, list) or not records:
        raise RequestError(400, f'"corrections" must be a list that is not empty, received {shown(records)}')
    if len(records) > MOST_CORRECTIONS:
        raise RequestError(400, f'"corrections" may have {MOST_CORRECTIONS} at most, received {len(records)}')
    model = _model_of(server, records)
    corrections = [
        _correction(record, model, author=server.stores.config.author, where=f"correction {number}")
        for number, record in enumerate(records, 1)
    ]
    ids, count, taken_back = await in_thread(_store, server, model, corrections)
    if taken_back:
        await in_thread(server.refresh)
    stored_in = server.stores.name(model.run_dir)
    return JsonResponse({"ids": ids, "stored_in": stored_in, "count": count, "taken_back": taken_back}, status_code=201)


def _model_of(server: ModelServer, records: Sequence[Any]) -> ServedModel:
    """The one model that corrections are about; raises RequestError."""
    names = [record.get("model") or "" for record in records if isinstance(record, dict)]
    for name in names:
        if not isinstance(name, str):
            raise RequestError(400, f'"model" must be a name, received {shown(name)}')
    if len(set(names)) > 1:
        shown_names = shown(sorted(set(names)))
        raise RequestError(400, f"the corrections of a request must be of one model, received {shown_names}")
    return find_model(server, names[0] if names else "")


def _correction(record: Any, model: ServedModel, *, author: str, where: str) -> Correction:
    """A correction of a request, with what the server knows about it."""
    about = model.stable.about
    found = correction_from(record, where=where, task=about["task"], source="api")
    if found.task != about["task"]:
        raise InputError(f"task of {where} must be {about['task']}, received {found.task!r}")
    number = 0 if found.version is None else found.version
    there = sorted({*find_versions(model.run_dir.path), *model.versions})
    if type(number) is not int or number not in (0, *there):
        raise InputError(
            f"version of {where} must be one of {', '.join(map(str, there))}, which {model.name} has, or null, "
            f"received {shown(found.version)}"
        )
    if found.digest and not (isinstance(found.digest, str) and _DIGEST.fullmatch(found.digest)):
        said = shown(found.digest)
        raise InputError(f"digest of {where} must be a SHA-256 sum of 64 hexadecimal digits, received {said}")
    version = find_version(model, number)
    # What is not about a version that is loaded has no weights that are known.
    digest = found.digest or (digest_of(version) if number in (0, version.number) else "")
    return replace(
        found, model=model.name, version=number or version.number, digest=digest, author=found.author or author
    )


def _store(
    server: ModelServer, model: ServedModel, corrections: Sequence[Correction]
) -> tuple[list[str], int, list[str]]:
    """Stores corrections; a version with which people agree too seldom loses its label.

    Returns:
        ids, the number of judged answers of the model, and a sentence for each version that was taken back.
    """
    store = server.stores.of(model.run_dir)
    about = model.stable.about
    several = gives_several(about["task"], model.run_dir.model)
    ids = store.add(corrections, labels=labels_of(about), several=several)
    try:
        taken_back = check_agreement(model.run_dir, store, server.update, model=model.name)
    except InputError as error:  # the corrections are stored all the same
        taken_back = []
        log({"event": "versions", "error": str(error)})
    for sentence in taken_back:
        log({"event": "versions", "message": sentence})
    return ids, store.count(model=model.name, verdicts=JUDGED), taken_back


async def get_feedback(request: Request) -> Response:
    server = server_of(request)
    model = find_model(server, request.query_params.get("model"))
    limit = _number(request, "limit", 50, most=MOST_LISTED)
    offset = _number(request, "offset", 0, most=2**31)

    def read() -> dict[str, Any]:
        store = server.stores.of(model.run_dir)
        found = store.recent(limit=limit, offset=offset, model=model.name)
        return {"corrections": [asdict(each) for each in found], "count": store.count(model=model.name)}

    return JsonResponse({**await in_thread(read), "stored_in": server.stores.name(model.run_dir)})


def _number(request: Request, name: str, default: int, *, most: int) -> int:
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdecimal() and len(given) < 12 and int(given) <= most):
        raise RequestError(400, f"{name} must be a number from 0 to {most}, received {shown(given)}")
    return int(given)


async def delete_feedback(request: Request) -> Response:
    """Takes `author`, `text` or both from the query, or from a JSON body, which a long text needs."""
    server = server_of(request)
    asked, headers = request.query_params, request.headers
    found: dict[str, Any] = {name: asked[name] for name in ("author", "text") if name in asked}
    if not found or headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        body = await read_object(request, required=(), optional=("author", "text"))
        for name in body:
            if name in found:
                raise RequestError(400, f'"{name}" must be in the query or in the body, not in both')
        found |= body
    author, text = found.get("author", ""), found.get("text", "")
    if not isinstance(author, str) or not isinstance(text, str) or not (author or text):
        raise RequestError(400, "to delete corrections, name an author or a text")

    def delete() -> int:
        stores = {id(store): store for store in map(server.stores.of, (m.run_dir for m in server.models.values()))}
        return sum(store.delete(author=author, text=text) for store in stores.values())

    return JsonResponse({"deleted": await in_thread(delete)})


# The queue.


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as an answer is stored."""
    return {name: value for name, value in row.items() if name != "text"}


async def _consider(server: ModelServer, model: ServedModel, texts: Sequence[str], *, reason: str) -> list[Waiting]:
    """Texts beside the answers of the stable version, and of the canary if there is one."""
    asked = [model.stable, *([model.find(label="canary")] if "canary" in model.labels else [])]
    found: list[Waiting] = []
    for start in range(0, len(texts), TOGETHER):
        part = texts[start : start + TOGETHER]
        rows, *others = [await server.answer(version, part) for version in asked]
        unsure = await _measure(server, model, asked[0], part, rows)
        for number, (text, row) in enumerate(zip(part, rows, strict=True)):
            other = {**_plain(others[0][number]), "version": asked[1].number} if others else {}
            item = Waiting(text, model.name, asked[0].number, reason, unsure[number], _plain(row), other)
            found.append(item)
    return found


async def _measure(
    server: ModelServer, model: ServedModel, version: Version, texts: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> list[float | None]:
    """How unsure a version is of texts: by its network's probabilities where its model is at hand, else by its rows."""
    known = await in_thread(model.open_light, version)
    if known is None:
        return [measure_row(row) for row in rows]
    loop = asyncio.get_running_loop()

    def forward(features: Features) -> np.ndarray:
        asked = version.batcher.ask(arrays=features, seconds=server.seconds)
        logits: np.ndarray = asyncio.run_coroutine_threadsafe(asked, loop).result()["logits"]
        return logits

    predictor = Predictor(known, known.encoder.scoring_rows, forward, ROWS_ASKED, model.config.predict)  # type: ignore[arg-type]
    return list(await in_thread(measure_texts, predictor, texts))


async def post_queue(request: Request) -> Response:
    server = server_of(request)
    found = await read_object(request, required=("texts",), optional=("model",))
    texts = [text for text in parse_texts(found["texts"], where='"texts"') if text.strip()]
    if len(texts) > MOST_CORRECTIONS:
        raise RequestError(400, f'"texts" may have {MOST_CORRECTIONS} at most, received {len(texts)}')
    model = find_model(server, found.get("model"))
    items = await _consider(server, model, list(dict.fromkeys(texts)), reason="added")

    def add() -> int:
        return ReviewQueue(server.stores.of(model.run_dir).database).add(items)

    return JsonResponse({"added": await in_thread(add)}, status_code=201)


async def get_queue(request: Request) -> Response:
    """Answers of versions that are stable no more are replaced before they are shown."""
    server = server_of(request)
    model = find_model(server, request.query_params.get("model"))
    by = request.query_params.get("by", ORDERS[0])
    limit = _number(request, "limit", 20, most=MOST_LISTED)
    queue = ReviewQueue((await in_thread(server.stores.of, model.run_dir)).database)

    def read() -> list[Waiting]:
        return queue.next(model=model.name, by=by, limit=limit)

    found = await in_thread(read)
    versions_now = [model.stable.number, model.labels.get("canary")]
    stale = [
        each for each in found if not each.answer or [each.version, each.other_answer.get("version")] != versions_now
    ]
    if stale:
        for reason in {each.reason for each in stale}:
            texts = [each.text for each in stale if each.reason == reason]
            await in_thread(queue.add, await _consider(server, model, texts, reason=reason))
        found = await in_thread(read)
    progress = await in_thread(lambda: queue.progress(model=model.name))
    return JsonResponse(
        {"items": [_shown(each) for each in found], "done": progress.done + progress.skipped, "left": progress.left}
    )


def _shown(item: Waiting) -> dict[str, Any]:
    other = dict(item.other_answer)
    version = other.pop("version", None)
    differs = bool(other) and compute_disagreement(item.answer, other) > 0
    return {
        **{name: getattr(item, name) for name in ("id", "text", "model", "version", "answer", "uncertainty", "reason")},
        **({"other_answer": other, "other_version": version} if differs else {}),
    }


# Versions.


async def get_versions(request: Request) -> Response:
    server = server_of(request)
    model = find_model(server, request.query_params.get("model"))
    return JsonResponse(await in_thread(_describe_versions, server, model))


def _describe_versions(server: ModelServer, model: ServedModel) -> dict[str, Any]:
    folder, labels = model.run_dir.saved_model, model.labels
    store = server.stores.of(model.run_dir)
    listed, agreement = [], {}
    for number in sorted({*find_versions(model.run_dir), *model.versions}):
        path = folder / str(number)
        time = _made(path if path.is_dir() else model.find(number).source.path)
        own = sorted((name for name, labelled in labels.items() if labelled == number), reverse=True)
        listed.append({"version": number, "labels": own, "time": time})
        accepted, judged = store.agreement(model=model.name, version=number, last=AGREEMENT_OF)
        agreement[str(number)] = {"accepted": accepted, "judged": judged}
    return {"versions": listed, "agreement": agreement}


def _made(path: Path) -> str:
    """When a version was written; empty if its files are gone, and it answers from memory."""
    try:
        made = path.stat().st_mtime
    except OSError:
        return ""
    return datetime.fromtimestamp(made, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


async def promote(request: Request) -> Response:
    """Gives a label to a version."""
    server = server_of(request)
    found = await read_object(request, required=("version",), optional=("model", "label", "author"))
    model, label, version = find_model(server, found.get("model")), found.get("label", "stable"), found["version"]
    if type(version) is not int or version < 1:
        raise RequestError(400, f'"version" must be the number of a version, received {shown(version)}')
    if label not in LABELS:
        raise RequestError(400, f'"label" must be {" or ".join(LABELS)}, received {shown(label)}')
    before, why = read_labels(model.run_dir), _why("promoted", found.get("author"))
    given = await in_thread(lambda: set_label(model.run_dir, label, version, why))
    await in_thread(server.refresh)
    if model.labels.get(label) != version:
        await _relabel(server, lambda: _restore(model, before, given))
        raise RequestError(
            409, f"version {version} could not be loaded, so {label} stays where it was; the server's log says why"
        )
    return JsonResponse(await in_thread(_describe_versions, server, model))


def _restore(model: ServedModel, before: Labels, given: Labels) -> None:
    """Takes a change back, not what others have changed since."""
    for label in LABELS:
        if given[label] != before[label]:
            set_label(model.run_dir, label, before[label], "the version could not be loaded", instead_of=given[label])


async def go_back(request: Request) -> Response:
    """Takes "stable" back to the version before, or "canary" away."""
    server = server_of(request)
    found = await read_object(request, required=(), optional=("model", "label", "author"))
    model, label, author = find_model(server, found.get("model")), found.get("label", "stable"), found.get("author")
    if label not in LABELS:
        raise RequestError(400, f'"label" must be {" or ".join(LABELS)}, received {shown(label)}')
    if label == "canary":
        await _relabel(server, lambda: set_label(model.run_dir, label, 0, _why("taken back", author)))
    else:
        await _relabel(server, lambda: roll_back(model.run_dir, _why("", author)))
    return JsonResponse(await in_thread(_describe_versions, server, model))


def _why(what: str, author: Any) -> str:
    if author is not None and not isinstance(author, str):
        raise RequestError(400, f'"author" must be a name, received {shown(author)}')
    check_storable(author or "", "author")
    return f"{what} by {author[:100]}".strip() if author and author.strip() else what


async def _relabel(server: ModelServer, change: Callable[[], Any]) -> None:
    """Changes labels, and has the server take them at once."""
    await in_thread(change)
    await in_thread(server.refresh)


_TEXT: dict[str, Any] = {"type": "string"}
_NAME: dict[str, Any] = {"type": ["string", "null"]}
_TEXTS = {"type": "array", "minItems": 1, "maxItems": MOST_CORRECTIONS, "items": _TEXT}
_NUMBER = {"type": "integer", "minimum": 1}
_LABEL = {"type": "string", "enum": list(LABELS)}
_CORRECTION = {
    "type": "object",
    "required": ["text"],
    "properties": {
        **dict.fromkeys(("task", "author", "source", "time", "id"), _TEXT),
        "model": _NAME,
        "text": {"type": "string", "minLength": 1},
        "digest": {"type": "string", "pattern": f"^({_DIGEST.pattern})?$"},
        "answer": {
            "type": "object",
            "description": 'what is right: {"entities": [{"start": 0, "end": 3, "label": "PER"}]} in code points, '
            '{"label": "refund"} or {"labels": ["refund", "angry"]}',
        },
        "prediction": {"type": "object", "description": "what the model answered"},
        "version": {"type": ["integer", "null"], "minimum": 0, "description": "one that the model has"},
        "verdict": {"type": "string", "enum": list(VERDICTS)},
    },
}


def _named(meaning: str, *, empty: bool = True) -> dict[str, Any]:
    """A parameter of a query that is a text."""
    return {"description": meaning, "schema": {"type": "string", **({} if empty else {"minLength": 1})}}


def _count(meaning: str, *, most: int) -> dict[str, Any]:
    return {"description": meaning, "schema": {"type": "integer", "minimum": 0, "maximum": most}}


def add_route(path: str, handler: Handler, summary: str, *, method: str = "GET", **description: Any) -> None:
    """A route with its description, see `describe_route`."""
    ROUTES.append(Route(path, handler, methods=[method]))
    describe_route(path, summary, method=method, **description)


add_route(
    "/feedback",
    from_here(post_feedback),
    "stores corrections, all or none; an id that is stored already is not stored twice",
    method="POST",
    fields={"corrections": {"type": "array", "minItems": 1, "maxItems": MOST_CORRECTIONS, "items": _CORRECTION}},
    required=["corrections"],
    status=201,
)
add_route(
    "/feedback",
    get_feedback,
    "the latest corrections of a model",
    query={
        "model": _named("its name"),
        "limit": _count("how many", most=MOST_LISTED),
        "offset": _count("how many to pass over", most=2**31),
    },
)
add_route(
    "/feedback",
    from_here(delete_feedback),
    "deletes what an author said, or what was said about a text; both may also stand in a JSON body",
    method="DELETE",
    query={"author": _named("who", empty=False), "text": _named("about what", empty=False)},
    fields={"author": _TEXT, "text": _TEXT},
)
add_route(
    "/queue",
    from_here(post_queue),
    "has texts wait for review",
    method="POST",
    fields={"texts": _TEXTS, "model": _NAME},
    required=["texts"],
    status=201,
)
add_route(
    "/queue",
    get_queue,
    "texts that wait for review, those that are worth most first",
    query={
        "model": _named("its name"),
        "by": {"description": "the order", "schema": {"type": "string", "enum": list(ORDERS)}},
        "limit": _count("how many", most=MOST_LISTED),
    },
)
add_route(
    "/versions",
    get_versions,
    "the versions of a model and how often people agreed",
    query={"model": _named("its name")},
)
add_route(
    "/promote",
    from_here(promote),
    "gives a label to a version",
    method="POST",
    fields={"model": _NAME, "version": _NUMBER, "label": _LABEL, "author": _NAME},
    required=["version"],
)
add_route(
    "/rollback",
    from_here(go_back),
    "gives stable back to the version before, or takes canary away",
    method="POST",
    fields={"model": _NAME, "label": _LABEL, "author": _NAME},
)
