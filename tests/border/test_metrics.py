"""GET /metrics on real servers: what people do shows there, and who they are does not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.client import Visitor, stranger
from tests.live import METRICS_TOKEN, SERVERS, LiveServer, kept_servers
from tests.metrics import Samples, scraped

BEARER = {"Authorization": f"Bearer {METRICS_TOKEN}"}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """Of its own: no answer that another test left running is among the numbers."""
    with kept_servers() as servers:
        yield servers.of(request.param)


async def scrape(url: str, **headers: str) -> httpx.Response:
    async with stranger(url) as http:
        return await http.get("/metrics", headers=headers)


async def read(server: LiveServer) -> Samples:
    answer = await scrape(server.url, **BEARER)
    assert answer.status_code == 200
    return scraped(answer.text)


async def test_a_scraper_with_the_token_gets_prometheus_text_and_no_cookie(server: LiveServer):
    answer = await scrape(server.url, **BEARER)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    assert "# TYPE webchat_sessions gauge" in answer.text


async def test_what_people_do_shows_in_the_numbers(server: LiveServer, anna: Visitor, conv: str):
    before = await read(server)
    async with anna.socket(conv) as socket:
        await socket.until("timeline.snapshot")
        assert (await read(server))["webchat_sockets"][()] == before["webchat_sockets"][()] + 1
        await anna.chat("calculate 6*7", conv)
        await socket.until("inference.finished")
        cursor, head = socket.cursor, socket.seq or 0
    async with anna.socket(conv, cursor=cursor) as socket:
        await socket.frame()
    after = await read(server)

    def rose(name: str, *labels: str) -> float:
        return after[name][labels] - before.get(name, {}).get(labels, 0)

    assert rose("webchat_inferences_total", "default", "completed") == 1
    assert rose("webchat_time_to_first_token_seconds_count", "default") == 1
    assert rose("webchat_tool_calls_total", "success", "calc") == 1
    assert rose("webchat_frames_total") == head
    assert rose("webchat_frames_sent_total") == head
    assert rose("webchat_resumes_total", "resumed") == 1
    assert rose("webchat_snapshots_total", "first") == 1
    assert rose("webchat_socket_closes_total", "client") >= 1
    assert after["webchat_loop_lag_seconds_count"][()] > 0
    assert after["webchat_tasks"][()] > 0
    assert after["process_resident_memory_bytes"][()] > 0


async def test_no_label_grows_with_people_and_conversations(
    server: LiveServer, anna: Visitor, conv: str
):
    await anna.hear("unknown tool", conv)
    answer = await scrape(server.url, **BEARER)
    assert 'webchat_tool_calls_total{status="error",tool="unknown"}' in answer.text
    assert conv not in answer.text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-|visitor:|user\d", answer.text)
