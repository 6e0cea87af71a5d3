"""Serving room: which version of a model goes live.

This adds to the server's routes:

    GET    /versions   versions and how often people agreed with them
    POST   /promote    a version becomes stable      POST /rollback   the one before it does again
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.feedback.correction import check_storable
from app.feedback.versions import LABELS, Labels, find_versions, read_labels, roll_back, set_label
from app.serving.errors import RequestError
from app.serving.http import JsonResponse
from app.serving.models import ServedModel
from app.serving.predict_json import shown
from app.serving.routes import NAME, add_route, describe_text, find_model, from_here, in_thread
from app.serving.server import ModelServer, read_object, server_of

AGREEMENT_OF = 200  # newest judgements that count
_NUMBER = {"type": "integer", "minimum": 1}
_LABEL = {"type": "string", "enum": list(LABELS)}


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


add_route(
    "/versions",
    get_versions,
    "the versions of a model and how often people agreed",
    query={"model": describe_text("its name")},
)
add_route(
    "/promote",
    from_here(promote),
    "gives a label to a version",
    method="POST",
    fields={"model": NAME, "version": _NUMBER, "label": _LABEL, "author": NAME},
    required=["version"],
)
add_route(
    "/rollback",
    from_here(go_back),
    "gives stable back to the version before, or takes canary away",
    method="POST",
    fields={"model": NAME, "label": _LABEL, "author": NAME},
)
