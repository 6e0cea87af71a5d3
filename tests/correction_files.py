"""Files of corrections as other tools write them, for tests."""

import json

ADA = "Ada Lovelace lived in London."


def write(folder, name, *values, whole=False):
    path = folder / name
    path.write_text(json.dumps(values) if whole else "\n".join(map(json.dumps, values)), encoding="utf-8")
    return path


def task_of(text, *results, **values):
    return {"id": 1, "data": {"text": text}, "annotations": [{"id": 2, "result": list(results), **values}]}


def region(start, end, label, text=None):
    value = {"start": start, "end": end, "labels": [label], **({"text": text} if text is not None else {})}
    return {"from_name": "l", "to_name": "t", "type": "labels", "value": value}


def entities_of(corrections):
    return [[(each.text[e["start"] : e["end"]], e["label"]) for e in each.answer["entities"]] for each in corrections]
