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

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from app.config import InputError

CONTROLS = {"tagging": "Labels", "classification": "Choices"}  # what a project asks for -> the tag of it
_OPTIONS = {"Labels": "Label", "Choices": "Choice"}
CHANGED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")
DELETED = ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED")
_MOST_CONFIG_CHARACTERS = 1_000_000


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
    return {"model_version": version, "result": result, "score": min((each["score"] for each in entities), default=None)}


def _id_of() -> str:
    return uuid.uuid4().hex[:10]


def annotated_tasks(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a webhook says was annotated, as tasks of Label Studio's export: {"data", "annotations": [...]}.

    Raises:
        InputError: the webhook has no annotation or no task.
    """
    annotations, tasks = _listed_values(event.get("annotation")), _listed_values(event.get("task"))
    if not annotations or len(annotations) != len(tasks):
        raise InputError("a webhook about an annotation must hold the annotation and its task: set Send payload")
    for annotation, task in zip(annotations, tasks, strict=True):
        if not isinstance(annotation, Mapping) or not isinstance(task, Mapping):
            raise InputError("annotation and task of a webhook must be JSON objects")
    return [
        {"id": task.get("id"), "data": task.get("data"), "annotations": [dict(annotation)]}
        for annotation, task in zip(annotations, tasks, strict=True)
    ]


def _listed_values(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def source_of(event: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
    """What the corrections of an annotation are found by when it is changed or deleted."""
    project = event.get("project")
    number = project.get("id") if isinstance(project, Mapping) else project
    return f"label_studio:{number}:{annotation.get('id')}"
