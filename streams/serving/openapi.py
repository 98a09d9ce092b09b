"""The OpenAPI 3.1 document of what a worker answers, made of the types that it answers with."""

from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from thalweg.schemas.events import Request
from thalweg.schemas.outputs import Answer
from thalweg.streams.partition.knowledge import ItemKnown, UserKnown
from thalweg.streams.serving.problems import PROBLEM_TYPE, Problem

MADE_UP = ("id", "ts", "context")
PROBLEMS = {
    "400": "The question can't be read, or asks for what there is not.",
    "401": "The token is missing or another one.",
    "413": "The body or the list of candidates is too large.",
    "415": "The body is not declared as JSON.",
    "417": "What the client expects is not 100-continue.",
    "421": "The name of the host is not this worker's.",
    "500": "The worker failed.",
    "501": "The configured model cannot rank.",
    "503": "Ask again after Retry-After: the partition is being opened, or questions took their share of time.",
}
OF_BODIES = ("400", "401", "413", "415", "417", "421", "500", "501", "503")
OF_READING = ("400", "401", "421", "500", "503")
OPEN = ("400", "421", "500")


class Items(msgspec.Struct, frozen=True):
    """What each partition that is open on the asked worker knows of an item."""

    partitions: list[ItemKnown]


@cache
def document(*, has_token: bool = True) -> bytes:
    """Return the document as JSON; `has_token`: whether clients must send one."""
    _, schemas = msgspec.json.schema_components(
        (Request, Answer, UserKnown, Items, Problem), ref_template="#/components/schemas/{name}"
    )
    schemas["Question"] = question_of(schemas.pop("Request"))
    token = [{"token": list[str]()}] if has_token else []
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Thalweg worker",
            "version": version("thalweg"),
            "description": "Rankings from live state, each between two events of the log.",
        },
        "paths": {
            "/rank": {
                "post": {
                    **operation("rank", "Rank a user's candidates.", "Answer", OF_BODIES, token),
                    "parameters": [LOG],
                    "requestBody": BODY,
                }
            },
            "/score": {
                "post": {
                    **operation(
                        "score",
                        "Score every candidate, in the request's order; no option that leaves one out is taken.",
                        "Answer",
                        OF_BODIES,
                        token,
                    ),
                    "parameters": [LOG],
                    "requestBody": BODY,
                }
            },
            "/users/{id}": {
                "get": operation("user", "Report what is known of a user.", "UserKnown", OF_READING, token)
                | {"parameters": [ID]}
            },
            "/items/{id}": {
                "get": operation(
                    "item", "Report what this worker's partitions know of an item.", "Items", OF_READING, token
                )
                | {"parameters": [ID]}
            },
            "/openapi.json": {"get": operation("openapi", "This document.", None, OPEN, [])},
            "/ui": {"get": operation("ui", "A page that ranks and explains.", None, OPEN, [], "text/html")},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.encode(found)


LOG = {
    "name": "log",
    "in": "query",
    "description": "Also append the request to the input topic; the header Thalweg-Origin names where.",
    "schema": {"type": "boolean", "default": False},
}
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Question"}}},
}


def question_of(request: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a body: a request without its type, of which some fields are made up where left out."""
    properties = {name: each for name, each in request["properties"].items() if name != "type"}
    required = [name for name in request["required"] if name not in (*MADE_UP, "type")]
    return {**request, "title": "Question", "properties": properties, "required": required}


def operation(
    name: str,
    summary: str,
    schema: str | None,
    problems: tuple[str, ...],
    security: list[dict[str, list[str]]],
    content_type: str = "application/json",
) -> dict[str, Any]:
    """Return an operation with its answers."""
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}} if schema else {}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": {content_type: content}}}
    for status in problems:
        responses[status] = {
            "description": PROBLEMS[status],
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        if status == "503":
            responses[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return {"operationId": name, "summary": summary, "security": security, "responses": responses}
