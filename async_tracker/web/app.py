"""The page as an ASGI app: what answers which address, who is asked first, and what no answer goes without."""

import logging
import re
from collections.abc import Awaitable, Callable, Sequence

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from async_tracker.errors import StorageError, TrackerError
from async_tracker.tracker import Tracker
from async_tracker.web.access import ORDERS, Authorize, Identify, Viewer, reached_at
from async_tracker.web.actions import Actions, tracker_problem
from async_tracker.web.answers import Problem, compact, refusal, refusal_for_people, with_security
from async_tracker.web.api import Api, live_topics, storage_problem
from async_tracker.web.document import openapi
from async_tracker.web.door import Door, MountedDoor
from async_tracker.web.exposition import Exposition
from async_tracker.web.live import MOUNTED_FOR, TOPICS_MOST, Live
from async_tracker.web.pages import SCREEN_NAMES, Pages
from async_tracker.web.readings import Readings

logger = logging.getLogger("async_tracker")

_READY_WITHIN = 2.0

Answer = Callable[[Request, Viewer, re.Match[str]], Awaitable[Response]]


def create_app(
    tracker: Tracker,
    *,
    authorize: Authorize | None = None,
    identify: Identify | None = None,
    public_urls: Sequence[str] = (),
    title: str | None = None,
    environment: str | None = None,
) -> "Page":
    """Make the page of a tracker: an ASGI app, to be mounted in any other.

    ``async def authorize(request) -> Access`` decides about each request: `Access.NONE`, `Access.READ`, `Access.ACT`, or a set of
    action names (``{"retry"}``: READ and these). Without it every request is refused. ``identify(request)`` names the user in the
    events that actions leave; without it the user that the host app has authenticated. ``public_urls`` are where the page is
    reached (``["https://ops.example.com/tracker"]``): then other Hosts are refused, and browsers that reach it by plain http may act.
    ``title`` is shown instead of the namespace, ``environment`` beside it (``"prod"`` in red).

    It opens Redis when it is first asked, reads while the page is open somewhere, and needs no lifespan. Raises ConfigError for a
    public url that cannot be read.
    """
    door = MountedDoor(authorize=authorize, identify=identify, reached=reached_at(public_urls))
    return Page(tracker, door=door, title=title, environment=environment, streams_end_after=MOUNTED_FOR)


class Page:
    """The app. `stop` ends its open streams at once, `aclose` whatever it runs; the tracker stays open."""

    def __init__(
        self, tracker: Tracker, *, door: Door, title: str | None, environment: str | None, streams_end_after: float | None
    ) -> None:
        self._tracker = tracker
        self._door = door
        self._title = title or tracker.namespace
        self._environment = environment
        self._readings = Readings(tracker)
        self._pages = Pages()
        self._live = Live(self._readings, ends_after=streams_end_after, version=self._pages.version)
        self._openapi = compact(openapi())
        self._exposition = Exposition(tracker)
        self._routes = self._make_routes()

    def stop(self) -> None:
        """End all open streams now, and refuse new ones."""
        self._live.stop()

    async def aclose(self) -> None:
        """End what runs in the background."""
        await self._live.aclose()
        await self._readings.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_securely(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": with_security(message.get("headers", ()))}
            await send(message)

        request = Request(scope, receive)
        path = path_of(scope)
        try:
            if path == "/api/v1/live" and request.method == "GET":
                await self._stream(request, path, scope, receive, send_securely)
                return
            response = await self._answer(request, path)
        except Problem as exc:
            is_person = not path.startswith("/api/") and "text/html" in request.headers.get("accept", "")
            response = refusal_for_people(exc) if is_person else refusal(exc)
        except StorageError as exc:
            response = refusal(storage_problem(exc))
        except TrackerError as exc:
            response = refusal(tracker_problem(exc))
        except ClientDisconnect:
            return
        except Exception:  # the edge of the app: no traceback leaves the process
            logger.exception("the page could not answer %s %s", request.method, path)
            response = refusal(Problem(500, "internal", "this is a mistake of async-tracker: its log says more"))
            if has_begun:
                return
        await response(scope, receive, send_securely)

    async def _stream(self, request: Request, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        admitted = await self._door.admit(request, path)
        if isinstance(admitted, Response):
            await admitted(scope, receive, send)
            return
        topics, once = live_topics(request, most=TOPICS_MOST)
        await self._live.stream(scope, receive, send, topics=topics, last_event_id=request.headers.get("last-event-id"), once=once)

    async def _answer(self, request: Request, path: str) -> Response:
        if path in ("/healthz", "/readyz"):
            return await self._health(request, path)
        if path == "":
            query = f"?{request.url.query}" if request.url.query else ""
            return Response(status_code=307, headers={"location": request.scope.get("root_path", "").rsplit("/", 1)[-1] + "/" + query})
        admitted = await self._door.admit(request, path)
        if isinstance(admitted, Response):
            return admitted
        allowed: list[str] = []
        for method, pattern, answer, action in self._routes:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            if request.method == method or (request.method == "HEAD" and method == "GET"):
                if action is not None and action not in admitted.actions:
                    raise Problem(405, "action_not_allowed", self._door.why_no_actions(), headers={"allow": ""})
                return await answer(request, admitted, found)
            if action is None or action in admitted.actions:
                allowed += [method, *(["HEAD"] if method == "GET" else [])]
        if any(pattern.fullmatch(path) for _, pattern, _, _ in self._routes):
            message = f"this address takes {', '.join(allowed)}" if allowed else self._door.why_no_actions()
            raise Problem(405, "method_not_allowed", message, headers={"allow": ", ".join(allowed)})
        raise Problem(404, "not_found", f"there is nothing at {path}")

    def _make_routes(self) -> list[tuple[str, re.Pattern[str], Answer, str | None]]:
        api, actions = Api(self._readings), Actions(self._readings)
        lists = {name: _rows(api, name) for name in ("instances", "jobs", "orphans", "quarantine", "queues", "events")}
        made: list[tuple[str, str, Answer, str | None]] = [
            ("GET", rf"/(?:(?!overview)(?:{'|'.join(SCREEN_NAMES)}))?", self._document, None),
            ("GET", r"/assets/(?P<version>[0-9a-f]+)/(?P<name>[\w.-]+)", self._asset, None),
            ("GET", r"/metrics", lambda request, viewer, found: self._exposition.answer(request), None),
            ("GET", r"/api/v1/openapi\.json", self._describe, None),
            ("GET", r"/api/v1/live", _live_takes_get, None),
            *(("GET", rf"/api/v1/{name}", answer, None) for name, answer in lists.items()),
            ("GET", r"/api/v1/snapshot", lambda request, viewer, found: api.snapshot(request), None),
            ("GET", r"/api/v1/functions", lambda request, viewer, found: api.functions(request), None),
            ("GET", r"/api/v1/history", lambda request, viewer, found: api.history(request), None),
            ("GET", r"/api/v1/doctor", lambda request, viewer, found: api.doctor(request), None),
            ("GET", r"/api/v1/instances/(?P<id>.+)", lambda request, viewer, found: api.instance(request, found["id"]), None),
            ("GET", r"/api/v1/jobs/(?P<id>.+)", lambda request, viewer, found: api.job(request, found["id"]), None),
            ("POST", r"/api/v1/recover", lambda request, viewer, found: actions.recover(request, viewer), "recover"),
            ("POST", r"/api/v1/quarantine/retry", lambda request, viewer, found: actions.retry_many(request, viewer), "retry"),
            ("POST", r"/api/v1/quarantine/drop", lambda request, viewer, found: actions.drop_many(request, viewer), "drop"),
            (
                "POST",
                r"/api/v1/quarantine/(?P<ref>.+)/retry",
                lambda request, viewer, found: actions.retry(request, viewer, found["ref"]),
                "retry",
            ),
            (
                "POST",
                r"/api/v1/quarantine/(?P<ref>.+)/drop",
                lambda request, viewer, found: actions.drop(request, viewer, found["ref"]),
                "drop",
            ),
            *(("POST", rf"/api/v1/instances/(?P<id>.+)/{name}", _order(actions, name), name) for name in ORDERS),
            (
                "POST",
                r"/api/v1/instances/(?P<id>.+)/stacks",
                lambda request, viewer, found: actions.stacks(request, viewer, found["id"]),
                "stacks",
            ),
            (
                "POST",
                r"/api/v1/jobs/(?P<id>.+)/abort",
                lambda request, viewer, found: actions.abort(request, viewer, found["id"]),
                "abort",
            ),
        ]
        return [(method, re.compile(pattern, re.DOTALL), answer, action) for method, pattern, answer, action in made]

    async def _document(self, request: Request, viewer: Viewer, found: re.Match[str]) -> Response:
        settings = {
            "title": self._title,
            "namespace": self._tracker.namespace,
            "environment": self._environment,
            "actions": sorted(viewer.actions),
            "ttl": self._tracker.settings.heartbeat_ttl,
            "now": self._readings.now_ms(),
        }
        return self._pages.document(request, settings)

    async def _asset(self, request: Request, viewer: Viewer, found: re.Match[str]) -> Response:
        response = self._pages.asset(found["version"], found["name"], request)
        if response is None:
            raise Problem(404, "not_found", "this version of the page is not served any more: load it again")
        return response

    async def _describe(self, request: Request, viewer: Viewer, found: re.Match[str]) -> Response:
        return Response(self._openapi, media_type="application/json", headers={"cache-control": "no-store"})

    async def _health(self, request: Request, path: str) -> Response:
        """Say one word, with or without a token: this process answers; and for ``/readyz`` so does Redis."""
        if request.method not in ("GET", "HEAD"):
            raise Problem(405, "method_not_allowed", "this address takes GET, HEAD", headers={"allow": "GET, HEAD"})
        word, status = "ok", 200
        if path == "/readyz":
            try:
                with anyio.fail_after(_READY_WITHIN):
                    await self._readings.get("instances")
            except (StorageError, TimeoutError):
                word, status = "unready", 503
        return Response(word, status, media_type="text/plain", headers={"cache-control": "no-store"})


def _order(actions: Actions, name: str) -> Answer:
    return lambda request, viewer, found: actions.order(request, viewer, found["id"], name)


def _rows(api: Api, name: str) -> Answer:
    async def answer(request: Request, viewer: Viewer, found: re.Match[str]) -> Response:
        return await api.rows(request, name)

    return answer


async def _live_takes_get(request: Request, viewer: Viewer, found: re.Match[str]) -> Response:
    """Answer HEAD: a stream has no length, and there is nothing to wait for."""
    return Response(media_type="text/event-stream", headers={"cache-control": "no-store, no-transform"})


def path_of(scope: Scope) -> str:
    """Give the path below where the app is mounted; '' for the mount's own name without its slash.

    >>> path_of({"path": "/tracker/jobs", "root_path": "/tracker"}), path_of({"path": "/jobs", "root_path": "/tracker"})
    ('/jobs', '/jobs')
    >>> path_of({"path": "/tracker", "root_path": "/tracker"}), path_of({"path": "/", "root_path": ""})
    ('', '/')
    """
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path
