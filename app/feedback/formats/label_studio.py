"""Feedback room: corrections in Label Studio's JSON, as its export and its webhooks have it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.config import InputError
from app.feedback.correction import Correction
from app.feedback.formats.record import (
    Found,
    Item,
    Refused,
    finish,
    form_fault,
    json_line,
    read_records,
    slice_of,
)
from app.feedback.spans import Span


def read_annotated(
    record: Any, *, task: str, labels: Collection[str] | None = None, several: bool | None = None
) -> tuple[list[Correction], list[Refused]]:
    """The annotations of one task of Label Studio, {"data": {...}, "annotations": [...]}, as its webhooks have it.

    Args:
        record: the task.
        task: "tagging" or "classification".
        labels: those of the model (tagging: types of entities); None = any.
        several: whether the model gives a text several labels; None = not known.

    Returns:
        Corrections, checked, and what could not be used.
    """
    if not isinstance(record, Mapping):
        return [], [Refused("the task", "it must be a JSON object")]
    found: list[Correction] = []
    refused: list[Refused] = []
    try:
        for item in _annotated_task("the task", record, task):
            if isinstance(item, Refused):
                refused.append(item)
            else:
                path = Path("label_studio")
                found.append(finish(item, path=path, task=task, labels=labels, several=several, author=""))
    except (InputError, TypeError, KeyError, AttributeError, ValueError) as error:
        reason = form_fault(error)
        refused.append(Refused("the task", reason))
    return found, refused


def read(path: Path, task: str) -> Iterator[Item]:
    return read_records(path, lambda where, record: _annotated_task(where, record, task))


def _annotated_task(where: str, record: Mapping[str, Any], task: str) -> Iterator[Item]:
    annotations = record.get("annotations", record.get("completions"))
    if not isinstance(annotations, list) or not isinstance(record.get("data"), Mapping):
        raise InputError('it has no "data" and "annotations": export as JSON, not as JSON-MIN')
    if not annotations:
        raise InputError("nobody has annotated it yet")
    text = _text_of(record["data"])
    truth = [each for each in annotations if each.get("ground_truth")]
    for number, annotation in enumerate(truth or annotations, 1):
        at = where if len(annotations) == 1 else f"{where}, annotation {number}"
        if annotation.get("was_cancelled"):
            yield Refused(at, "it was skipped")
            continue
        try:
            yield _annotation(at, text, annotation, task)
        except InputError as error:
            yield Refused(at, str(error))


def _text_of(data: Mapping[str, Any]) -> str:
    """The text of a task: "text", or the only one there is."""
    texts = [value for value in data.values() if isinstance(value, str)]
    text = data.get("text", texts[0] if len(texts) == 1 else None)
    if not isinstance(text, str):
        raise InputError(f'its data has no "text" (only {", ".join(map(str, data))})')
    return text


def _annotation(where: str, text: str, annotation: Mapping[str, Any], task: str) -> Found:
    regions: list[Span] = []
    choices: list[Any] = []
    results = annotation.get("result", [])
    kinds = {result.get("type") for result in results}
    for result in results:
        kind, value = result.get("type"), result.get("value", {})
        if kind == "labels":
            given = value.get("labels", [])
            if len(given) != 1:
                at = f"{value.get('start')} to {value.get('end')}"
                raise InputError(f"the region at {at} must have one label, received {given}")
            regions.append(Span(value.get("start"), value.get("end"), given[0], value.get("text")))
        elif kind == "choices":
            choices += value.get("choices", [])
        elif kind in ("hypertextlabels", "paragraphlabels") and task == "tagging":
            raise InputError(f"regions of {kind} are places in a page, not in a text")
    who, when = annotation.get("completed_by", ""), annotation.get("updated_at") or annotation.get("created_at")
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id", "")
    return Found(  # an annotation without results says that there is nothing
        where,
        text,
        spans=regions if "labels" in kinds or not kinds else None,
        label=choices[0] if choices else None if kinds else "",
        several=choices if len(choices) > 1 else None,
        author=who if isinstance(who, str) else f"label_studio:{who}",
        time=when if isinstance(when, str) else "",
    )


def write(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    """A list of tasks that Label Studio imports; the control is named "label", the text "text"."""
    separator = "[\n"
    for number, each in enumerate(corrections, 1):
        item: dict[str, Any] = {
            "id": number,
            "data": {"text": each.text},
            "annotations": [{"result": _results(each, each.answer), "was_cancelled": False}],
        }
        if each.prediction:
            version = f"{each.model}:{each.version}"
            item["predictions"] = [{"model_version": version, "result": _results(each, each.prediction)}]
        yield separator + json_line(item).rstrip("\n")
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _results(correction: Correction, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    plain = {"from_name": "label", "to_name": "text"}
    if correction.task == "tagging":
        return [
            {
                **plain,
                "id": f"e{number}",
                "type": "labels",
                "value": {
                    "start": one["start"],
                    "end": one["end"],
                    "text": slice_of(correction, one),
                    "labels": [one["label"]],
                },
                **({"score": one["score"]} if "score" in one else {}),
            }
            for number, one in enumerate(answer.get("entities", []), 1)
        ]
    given = answer["labels"] if "labels" in answer else [answer.get("label")]
    chosen = [label for label in given if label is not None]
    score = {"score": answer["score"]} if "score" in answer else {}
    return [{**plain, "id": "c1", "type": "choices", "value": {"choices": chosen}, **score}] if chosen else []
