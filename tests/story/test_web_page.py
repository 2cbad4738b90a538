"""docs/web.md: each app that it shows serves the page, and what it says of the command is true."""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import django.conf
import httpx
import pytest

from async_tracker.cli.program import program
from async_tracker.web.access import ACTIONS
from async_tracker.web.pages import SCREEN_NAMES
from tests.story.snippets import ROOT, snippet, table

PAGE = "docs/web.md"
Load = Callable[..., ModuleType]


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost:8000", follow_redirects=True, **options)


async def closed(shown: ModuleType) -> None:
    """Close what a snippet leaves open for as long as its process lives."""
    await shown.page.aclose()
    await shown.page._tracker.aclose()


async def serves_the_page(app: Any, **options: Any) -> None:
    async with client_of(app, **options) as client:
        for address, final in (("/tracker", "/tracker/"), ("/tracker/", "/tracker/"), ("/tracker/jobs?q=a", "/tracker/jobs?q=a")):
            page = await client.get(address)
            assert (page.status_code, str(page.url)) == (200, f"http://localhost:8000{final}"), address
            [script] = re.findall(r'src="(assets/[^"]+/main.js)"', page.text)
            assert (await client.get(f"/tracker/{script}")).status_code == 200
        assert (await client.get("/tracker/api/v1/snapshot")).status_code == 200
        assert (await client.get("/tracker/healthz")).text == "ok"


async def test_mounted_in_fastapi(load: Load, as_a_user: str):
    shown = load(PAGE, "fastapi_app.py")
    await serves_the_page(shown.app, headers={"x-user": "carl"})
    recover, same_origin = "/tracker/api/v1/recover", {"sec-fetch-site": "same-origin"}
    async with client_of(shown.app) as client:
        assert (await client.get("/tracker/")).status_code == 403
    async with client_of(shown.app, headers={"x-user": "carl"}) as client:
        assert (await client.post(recover, headers=same_origin)).status_code == 405
    async with client_of(shown.app, headers={"x-user": "anna"}) as client:
        assert (await client.post(recover, headers=same_origin)).status_code == 200
    await closed(shown)


@pytest.mark.parametrize("name", ["starlette_app.py", "litestar_app.py", "without_redirects.py"])
async def test_mounted_in_another(as_a_user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    (tmp_path / name).write_text(snippet(PAGE, name).text)
    monkeypatch.syspath_prepend(tmp_path)
    shown = importlib.import_module(Path(name).stem)  # as a file: Litestar looks at the module that a handler stands in
    await serves_the_page(shown.app)
    await closed(shown)


async def test_mounted_in_django(load: Load, as_a_user: str):
    if not django.conf.settings.configured:
        django.conf.settings.configure(SECRET_KEY="of the test", ROOT_URLCONF="tests.story.test_web_page", ALLOWED_HOSTS=["localhost"])
    shown = load(PAGE, "asgi.py")
    await serves_the_page(shown.application)
    async with client_of(shown.application) as client:
        assert (await client.get("/trackers")).status_code == 404
    await closed(shown)


urlpatterns: list[Any] = []


async def test_single_sign_on_decides_by_group(load: Load, as_a_user: str):
    shown = load(PAGE, "sso.py")
    statuses = {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=shown.app), base_url="https://ops.example.com") as client:
        for group in ("operators", "developers", "guests"):
            headers = {"x-auth-request-groups": group, "sec-fetch-site": "same-origin", "x-auth-request-email": f"{group}@example.com"}
            asked = [await client.get("/tracker/", headers=headers)]
            asked += [await client.post(f"/tracker/api/v1/{action}", headers=headers) for action in ("recover", "quarantine/x/retry")]
            statuses[group] = [answer.status_code for answer in asked]
        events = (await client.get("/tracker/api/v1/events", headers={"x-auth-request-groups": "operators"})).json()["events"]
    assert statuses == {"operators": [200, 200, 404], "developers": [200, 405, 404], "guests": [403, 403, 403]}
    assert [event["details"]["by"] for event in events] == ["operators@example.com"]
    await closed(shown)


def test_the_options_are_those_of_the_command():
    rows = table(PAGE, under="By itself: `async-tracker serve`")
    shown = {name for row in rows for name in re.findall(r"--[\w-]+", row["option"])}
    given = {name for option in program.commands["serve"].params for name in option.opts}
    assert shown == given - {"--redis-url", "--namespace", "--arq-redis-url", "--dramatiq-redis-url", "--json"}


def test_every_screen_and_every_action_is_on_the_page():
    assert [row["screen"].lower() for row in table(PAGE, under="The screens")] == list(SCREEN_NAMES)
    text = (ROOT / PAGE).read_text()
    assert [action for action in ACTIONS if f"`{action}`" not in text] == []


def test_the_container_runs_a_command_that_there_is():
    entry = re.search(r"ENTRYPOINT \[(.*)\]", snippet(PAGE, "page.Dockerfile").text)
    assert entry is not None
    words = [word.strip(' "') for word in entry[1].split(",")]
    done = subprocess.run([sys.executable, "-m", "async_tracker.cli", *words[1:]], capture_output=True, text=True, check=False)
    assert (done.returncode, "token file" in done.stderr) == (2, True)
