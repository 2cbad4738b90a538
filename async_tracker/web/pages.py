"""The page itself: one document for every screen, and what it loads, compressed once and named by its hash."""

import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from async_tracker.web.screens import SCREENS

SCREEN_NAMES = ("overview", *SCREENS)

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    media_type: str
    plain: bytes
    compressed: bytes


class Pages:
    """The document and the assets of one app. All links in them are relative to the folder that the page is in."""

    def __init__(self) -> None:
        folder = resources.files(__package__).joinpath("assets")
        files = sorted((item for item in folder.iterdir() if item.is_file()), key=lambda item: item.name)
        read = {item.name: item.read_bytes() for item in files}
        self._document = read.pop("page.html").decode()
        self._assets = {name: _asset(name, as_sent(name, content)) for name, content in read.items()}
        digest = hashlib.sha256(b"\0".join(name.encode() + b"\0" + content for name, content in read.items()))
        self.version = digest.hexdigest()[:12]

    def asset(self, version: str, name: str, request: Request) -> Response | None:
        """Give an asset, for ever the same under this name; None where there is none."""
        found = self._assets.get(name)
        if found is None or version != self.version:
            return None
        return _compressed(found, request, cache="public, max-age=31536000, immutable")

    def document(self, request: Request, settings: Mapping[str, Any]) -> Response:
        """Give the document of a screen; ``settings`` are what its scripts must know at once."""
        modules = "".join(
            f'<link rel="modulepreload" href="assets/{self.version}/{name}">'
            for name in self._assets
            if name.endswith(".js") and name not in ("sharer.js", "main.js")
        )
        filled = {
            "title": escape(str(settings["title"])),
            "assets": f"assets/{self.version}",
            "modules": modules,
            "settings": escape(json.dumps({**settings, "version": self.version})),
        }
        content = re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], self._document).encode()
        return _compressed(_asset("page.html", content), request, cache="no-store")


_BESIDE_CODE = re.compile(r"/\*\* @\w+ .*?\*/ ?| +// [^\"'`]*$")
_BESIDE_OPERATORS = re.compile(r" (=>|===|!==|&&|\|\||\?\?|=) |(?<=\{) | (?=\})")
_BESIDE_MARKS = re.compile(r"(?<=[:;,{}]) | (?=[{}])")


def as_sent(name: str, content: bytes) -> bytes:
    """Leave out of a script, or of a style, what only its readers need: indents, empty lines, types and comments.

    >>> as_sent("a.js", b"// says what\\n  let a = /** @type {any} */ (1);  // one\\n\\n/**\\n * @param {number} b\\n */\\nf();\\n")
    b'let a=(1);\\nf();'
    >>> as_sent("a.css", b".a { color: red; }\\n")
    b'.a{color:red;}'
    """
    lines = [line for line in (line.strip() for line in content.decode().split("\n")) if line]
    if name.endswith(".css"):
        return "\n".join(_BESIDE_MARKS.sub("", line) for line in lines).encode()
    if not name.endswith(".js"):
        return content
    kept, is_comment = [], False
    for line in lines:
        is_comment = is_comment or (line.startswith("/**") and "*/" not in line)
        is_whole = line.startswith("//") or (line.startswith("/**") and line.endswith("*/"))
        if not is_comment and not is_whole:
            kept.append(_BESIDE_OPERATORS.sub(lambda found: found[1] or "", _BESIDE_CODE.sub("", line)))
        is_comment = is_comment and "*/" not in line
    return "\n".join(kept).encode()


def _asset(name: str, content: bytes) -> Asset:
    media_type = _TYPES.get(name.rpartition(".")[2], "text/html; charset=utf-8")
    return Asset(media_type, content, gzip.compress(content, 9, mtime=0))


def _compressed(asset: Asset, request: Request, *, cache: str) -> Response:
    takes_gzip = any(part.split(";")[0].strip() == "gzip" for part in request.headers.get("accept-encoding", "").split(","))
    headers = {"cache-control": cache, "vary": "accept-encoding"}
    if takes_gzip:
        return Response(asset.compressed, media_type=asset.media_type, headers={**headers, "content-encoding": "gzip"})
    return Response(asset.plain, media_type=asset.media_type, headers=headers)
