"""Serving room: what the server understands, for machines (OpenAPI 3.1). A test holds it equal to the routes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def _json(schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


_ERROR = _json({"$ref": "#/components/schemas/Error"}, "what is wrong, in one sentence")
_OBJECT: dict[str, Any] = {"type": "object"}
_REFUSED = {str(status): _ERROR for status in (400, 401, 403, 404, 408, 413, 415, 429, 503, 504)}


def _get(summary: str, schema: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": _json(schema, summary), **others}}}


def _post(summary: str, body: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}},
            },
            "responses": {"200": _json(schema, summary), **_REFUSED},
        }
    }


def _of_place(path: str, *names: str) -> dict[str, Any]:
    """TensorFlow Serving's paths of a model, or of one of its versions."""
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("name", *names)
    ]
    found: dict[str, Any] = {
        path: _get("whether the model is ready", _OBJECT, **{"404": _ERROR, "503": _ERROR}),
        f"{path}/metadata": _get("signatures of the model", _OBJECT, **{"404": _ERROR, "503": _ERROR}),
        f"{path}:predict": _post("outputs of a signature", "Predict", _OBJECT),
    }
    for verb in ("classify", "regress"):
        found[f"{path}:{verb}"] = {
            "post": {"summary": "refused: no signature is for it", "responses": {"400": _ERROR, "404": _ERROR}}
        }
    return {key: {**value, "parameters": parameters} for key, value in found.items()}


_MODEL = "/v1/models/{name}"
_SPAN = {
    "type": "object",
    "required": ["start", "end", "label", "text", "score"],
    "properties": {
        "start": {"type": "integer", "description": "first character, in code points"},
        "end": {"type": "integer", "description": "one after the last character"},
        "label": {"type": "string"},
        "text": {"type": "string"},
        "score": {"type": "number"},
    },
}


def _answers(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model", "version", "answers"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "integer"},
            "answers": {"type": "array", "items": row},
        },
    }


_ENTITIES = {
    "type": "object",
    "required": ["text", "entities"],
    "properties": {"text": {"type": "string"}, "entities": {"type": "array", "items": _SPAN}},
}
_LABEL = {
    "type": "object",
    "required": ["text", "scores"],
    "properties": {
        "text": {"type": "string"},
        "label": {"type": ["string", "null"]},
        "labels": {"type": "array", "items": {"type": "string"}},
        "score": {"type": "number"},
        "scores": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}
OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Entities and labels of texts",
        "version": "1",
        "description": "Exported models behind HTTP: texts to answers, and TensorFlow Serving's REST API.",
    },
    "paths": {
        "/": {
            "get": {
                "summary": "a page to try the models",
                "security": [],
                "responses": {"200": {"description": "the page", "content": {"text/html": {}}}},
            }
        },
        "/about": _get("the models that are served", {"$ref": "#/components/schemas/About"}, **{"503": _ERROR}),
        "/entities": _post("entities of texts", "Texts", _answers(_ENTITIES)),
        "/classify": _post("labels of texts", "Texts", _answers(_LABEL)),
        "/answers": _post("answers of a model of any task", "Texts", _answers(_OBJECT)),
        "/healthz": _get("whether the server runs", _OBJECT),
        "/readyz": _get("whether all models are loaded and warm", _OBJECT, **{"503": _json(_OBJECT, "not yet")}),
        "/metrics": {
            "get": {
                "summary": "counts for Prometheus",
                "responses": {"200": {"description": "text", "content": {"text/plain": {}}}},
            }
        },
        "/openapi.json": _get("this description", _OBJECT),
        **_of_place(_MODEL),
        **_of_place(f"{_MODEL}/versions/{{version}}", "version"),
        **_of_place(f"{_MODEL}/labels/{{label}}", "label"),
    },
    "security": [{"bearer": []}, {"key": []}, {}],
    "components": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        },
        "schemas": {
            "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
            "Texts": {
                "type": "object",
                "required": ["texts"],
                "additionalProperties": False,
                "properties": {
                    "texts": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                    "model": {
                        "type": ["string", "null"],
                        "description": "its name; without it the first that fits the path",
                    },
                    "version": {
                        "type": ["integer", "string", "null"],
                        "description": "a number, or a label such as stable or canary; without it stable",
                    },
                },
            },
            "Predict": {
                "type": "object",
                "properties": {
                    "signature_name": {"type": "string", "enum": ["", "serving_default", "tokenized"]},
                    "instances": {"type": "array", "minItems": 1, "description": "inputs row by row"},
                    "inputs": {"description": "inputs column by column"},
                },
            },
            "About": {
                "type": "object",
                "required": ["models", "task", "model", "title", "labels", "sample_text"],
                "properties": {
                    "models": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": [
                                "name", "task", "title", "labels", "sample_text", "versions", "stable", "canary",
                                "runtime",
                            ],
                        },
                    }
                },
            },
        },
    },
}  # fmt: skip


def describe_route(
    path: str,
    summary: str,
    *,
    method: str = "GET",
    fields: Mapping[str, Any] | None = None,
    required: Sequence[str] = (),
    query: Mapping[str, Mapping[str, Any]] | None = None,
    status: int = 200,
) -> None:
    """Adds a route of another module to the description.

    Args:
        path: with its parameters in braces.
        summary: what it is for.
        method: of HTTP.
        fields: of the body, name -> schema; None = it takes none.
        required: those that must be there.
        query: parameters, name -> description and schema.
        status: of a good answer.
    """
    refused = _REFUSED if method == "GET" else {**_REFUSED, "507": _ERROR}
    operation: dict[str, Any] = {"summary": summary, "responses": {str(status): _json(_OBJECT, summary), **refused}}
    if query:
        operation["parameters"] = [
            {"name": name, "in": "query", **described} for name, described in query.items()
        ]
    if fields is not None:
        schema = {"type": "object", "required": list(required), "properties": dict(fields)}
        operation["requestBody"] = {"required": bool(required), "content": {"application/json": {"schema": schema}}}
    item = OPENAPI["paths"].setdefault(path, {})
    item[method.lower()] = operation
    if names := re.findall(r"{(\w+)}", path):
        item["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
