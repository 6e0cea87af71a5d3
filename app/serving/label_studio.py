"""Serving room: Label Studio's protocol for models: answers shown in its tasks, and its annotations as corrections.

    GET  /health    whether the server is there
    POST /setup     whether the model fits the labelling configuration of a project
    POST /predict   answers to tasks
    POST /webhook   what annotators did

Connected is `http://HOST:PORT`, or `http://HOST:PORT/label_studio/NAME` where several models are served; with a key,
`http://any:KEY@HOST:PORT`, because Label Studio sends no headers of its own to webhooks. A project shows one text
(`<Text name="text" value="$text"/>`) and asks for `<Labels>` or `<Choices>` about it.

Offsets count characters (Unicode code points), as Label Studio's editor has done since 2021.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

from starlette.requests import Request
from starlette.responses import Response

from app.config import InputError
from app.feedback.correction import Correction
from app.feedback.formats import read_annotated
from app.feedback.learning import gives_several
from app.serving.corrections import digest_of, labels_of
from app.serving.errors import RequestError
from app.serving.http import JsonResponse
from app.serving.models import ServedModel, Version
from app.serving.predict_json import shown
from app.serving.routes import add_route, find_model, from_here, in_thread
from app.serving.server import ModelServer, note, read_json, server_of

CONTROLS = {"tagging": "Labels", "classification": "Choices"}  # what a project asks for -> the tag of it
_OPTIONS = {"Labels": "Label", "Choices": "Choice"}
CHANGED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")
DELETED = ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED")
_MOST_CONFIG_CHARACTERS = 1_000_000
_TOGETHER = 64  # tasks that are answered before the next ones
_NAMESPACE = uuid.UUID("8d2a4a1e-3d0c-4f8e-9f63-6f2b1a7c5e10")  # of ids made from annotations


@dataclass(frozen=True)
class Control:
    """What a project asks for.

    Attributes:
        kind: "labels" or "choices", the type of its results.
        name: of the control; target: of the text that it is about.
        key: of the text in the data of a task.
        labels: those that a project has.
        several: whether there may be more than one choice.
    """

    kind: str
    name: str
    target: str
    key: str
    labels: tuple[str, ...]
    several: bool = False


def read_control(config: Any, *, task: str, labels: Collection[str]) -> Control:
    """The control in a labelling configuration that a model can fill.

    Args:
        config: XML.
        task: of the model.
        labels: of the model (tagging: types of entities).

    Raises:
        InputError: there is none, in a sentence for whoever sets the project up.
    """
    if task not in CONTROLS:
        raise InputError(f"Label Studio is supported for {' and '.join(CONTROLS)}, the model is of the task {task}")
    root, wanted = _parse(config), CONTROLS[task]
    texts = {each.get("name", ""): each.get("value", "") for each in root.iter("Text")}
    there = False
    for element in root.iter(wanted):
        there, target = True, element.get("toName", "")
        if not texts.get(target, "").startswith("$"):
            continue
        options = [each.get("alias") or each.get("value") or "" for each in element.iter(_OPTIONS[wanted])]
        if not set(options) & set(labels):
            raise InputError(
                f"<{wanted} name={element.get('name', '')!r}> has {_listed(options)}, the model has {_listed(labels)}: "
                "no label is in both"
            )
        key = texts[target].removeprefix("$")
        several = element.get("choice", "single").startswith("multiple")
        return Control(wanted.lower(), element.get("name", ""), target, key, tuple(options), several)
    if there:
        raise InputError(f'<{wanted}> must name in toName a <Text name="text" value="$text"/>')
    raise InputError(f"the labelling configuration has no <{wanted}>, which the model could fill")


def _parse(config: Any) -> ElementTree.Element:
    if not isinstance(config, str) or not config.strip():
        raise InputError("the labelling configuration must be XML, received nothing")
    if len(config) > _MOST_CONFIG_CHARACTERS or "<!DOCTYPE" in config or "<!ENTITY" in config:
        raise InputError("the labelling configuration must be short XML without a DOCTYPE")
    try:
        return ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise InputError(f"the labelling configuration is not valid XML: {error}") from error


def _listed(labels: Collection[str]) -> str:
    shown = ", ".join(sorted(labels)[:10])
    return f"{shown}, ..." if len(labels) > 10 else shown or "no labels"


def text_of(task: Any, control: Control) -> str:
    """The text of a task; empty if it has none under the key of the configuration."""
    data = task.get("data") if isinstance(task, Mapping) else None
    text = data.get(control.key) if isinstance(data, Mapping) else None
    return text if isinstance(text, str) else ""


def make_prediction(row: Mapping[str, Any], control: Control, *, version: str) -> dict[str, Any]:
    """A row of `--mode=predict` as Label Studio shows it; what the project has no label for is left out.

    The score is that of the least certain entity, or of the label, so that tasks can be ordered by it.
    """
    place = {"from_name": control.name, "to_name": control.target, "type": control.kind}
    if control.kind == "choices":
        chosen = row["labels"] if "labels" in row else [row["label"]]
        known = [label for label in chosen if label in control.labels]
        scores = [row["scores"][label] for label in known]
        known = known if control.several else known[:1]
        result = [{"id": _id_of(), **place, "value": {"choices": known}, "score": min(scores)}] if known else []
        return {"model_version": version, "result": result, "score": min(scores) if scores else None}
    entities = [each for each in row["entities"] if each["label"] in control.labels]
    result = [
        {
            "id": _id_of(),
            **place,
            "value": {"start": each["start"], "end": each["end"], "text": each["text"], "labels": [each["label"]]},
            "score": each["score"],
        }
        for each in entities
    ]
    least = min((each["score"] for each in entities), default=None)
    return {"model_version": version, "result": result, "score": least}


def _id_of() -> str:
    return uuid.uuid4().hex[:10]


def annotated_tasks(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a webhook says was annotated, as tasks of Label Studio's export: {"data", "annotations": [one]}.

    Raises:
        InputError: the webhook has no annotation or no task.
    """
    annotations, tasks = _as_list(event.get("annotation")), _as_list(event.get("task"))
    together = [*annotations, *tasks]
    if not annotations or len(annotations) != len(tasks) or not all(isinstance(each, Mapping) for each in together):
        raise InputError("a webhook about an annotation must hold the annotation and its task: switch Send payload on")
    return [
        {"data": task.get("data"), "annotations": [dict(annotation)]}
        for annotation, task in zip(annotations, tasks, strict=True)
    ]


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def source_of(event: Mapping[str, Any], annotation: Any) -> str:
    """What the corrections of an annotation are found by when it is deleted."""
    project = event.get("project")
    number = project.get("id") if isinstance(project, Mapping) else project
    found = annotation.get("id") if isinstance(annotation, Mapping) else annotation
    return f"label_studio:{number}:{found}"


def read_annotation(
    event: Mapping[str, Any], task: Mapping[str, Any], *, kind: str, labels: Collection[str] | None, key: str
) -> Correction:
    """The annotation of a task as a correction; one that was skipped in Label Studio has no answer.

    Args:
        event: the webhook.
        task: of `annotated_tasks`.
        kind: the task of the model.
        labels: of the model.
        key: of the text in the data of the task; empty = "text", or the only one.

    Raises:
        InputError: it cannot be used.
    """
    (annotation,) = task["annotations"]
    source, data = source_of(event, annotation), task["data"]
    if key and isinstance(data, Mapping):
        task = {**task, "data": {"text": data.get(key)}}
    if annotation.get("was_cancelled"):
        data = task["data"]
        text = str((data.get("text") if isinstance(data, Mapping) else "") or "")
        found = Correction(text, kind, verdict="skipped", source=source, time=annotation.get("updated_at") or "")
    else:
        corrections, refused = read_annotated(task, task=kind, labels=labels)
        if refused:
            raise InputError(f"annotation {annotation.get('id')} cannot be used: {refused[0].reason}")
        (found,) = corrections
    said = json.dumps([source, found.time, found.verdict, found.answer], sort_keys=True)
    return replace(found, source=source, id=str(uuid.uuid5(_NAMESPACE, said)))


def with_prediction(correction: Correction, row: Mapping[str, Any]) -> Correction:
    """The correction beside what the model answers; accepted if that is the same."""
    if "entities" in row:
        names = ("start", "end", "label", "score")
        prediction: dict[str, Any] = {
            "entities": [{name: each[name] for name in names} for each in row["entities"]]
        }
        same = correction.answer == {
            "entities": [{name: each[name] for name in names[:3]} for each in row["entities"]]
        }
    else:
        prediction = {name: value for name, value in row.items() if name != "text"}
        answer = correction.answer
        chosen = row["labels"] if "labels" in row else [each for each in [row["label"]] if each is not None]
        said = answer["labels"] if "labels" in answer else [each for each in [answer.get("label")] if each is not None]
        same = sorted(chosen) == sorted(said)
        if answer and "labels" in row:
            correction = replace(correction, answer={"labels": said})
    if correction.answer:
        correction = replace(correction, verdict="accepted" if same else "fixed")
    return replace(correction, prediction=prediction)


# The protocol.


def version_name(model: ServedModel, version: Version) -> str:
    """The version of a prediction in Label Studio."""
    return f"{model.name} {version.number}"


async def _read_event(request: Request) -> dict[str, Any]:
    found = await read_json(request)
    if not isinstance(found, dict):
        raise RequestError(400, f"the request must be a JSON object, received {shown(found)}")
    return found


def _asked(request: Request) -> tuple[ModelServer, ServedModel, Version]:
    server = server_of(request)
    model = find_model(server, request.path_params.get("name"))
    return server, model, model.stable


async def show_health(request: Request) -> Response:
    _, model, _ = _asked(request)
    return JsonResponse({"status": "UP", "model_class": model.name})


async def set_up(request: Request) -> Response:
    event = await _read_event(request)
    _, model, version = _asked(request)
    read_control(event.get("schema"), task=version.about["task"], labels=labels_of(version.about) or ())
    return JsonResponse({"model_version": version_name(model, version)})


async def show_versions(request: Request) -> Response:
    _, model, _ = _asked(request)
    return JsonResponse({"versions": [version_name(model, model.find(number)) for number in model.versions]})


async def predict_tasks(request: Request) -> Response:
    event = await _read_event(request)
    server, model, version = _asked(request)
    control = read_control(event.get("label_config"), task=version.about["task"], labels=labels_of(version.about) or ())
    tasks = event.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError(400, f'"tasks" must be a list, received {shown(tasks)}')
    texts = [text_of(task, control) for task in tasks]
    note(request, version, texts)
    name = version_name(model, version)
    results: list[dict[str, Any]] = []
    for start in range(0, len(texts), _TOGETHER):
        rows = await server.answer(version, texts[start : start + _TOGETHER])
        results += [make_prediction(row, control, version=name) for row in rows]
    return JsonResponse({"results": results, "model_version": name})


async def take_webhook(request: Request) -> Response:
    event = await _read_event(request)
    server, model, version = _asked(request)
    action = event.get("action")
    if not isinstance(action, str):
        raise RequestError(400, f'"action" must be the name of what was done, received {shown(action)}')
    if action in DELETED:
        annotations = _as_list(event.get("annotations", event.get("annotation")))
        sources = [source_of(event, each) for each in annotations]

        def delete() -> int:
            store = server.stores.of(model.run_dir)
            return sum(store.delete(source=source) for source in sources)

        return JsonResponse({"deleted": await in_thread(delete)}, status_code=201)
    if action not in CHANGED:
        return JsonResponse({"ignored": action}, status_code=201)
    corrections = await _read_annotations(event, server, model, version)

    def add() -> list[str]:
        store = server.stores.of(model.run_dir)
        for each in corrections:
            if each.verdict == "skipped":  # what it said before is taken back
                store.delete(source=each.source)
        several = gives_several(version.about["task"], model.run_dir.model)
        return store.add(corrections, labels=labels_of(version.about), several=several)

    return JsonResponse({"ids": await in_thread(add)}, status_code=201)


async def _read_annotations(
    event: Mapping[str, Any], server: ModelServer, model: ServedModel, version: Version
) -> list[Correction]:
    """The corrections of a webhook, beside the stable version's answers."""
    kind, labels = str(version.about["task"]), labels_of(version.about)
    project = event.get("project")
    config = project.get("label_config") if isinstance(project, Mapping) else None
    key = read_control(config, task=kind, labels=labels or ()).key if config else ""
    found = [read_annotation(event, task, kind=kind, labels=labels, key=key) for task in annotated_tasks(event)]
    rows = await server.answer(version, [each.text for each in found])
    digest = await in_thread(digest_of, version)
    return [
        replace(with_prediction(each, row), model=model.name, version=version.number, digest=digest)
        for each, row in zip(found, rows, strict=True)
    ]


_ANYTHING: dict[str, Any] = {"type": "object"}
for _place in ("", "/label_studio/{name}"):
    add_route(f"{_place}/health", show_health, "Label Studio: whether the server is there")
    add_route(
        f"{_place}/setup",
        from_here(set_up),
        "Label Studio: whether the model fits a labelling configuration",
        method="POST",
        fields={"project": {}, "schema": {"type": "string"}},
        required=["schema"],
    )
    add_route(
        f"{_place}/predict",
        predict_tasks,
        "Label Studio: answers to tasks",
        method="POST",
        fields={"tasks": {"type": "array", "items": _ANYTHING}, "label_config": {"type": "string"}},
        required=["tasks", "label_config"],
    )
    add_route(
        f"{_place}/webhook",
        from_here(take_webhook),
        "Label Studio: annotations become corrections",
        method="POST",
        fields={"action": {"type": "string"}, "annotation": {}, "annotations": {}, "task": {}, "project": {}},
        required=["action"],
        status=201,
    )
add_route("/label_studio/{name}/versions", show_versions, "Label Studio: the versions of a model")
