"""Behind Debian's nginx without options, with a prefix that it takes off or leaves, and over a unix socket."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import httpx
import pytest

from tests.harness.ports import TakePort
from tests.harness.wait import wait_until
from tests.harness.workers import Workers
from tests.web.test_live import following

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""

CONFIGURATION = """
{user} daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
  fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; {locations} }}
}}
"""


@pytest.fixture
def nginx(workers: Workers, tmp_path: Path, take_port: TakePort) -> Callable[[str], str]:
    """``nginx(locations)``: start it, and give its address."""
    if not NGINX:
        pytest.skip("needs nginx: apt-get install --no-install-recommends nginx-light")

    def start(locations: str) -> str:
        port = take_port()
        user = "user root;" if os.geteuid() == 0 else ""  # who starts it owns the test's folder
        (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(folder=tmp_path, port=port, locations=locations, user=user))
        workers.start_program([NGINX, "-e", "stderr", "-c", str(tmp_path / "nginx.conf")])
        return f"http://127.0.0.1:{port}"

    return start


async def reached(url: str) -> httpx.Response:
    async def ask() -> httpx.Response | None:
        try:
            async with httpx.AsyncClient() as client:
                found = await client.get(url)
        except httpx.TransportError:
            return None
        return found if found.status_code < 500 else None

    found = await wait_until(ask, timeout=20.0, description=f"{url} is reached")
    assert found is not None
    return found


async def test_events_arrive_one_by_one_through_a_bare_proxy(serve, nginx):
    served = serve()
    front = nginx(f"location / {{ proxy_pass {served.base.rstrip('/')}; }}")
    await reached(f"{front}/healthz")
    headers = {"authorization": f"Bearer {served.token}"}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=front, headers=headers, timeout=30.0))
        heard = await stack.enter_async_context(following(client, "overview"))
        await wait_until(lambda: heard.events, timeout=20.0, description="the first event comes through")
        direct = await stack.enter_async_context(following(await stack.enter_async_context(served.program()), "overview"))
        await wait_until(lambda: direct.events > 3, timeout=30.0, description="some more are sent")
        served.process.suspend()  # nothing follows that could push on what the proxy might hold back
        sent = direct.rounds[-2]
        await wait_until(lambda: heard.rounds[-1] >= sent, timeout=20.0, description="what was sent has come through")
        served.process.resume()


@pytest.mark.parametrize("takes_off", [True, False])
async def test_a_prefix_works_whether_or_not_the_proxy_takes_it_off(serve, nginx, takes_off: bool, take_port):
    port = take_port()
    front = nginx(f"location /ops/ {{ proxy_set_header Host $http_host; proxy_pass http://127.0.0.1:{port}{'/' if takes_off else ''}; }}")
    served = serve("--port", str(port), "--public-url", f"{front}/ops")
    await reached(f"{front}/ops/healthz")
    async with httpx.AsyncClient(follow_redirects=True) as client:
        page = await client.get(served.url)
        assert (page.status_code, str(page.url)) == (200, f"{front}/ops/")
        assert "Path=/ops" in page.history[0].headers["set-cookie"]
        assert (await client.get(f"{front}/ops/jobs")).status_code == 200
        assert (await client.get(f"{front}/ops/api/v1/snapshot")).status_code == 200
        assert (await client.get(f"{front}/ops/{page.text.split('href=')[2].split(chr(34))[1]}")).status_code == 200


UNIX_HOST = """
import sys
import uvicorn
from async_tracker import Tracker
from async_tracker.web import create_app, local_only
tracker = Tracker(namespace=sys.argv[2], redis_options={"url": sys.argv[1]})
uvicorn.run(create_app(tracker, authorize=local_only), uds=sys.argv[3], proxy_headers=sys.argv[4] == "yes", log_level="info")
"""


@pytest.mark.parametrize("proxy_headers", ["yes", "no"])
async def test_local_only_does_not_take_a_proxy_on_a_unix_socket_for_this_machine(
    workers, nginx, redis_url, namespace, tmp_path, proxy_headers: str
):
    path = tmp_path / "page.sock"
    host = workers.start_program([sys.executable, "-c", UNIX_HOST, redis_url, namespace, str(path), proxy_headers])
    await anyio.to_thread.run_sync(host.wait_for_output, "Uvicorn running")
    front = nginx(f"location / {{ proxy_http_version 1.1; proxy_set_header Host localhost; proxy_pass http://unix:{path}; }}")
    assert (await reached(f"{front}/healthz")).text == "ok"
    assert (await reached(f"{front}/api/v1/instances")).status_code == 403


async def test_local_only_refuses_what_a_bare_proxy_forwards_by_old_http(workers, nginx, redis_url, namespace, take_port):
    """A bare nginx speaks HTTP/1.0 to what is behind it; the docstring warns of one that does not."""
    port = take_port()
    program = UNIX_HOST.replace("uds=sys.argv[3], proxy_headers", "port=int(sys.argv[3]), proxy_headers")
    host = workers.start_program([sys.executable, "-c", program, redis_url, namespace, str(port), "no"])
    await anyio.to_thread.run_sync(host.wait_for_output, "Uvicorn running")
    front = nginx(f"location / {{ proxy_pass http://127.0.0.1:{port}; }}")
    assert (await reached(f"{front}/api/v1/instances")).status_code == 403
