"""The API as an OpenAPI 3.1 document, generated from the options that requests may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srgan_cli import __version__
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.serving.making import mime_of
from srgan_cli.serving.settings import Questions, ServeOptions

_JSON = "application/json"
_NO_TOKEN = "The token is missing or wrong."


def document(questions: Questions, options: ServeOptions) -> dict[str, Any]:
    secured = options.token is not None
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "srgan",
            "version": __version__,
            "description": "Enlarges pictures. Options are those of `srgan upscale`, in the address or as fields "
            "of the form.",
        },
        "security": [{"token": []}] if secured else [],
        "paths": {
            "/v1/upscale": {"post": _upscale(questions, options)},
            "/v1/jobs": {"post": _new_job(questions, options)},
            "/v1/jobs/{id}": {
                "get": _about_job("The state of a job.", "getJob", {"200": _json("Its state.", "Job")}),
                "delete": _about_job("End a job and remove it.", "deleteJob", {"204": {"description": "Removed."}}),
            },
            "/v1/jobs/{id}/events": {
                "get": _about_job(
                    "Server-sent events `job` with the job's state, at every change and at least every ten seconds, "
                    "until it has ended.", "jobEvents",
                    {"200": {"description": "Events.", "content": {"text/event-stream": {}}}},
                )
            },
            "/v1/jobs/{id}/result": {
                "get": _about_job(
                    "The picture. It is kept until the job is deleted, or it has not been requested for some time.",
                    "jobResult",
                    {"200": _picture(), "409": _problem("It is not done."), "default": _problem("Why it failed.")},
                )
            },
            "/v1/jobs/{id}/compare": {
                "get": _about_job(
                    "A page with the picture before and after under a slider.", "jobCompare",
                    {"200": {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}},
                     "409": _problem("It is not done."),
                     "413": _problem("The result is too large for a page; its job has no link to this one.")},
                )
            },
            "/v1/models": {"get": _plain("The available models.", "models", {"200": _json("The models.", "Models")})},
            "/v1/openapi.json": {"get": _plain("This document.", "openapi", {"200": {"description": "The document."}})},
            "/healthz": {
                "get": {**_plain("Whether the server is running.", "health", {"200": {"description": "Running."}}),
                        "security": []}
            },
            "/metrics": {
                "get": _plain("Counters for Prometheus.", "metrics",
                              {"200": {"description": "The counters.", "content": {"text/plain": {}}}})
            },
        },
        "components": {"schemas": _SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }  # fmt: skip


def _upscale(questions: Questions, options: ServeOptions) -> dict[str, Any]:
    summary = "Enlarge a picture; the answer is the result. The work stops if the client disconnects."
    return _made(questions, options, summary, "upscale", {"200": _picture()})


def _new_job(questions: Questions, options: ServeOptions) -> dict[str, Any]:
    summary = "The same as a job, for large pictures: ask for its state, or watch its events."
    taken = {"202": _json("The job is in the queue; Location is its address.", "Job")}
    return _made(questions, options, summary, "createJob", taken)


def _made(
    questions: Questions, options: ServeOptions, summary: str, name: str, success: dict[str, Any]
) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": name,
        "parameters": _parameters(questions),
        "requestBody": _body(questions),
        "responses": {**success, **_refusals(options)},
    }


def _parameters(questions: Questions) -> list[dict[str, Any]]:
    name = {"name": "name", "in": "query", "required": False, "schema": {"type": "string"},
            "description": "The picture's name, from which the result's follows; a form's file has one."}  # fmt: skip
    return [
        name,
        *({"name": one.name, "in": "query", "required": False, "schema": one.schema, "description": one.description}
          for one in questions.parameters),
    ]  # fmt: skip


def _body(questions: Questions) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    fields = {one.name: {**one.schema, "description": one.description} for one in questions.parameters}
    form = {"type": "object", "required": ["picture"], "properties": {"picture": binary, **fields}}
    readable = {mime_of(name): {"schema": binary} for name in FORMATS}
    return {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": binary}, **readable, "multipart/form-data": {"schema": form},
        },
    }  # fmt: skip


def _refusals(options: ServeOptions) -> dict[str, Any]:
    return {
        "400": _problem("An option is not valid."),
        "401": _problem(_NO_TOKEN),
        "408": _problem("The upload stopped or was too slow."),
        "413": _problem(
            f"More than {options.max_bytes / 1e6:g} MB, {options.max_pixels / 1e6:g} million px, or "
            f"{options.max_result_pixels / 1e6:g} million px of result."
        ),
        "422": _problem("The file is not a picture, is damaged, or the result cannot be written as requested."),
        "429": _problem("The queue is full; Retry-After says when to ask again."),
        "503": _problem("The device failed, or has too little memory."),
        "504": _problem(f"It took longer than {options.timeout_s:g} s."),
    }


def _picture() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = {mime_of(name): binary for name, known in FORMATS.items() if known.writable}
    headers = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in (
            ("X-Srgan-Size", "Width and height in px: 1352x900."),
            ("X-Srgan-Model", "The model that made it."),
            ("X-Srgan-Why", "Why this model was chosen."),
            ("X-Srgan-Notes", "Notes on the result, as a JSON list of sentences."),
        )
    }
    return {"description": "The result.", "headers": headers, "content": content}


def _about_job(summary: str, name: str, responses: Mapping[str, Any]) -> dict[str, Any]:
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    more = {**responses, "401": _problem(_NO_TOKEN), "404": _problem("There is no such job, or it was removed.")}
    return {"summary": summary, "operationId": name, "parameters": [parameter], "responses": more}


def _plain(summary: str, name: str, responses: Mapping[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "operationId": name, "responses": dict(responses)}


def _json(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _problem(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_SCHEMAS: dict[str, Any] = {
    "Problem": {"type": "object", "properties": {"title": _TEXT, "status": _WHOLE, "detail": _TEXT}},
    "Job": {
        "type": "object",
        "properties": {
            "id": _TEXT, "name": _TEXT, "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
            "fraction": _NUMBER, "position": _WHOLE, "result": {"$ref": "#/components/schemas/Result"},
            "problem": {"$ref": "#/components/schemas/Problem"},
            "links": {"type": "object", "additionalProperties": _TEXT},
        },
    },
    "Result": {
        "type": "object",
        "properties": {
            "name": _TEXT, "type": _TEXT, "bytes": _WHOLE, "width": _WHOLE, "height": _WHOLE, "model": _TEXT,
            "why": _TEXT, "seconds": _NUMBER, "notes": {"type": "array", "items": _TEXT},
        },
    },
    "Models": {
        "type": "object",
        "properties": {
            "default": _TEXT,
            "models": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": _TEXT, "family": _TEXT, "scale": _WHOLE, "description": _TEXT,
                                   "licence": _TEXT, "has_noise": {"type": "boolean"}, "own": {"type": "boolean"}},
                },
            },
        },
    },
}  # fmt: skip
