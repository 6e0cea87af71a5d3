"""Serving room: what people say about answers.

This adds to the server's routes:

    POST   /feedback   corrections are stored        GET  /feedback   the latest ones
    DELETE /feedback   what an author said, or what was said about a text, is deleted
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.config import InputError, RunError
from app.feedback.actions import check_agreement
from app.feedback.correction import JUDGED, VERDICTS, Correction, correction_from
from app.feedback.learning import gives_several
from app.feedback.versions import find_versions
from app.serving.errors import RequestError
from app.serving.http import JsonResponse, log
from app.serving.models import ServedModel, Version
from app.serving.predict_json import shown
from app.serving.routes import (
    MOST_LISTED,
    NAME,
    TEXT,
    add_route,
    describe_count,
    describe_text,
    find_model,
    from_here,
    in_thread,
    read_number,
)
from app.serving.server import ModelServer, read_object, server_of

MOST_CORRECTIONS = 1000  # of one request
_DIGEST = re.compile("[0-9a-fA-F]{64}")


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
    except (InputError, RunError, OSError) as error:  # the corrections are stored all the same
        taken_back = []
        log({"event": "versions", "error": str(error)})
    for sentence in taken_back:
        log({"event": "versions", "message": sentence})
    return ids, store.count(model=model.name, verdicts=JUDGED), taken_back


async def get_feedback(request: Request) -> Response:
    server = server_of(request)
    model = find_model(server, request.query_params.get("model"))
    limit = read_number(request, "limit", 50, most=MOST_LISTED)
    offset = read_number(request, "offset", 0, most=2**31)

    def read() -> dict[str, Any]:
        store = server.stores.of(model.run_dir)
        found = store.recent(limit=limit, offset=offset, model=model.name)
        return {"corrections": [asdict(each) for each in found], "count": store.count(model=model.name)}

    return JsonResponse({**await in_thread(read), "stored_in": server.stores.name(model.run_dir)})


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

    return JsonResponse({"deleted": await in_thread(_delete, server, author, text)})


def _delete(server: ModelServer, author: str, text: str) -> int:
    """Deletes from the stores of all models, and says how much.

    Raises:
        RunError: a store failed; what was deleted from others before is said too.
    """
    stores = {id(store): store for store in (server.stores.of(model.run_dir) for model in server.models.values())}
    deleted = 0
    for store in stores.values():
        try:
            deleted += store.delete(author=author, text=text)
        except RunError as error:
            if deleted:
                error.args = (f"{error} ({deleted} were deleted from the stores of other models)",)
            raise
    return deleted


_CORRECTION = {
    "type": "object",
    "required": ["text"],
    "properties": {
        **dict.fromkeys(("task", "author", "source", "time", "id"), TEXT),
        "model": NAME,
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
        "model": describe_text("its name"),
        "limit": describe_count("how many", most=MOST_LISTED),
        "offset": describe_count("how many to pass over", most=2**31),
    },
)
add_route(
    "/feedback",
    from_here(delete_feedback),
    "deletes what an author said, or what was said about a text; both may also stand in a JSON body",
    method="DELETE",
    query={"author": describe_text("who", empty=False), "text": describe_text("about what", empty=False)},
    fields={"author": TEXT, "text": TEXT},
)
