"""Each rule of who may do what, by a request that breaks it."""

import logging
import re
import sys
import time
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from async_tracker import ConfigError
from async_tracker.web import Access, create_app, door, local_only
from async_tracker.web.access import reached_at
from async_tracker.web.app import Page
from async_tracker.web.door import ServedDoor
from tests.harness.wait import wait_until
from tests.web.conftest import lets_act, lets_read

PATHS = ("/", "/instances", "/api/v1/snapshot", "/api/v1/live", "/api/v1/openapi.json", "/metrics", "/assets/0/main.js", "/nothing")


async def test_mounted_without_authorize_everybody_is_refused_with_the_line_to_write(mount, caplog):
    with caplog.at_level(logging.WARNING, logger="async_tracker"):
        client = mount()
    assert len([record for record in caplog.records if "without authorize" in record.message]) == 1
    for path in PATHS:
        response = await client.get(path)
        assert response.status_code == 403, path
        assert "create_app(tracker, authorize=" in response.json()["error"]["message"]
    assert (await client.post("/api/v1/recover")).status_code == 403


async def test_health_is_told_to_anybody_in_one_word(mount):
    client = mount()
    assert [(await client.get(path)).text for path in ("/healthz", "/readyz")] == ["ok", "ok"]


async def test_not_ready_while_redis_is_away_and_healthy_all_the_same(mount, make_tracker, wire):
    client = mount(of=make_tracker(redis_options={"url": wire.url, "socket_connect_timeout": 0.5}))
    wire.refuse()
    assert ((await client.get("/readyz")).status_code, (await client.get("/healthz")).status_code) == (503, 200)


@pytest.mark.parametrize(
    ("peer", "host", "headers"),
    [
        ("10.0.0.7", "localhost", {}),
        ("127.0.0.1", "tracker.example.com", {}),
        ("127.0.0.1", "localhost", {"x-forwarded-for": "10.0.0.7"}),
        ("127.0.0.1", "localhost", {"x-forwarded-proto": "https"}),
        ("127.0.0.1", "localhost", {"forwarded": "for=10.0.0.7"}),
        ("127.0.0.1", "localhost", {"via": "1.1 proxy"}),
        ("127.0.0.1", "localhost", {"x-real-ip": "10.0.0.7"}),
    ],
)
async def test_local_only_lets_nobody_in_who_may_come_from_elsewhere(mount, peer: str, host: str, headers: dict[str, str]):
    client = mount(authorize=local_only, peer=peer, base_url=f"http://{host}:8000")
    assert (await client.get("/api/v1/instances", headers=headers)).status_code == 403


async def test_local_only_lets_this_machine_look_and_not_act(mount):
    client = mount(authorize=local_only)
    assert (await client.get("/api/v1/instances")).status_code == 200
    assert (await client.post("/api/v1/recover", headers={"sec-fetch-site": "same-origin"})).status_code == 405


@pytest.mark.parametrize(("version", "client"), [("1.0", ("127.0.0.1", 1)), ("1.1", None)])
async def test_local_only_takes_neither_old_http_nor_a_socket_for_this_machine(tracker, version: str, client: Any):
    page = create_app(tracker, authorize=local_only)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "http_version": version,
        "headers": [(b"host", b"localhost")],
    }
    await page({**scope, "client": client}, receive, send)
    assert sent[0]["status"] == 403


async def test_what_authorize_returns_by_mistake_opens_nothing(mount):
    async def sloppy(request: Any) -> Any:
        return True

    client = mount(authorize=sloppy)
    response = await client.get("/api/v1/instances")
    assert response.status_code == 409
    assert "return Access.NONE" in response.json()["error"]["message"]


async def test_actions_need_to_be_granted_each_by_its_name(mount):
    async def may_retry(request: Any) -> Any:
        return {"retry"}

    same_origin = {"sec-fetch-site": "same-origin"}
    looks, retries, acts = mount(authorize=lets_read), mount(authorize=may_retry), mount(authorize=lets_act)
    assert (await looks.post("/api/v1/quarantine/x/retry", headers=same_origin)).status_code == 405
    assert (await retries.post("/api/v1/quarantine/x/retry", headers=same_origin)).status_code == 404
    assert (await retries.post("/api/v1/quarantine/x/drop", headers=same_origin)).status_code == 405
    assert (await retries.post("/api/v1/recover", headers=same_origin)).status_code == 405
    assert (await acts.post("/api/v1/recover", headers=same_origin)).status_code == 200
    every = '["abort", "drop", "quiet", "recover", "resume", "retry", "stacks", "stop"]'
    for client, granted in (
        (looks, "[]"),
        (retries, '["retry"]'),
        (acts, every),
    ):
        shown = (await client.get("/")).text.replace("&quot;", '"')
        assert f'"actions": {granted}' in shown


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "https://ops.example.com"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "https://evil.example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://ops.example.com"}, 200),
        ({"authorization": "Bearer whatever-the-host-app-checks"}, 200),
    ],
)
async def test_what_changes_something_comes_from_the_page_itself_or_from_a_program(mount, headers: dict[str, str], status: int):
    client = mount(authorize=lets_act, public_urls=["https://ops.example.com/tracker"], base_url="https://ops.example.com")
    response = await client.post("/api/v1/recover", headers=headers)
    assert response.status_code == status, response.text


async def test_a_refused_origin_is_told_the_option(mount):
    response = await mount(authorize=lets_act).post("/api/v1/recover", headers={"origin": "http://ops.local:8000"})
    assert response.status_code == 403
    assert "public_urls" in response.json()["error"]["message"]


async def test_nothing_is_changed_by_a_get_and_no_other_site_is_invited(mount):
    client = mount(authorize=lets_act)
    for path in ("/api/v1/recover", "/api/v1/quarantine/x/retry", "/api/v1/quarantine/x/drop"):
        response = await client.get(path, headers={"origin": "https://evil.example.com"})
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert not [name for name in response.headers if name.startswith("access-control")]
    assert (await client.options("/api/v1/recover", headers={"origin": "https://evil.example.com"})).status_code == 405


async def test_a_mounted_page_is_its_hosts_affair_unless_public_urls_are_given(mount):
    assert (await mount(authorize=lets_read, base_url="http://anything").get("/")).status_code == 200
    named = mount(authorize=lets_read, public_urls=["https://ops.example.com/tracker"], base_url="https://elsewhere")
    response = await named.get("/")
    assert response.status_code == 421
    assert "public_urls" in response.json()["error"]["message"]


@pytest.mark.parametrize("url", ["ops.example.com", "ftp://ops", "https://me@ops", "https://ops/?a=b", "https://ops:port/"])
async def test_a_public_url_that_is_none_is_refused(tracker, url: str):
    with pytest.raises(ConfigError, match="write"):
        create_app(tracker, public_urls=[url])


async def test_every_answer_bears_the_security_headers(mount):
    client = mount(authorize=lets_act)
    for path in {*PATHS, "/healthz", "/api/v1/live?once=1"} - {"/api/v1/live"}:
        response = await client.get(path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "traceback" not in response.text.lower()


async def test_pages_and_data_are_kept_by_nobody_and_assets_for_ever(mount):
    client = mount(authorize=lets_read)
    page = await client.get("/")
    assert page.headers["cache-control"] == "no-store"
    assert (await client.get("/api/v1/instances")).headers["cache-control"] == "no-store"
    for found in re.findall(r'(?:src|href)="(assets/[^"]+)"', page.text):
        asset = await client.get(f"/{found}")
        assert (asset.status_code, "immutable" in asset.headers["cache-control"]) == (200, True), found


async def test_no_markup_has_a_script_or_a_style_of_its_own(mount):
    page = (await mount(authorize=lets_read).get("/")).text
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)


async def test_what_authorize_raises_is_no_traceback(mount, caplog):
    async def breaks(request: Any) -> Access:
        raise RuntimeError("secret detail")

    response = await mount(authorize=breaks).get("/")
    assert response.status_code == 500
    assert "secret detail" not in response.text
    assert "secret detail" in caplog.text


# async-tracker serve


async def test_the_printed_address_is_exchanged_for_a_session_and_leaves_the_token_nowhere(serve):
    served = serve()
    async with served.client() as client:
        assert (await client.get("")).status_code == 401
        exchanged = await client.get("instances", params={"token": served.token, "state": "alive"})
        assert (exchanged.status_code, exchanged.headers["location"]) == (303, "./instances?state=alive")
        cookie = exchanged.headers["set-cookie"]
        assert served.token not in cookie
        assert f"async_tracker_{served.base.split(':')[2].strip('/')}=" in cookie
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"} <= set(re.split("; ?", cookie))
        page = await client.get("instances")
        assert page.status_code == 200
        assert served.token not in page.text
    assert len(served.token) >= 43
    assert served.process.output().count(served.token) == 1


@pytest.mark.parametrize("change", ["nothing", "the end", "chance", "seal", "name", "token", "rubbish", "twelve hours later"])
async def test_a_session_holds_for_its_token_its_name_and_twelve_hours(tracker, monkeypatch: pytest.MonkeyPatch, change: str):
    token, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"

    def page_of(token: str, suffix: str = "8686") -> Page:
        at = reached_at([], host="127.0.0.1", port=8686)
        made = ServedDoor(token=token, reached=at, allows_actions=False, cookie_suffix=suffix)
        return Page(tracker, door=made, title=None, environment=None, streams_end_after=None)

    def client_of(page: Page) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=page), base_url="http://127.0.0.1:8686")

    async with client_of(page_of(token)) as client:
        cookie = (await client.get("/", params={"token": token})).cookies["async_tracker_8686"]
    assert token not in cookie
    chance, end, seal = cookie.split(".")
    assert int(end) - time.time() <= 12 * 3600
    given = {
        "the end": f"{chance}.{int(end) + 1}.{seal}",
        "chance": f"{chance[::-1]}.{end}.{seal}",
        "seal": f"{chance}.{end}.{seal[::-1]}",
        "rubbish": "..",
    }.get(change, cookie)
    suffix = "8687" if change == "name" else "8686"
    if change == "twelve hours later":
        monkeypatch.setattr(door, "time", SimpleNamespace(time=lambda: time.time() + 12 * 3600))
    async with client_of(page_of(other if change == "token" else token, suffix)) as client:  # another process
        answer = await client.get("/", headers={"cookie": f"async_tracker_{suffix}={given}"})
    assert answer.status_code == (200 if change == "nothing" else 401)


async def test_a_person_who_comes_without_the_token_is_told_so_in_words_and_a_program_in_json(serve_here):
    async with (await serve_here()).client() as client:
        page = await client.get("", headers={"accept": "text/html,*/*"})
        assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "open the address that async-tracker serve has printed" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "<script" not in (await client.get("%3Cscript%3E", headers={"accept": "text/html"})).text
        answer = await client.get("api/v1/jobs", headers={"accept": "text/html,*/*"})
        assert answer.json()["error"]["code"] == "unauthorized"


async def test_two_processes_have_two_tokens_and_the_cookie_of_one_is_none_of_the_other(serve):
    one, other = serve(), serve()
    assert one.token != other.token
    async with one.client() as client:
        await client.get("", params={"token": one.token})
        name, value = next(iter(client.cookies.items()))
    async with other.client(cookies={name: value, name.replace("async_tracker_", "async_tracker_0"): value}) as client:
        assert (await client.get("")).status_code == 401


async def test_a_wrong_token_costs_a_second_and_locks_out_nobody(serve):
    served = serve()
    async with served.client() as client:
        began = time.monotonic()
        answered: list[str] = []
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wrong, client, answered)
            await anyio.sleep(0.1)  # they are on their way
            assert (await client.get("api/v1/instances", headers={"authorization": f"Bearer {served.token}"})).status_code == 200
            answered.append("right")
        assert answered[-1] == "wrong"  # the right one was not put behind them
        assert time.monotonic() - began >= 2.0  # one after the other


async def wrong(client: httpx.AsyncClient, answered: list[str]) -> None:
    response = await client.get("", params={"token": "wrong"})
    assert (response.status_code, response.json()["error"]["code"]) == (401, "wrong_token")
    answered.append("wrong")


async def test_many_wrong_tokens_at_once_are_turned_away(tracker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door, "WRONG_TOKEN_COSTS", 3_600.0)
    token = "0123456789abcdef0123456789abcdef"
    at = reached_at([], host="127.0.0.1", port=8686)
    page = Page(
        tracker,
        door=ServedDoor(token=token, reached=at, allows_actions=False, cookie_suffix="8686"),
        title=None,
        environment=None,
        streams_end_after=None,
    )
    codes: list[int] = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=page), base_url="http://127.0.0.1:8686") as client:

        async def give(given: str) -> None:
            codes.append((await client.get("/", headers={"authorization": f"Bearer {given}"})).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(15):
                group.start_soon(give, "wrong")
            await wait_until(lambda: len(codes) == 5, description="ten wait, and five are turned away")
            await give(token)
            assert codes == [*[429] * 5, 200], "and the right one is let in at once"
            group.cancel_scope.cancel()
    await page.aclose()


async def test_a_program_gives_the_token_in_a_header_and_may_act_only_where_actions_are_switched_on(serve):
    for arguments, status in (((), 405), (("--allow-actions",), 200)):
        async with serve(*arguments).program() as program:
            assert (await program.get("api/v1/snapshot")).status_code == 200
            response = await program.post("api/v1/recover", json={"dry_run": True})
            assert response.status_code == status
            if status == 405:
                assert "--allow-actions" in response.json()["error"]["message"]


async def test_a_session_acts_only_from_the_page_itself(serve_here):
    served = await serve_here(allows_actions=True)
    async with served.client() as client:
        await client.get("", params={"token": served.token})
        own = served.base.rstrip("/")
        for headers, status in (
            ({}, 403),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"origin": "https://evil.example.com"}, 403),
            ({"sec-fetch-site": "same-origin"}, 200),
            ({"origin": own}, 200),
        ):
            response = await client.post("api/v1/recover", json={"dry_run": True}, headers=headers)
            assert response.status_code == status, headers


async def test_another_host_name_is_refused_so_that_no_rebound_name_reaches_it(serve):
    served = serve("--public-url", "https://ops.example.com")
    async with served.client() as client:
        for host, status in (("evil.example.com", 421), ("ops.example.com", 401), ("localhost:1", 421)):
            response = await client.get("", headers={"host": host})
            assert response.status_code == status, host
        assert "--public-url" in (await client.get("", headers={"host": "evil.example.com"})).json()["error"]["message"]
        assert (await client.get("healthz", headers={"host": "10.0.0.7"})).text == "ok"


async def test_a_public_url_gives_the_cookie_its_path_and_its_secure(tracker):
    token = "0123456789abcdef0123456789abcdef"
    reached = reached_at(["https://ops.example.com/tracker"], host="127.0.0.1", port=8686)
    served = ServedDoor(token=token, reached=reached, allows_actions=False, cookie_suffix="ops")
    page = Page(tracker, door=served, title=None, environment=None, streams_end_after=None)
    mounted = Starlette(routes=[Mount("/tracker", app=page)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=mounted), base_url="https://ops.example.com") as client:
        response = await client.get("/tracker/", params={"token": token})
        assert response.headers["location"] == "./"
        assert {"Path=/tracker", "Secure", "HttpOnly"} <= set(re.split("; ?", response.headers["set-cookie"]))
        assert (await client.get("/tracker/")).status_code == 200


async def test_other_machines_are_let_in_only_with_a_token_of_ones_own(workers, redis_url, tmp_path):
    def run(*arguments: str) -> tuple[int, str]:
        process = workers.start_program(
            [sys.executable, "-m", "async_tracker.cli", "serve", "--redis-url", redis_url, "--port", "0", *arguments]
        )
        return process.wait(), process.output()

    code, said = run("--host", "0.0.0.0")
    assert code == 2
    assert "--token-file" in said
    weak = tmp_path / "weak"
    weak.write_text("secret\n")
    code, said = run("--host", "0.0.0.0", "--token-file", str(weak))
    assert code == 2
    assert "22 characters" in said
    code, said = run("--token-file", str(tmp_path / "missing"))
    assert code == 2
    assert "cannot be read" in said


async def test_a_token_of_ones_own_is_not_printed(serve, tmp_path):
    token = "kq8Zr1xPw2Vb7Nf4Ls9Td3Gh6Jm0Yc5A"
    (tmp_path / "token").write_text(token + "\n")
    served = serve("--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))
    assert token not in served.process.output()
    async with served.client(headers={"authorization": f"Bearer {token}"}) as program:
        assert (await program.get("api/v1/instances")).status_code == 200


async def test_a_port_that_is_taken_is_said(serve, workers, redis_url):
    port = serve().base.split(":")[2].strip("/")
    process = workers.start_program([sys.executable, "-m", "async_tracker.cli", "serve", "--redis-url", redis_url, "--port", port])
    assert process.wait() == 2
    assert f"port {port}" in process.output()
