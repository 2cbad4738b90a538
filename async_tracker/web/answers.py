"""What goes out: JSON documents, errors in one shape, and the headers that every answer bears."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from starlette.responses import Response

from async_tracker.records import jsonable

DOCUMENT_VERSION = 1
"""Version of every JSON document, as the command line's. New members may come; what is there keeps its name and meaning."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; worker-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Problem(Exception):
    """A request that is refused: the status, a code for programs and a sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def compact(content: Any) -> bytes:
    """Write JSON as short as it goes, in ASCII: whatever an id holds comes through."""
    return json.dumps(content, separators=(",", ":")).encode()


def document(content: Mapping[str, Any], *, status: int = 200) -> Response:
    """Answer with a versioned document that no cache may keep."""
    body = compact({"version": DOCUMENT_VERSION, **jsonable(content)})
    return Response(body, status, media_type="application/json", headers={"cache-control": "no-store"})


def refusal(problem: Problem) -> Response:
    """Answer with an error."""
    body = compact({"error": {"code": problem.code, "message": problem.message}})
    return Response(body, problem.status, media_type="application/json", headers={"cache-control": "no-store", **problem.headers})


def refusal_for_people(problem: Problem) -> Response:
    """Say the same to a person who has opened an address in a browser."""
    said = f"<h1>{problem.status}</h1><p>{escape(problem.message)}</p>"
    body = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>async-tracker</title><main>{said}</main></html>'
    return Response(body, problem.status, media_type="text/html", headers={"cache-control": "no-store", **problem.headers})


def with_security(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Add the security headers to those of an answer."""
    return [*headers, *SECURITY_HEADERS]
