"""Serving room: which texts wait for a person to look at them.

This adds to the server's routes:

    POST   /queue      texts wait for review         GET  /queue      those that are worth most first
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from app.evaluation.predictor import Features, Predictor
from app.evaluation.uncertainty import measure_row, measure_texts
from app.feedback.queue import ORDERS, ReviewQueue, Waiting, compute_disagreement
from app.serving.errors import RequestError
from app.serving.http import JsonResponse
from app.serving.models import ServedModel, Version
from app.serving.predict_json import parse_texts
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

MOST_QUEUED = 1000  # texts of one request
ROWS_ASKED = 4  # in one call of the network, so that others who ask do not wait long
TOGETHER = 64  # texts that are answered before the next ones


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
    if len(texts) > MOST_QUEUED:
        raise RequestError(400, f'"texts" may have {MOST_QUEUED} at most, received {len(texts)}')
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
    limit = read_number(request, "limit", 20, most=MOST_LISTED)
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


_TEXTS = {"type": "array", "minItems": 1, "maxItems": MOST_QUEUED, "items": TEXT}
add_route(
    "/queue",
    from_here(post_queue),
    "has texts wait for review",
    method="POST",
    fields={"texts": _TEXTS, "model": NAME},
    required=["texts"],
    status=201,
)
add_route(
    "/queue",
    get_queue,
    "texts that wait for review, those that are worth most first",
    query={
        "model": describe_text("its name"),
        "by": {"description": "the order", "schema": {"type": "string", "enum": list(ORDERS)}},
        "limit": describe_count("how many", most=MOST_LISTED),
    },
)
