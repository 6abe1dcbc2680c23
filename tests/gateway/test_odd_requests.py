"""Requests that nobody means well, and callers that are not who they were."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.event_stream import EventStream
from bridge.events import WorkerStarted
from bridge.scripts import NewEvent, Scripts
from bridge.tokens import KnownTokens
from tests.gateway.guarded import Guarded


@pytest.mark.parametrize("name", ["%00", "a" * 300, "swagger-ui.css/x", "a/" * 3000])
async def test_file_that_cannot_be_is_not_found(gateway: httpx.AsyncClient, name: str) -> None:
    assert (await gateway.get(f"/schema-assets/{name}")).status_code == 404


@pytest.mark.parametrize("place", ["0-0", "000-0", "\u0661-\u0661"])
async def test_cursor_before_every_event_is_refused(gateway: httpx.AsyncClient, place: str) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(["succeeded", place]).encode()).decode().rstrip("=")
    answer = await gateway.get("/api/v1/queues/load_test/jobs", params={"state": "succeeded", "cursor": cursor})
    assert answer.status_code == 400


@pytest.mark.parametrize("version", ["1.0.x", "x", "9", ""])
async def test_metrics_for_an_odd_version(gateway: httpx.AsyncClient, version: str) -> None:
    for kind in ("application/openmetrics-text", "text/plain"):
        answer = await gateway.get("/metrics", headers={"Accept": f"{kind};version={version}"})
        assert answer.status_code == 200


@pytest.mark.parametrize("job_id", ["f123456789ab7def8123456789abcdef", "0123456789ab7def8123456789abcdef"])
async def test_events_of_an_id_that_looks_like_one_of_ours(gateway: httpx.AsyncClient, job_id: str) -> None:
    await gateway.post("/api/v1/tasks/enqueue", json={"task_name": "noop_task", "task_id": job_id})
    found = (await gateway.get(f"/api/v1/tasks/{job_id}/events")).json()
    assert [event["kind"] for event in found] == ["job.enqueued"]


async def test_revoked_token_does_not_live_on_in_one_of_its_name(tmp_path: Path, catalog: Catalog) -> None:
    guarded = Guarded(tmp_path, catalog)
    text = guarded.token("events:read")
    known = KnownTokens(guarded.tokens)
    before = known.find(text.encode())
    assert before is not None
    assert known.has(before.caller)
    guarded.tokens.revoke("shop")
    guarded.token("events:read")
    known._look_at_s = 0
    known.refresh()
    assert not known.has(before.caller)


async def test_gap_is_told_where_redis_does_not_count(redis: AegisRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = Scripts(redis, events_max_len=1000)
    data = WorkerStarted(host="h", pid=1, queue="mail", max_jobs=1)
    ids = await scripts.report([NewEvent(data=data, queue="mail", worker=str(n)) for n in range(3)])
    await redis.xtrim(keys.EVENTS, maxlen=1, approximate=False)
    asked = redis.xinfo_stream

    async def as_6_2(*args: Any) -> Any:
        return {name: value for name, value in (await asked(*args)).items() if name != "entries-added"}

    monkeypatch.setattr(redis, "xinfo_stream", as_6_2)
    kinds = [event.kind for event in await EventStream(redis).history(ids[0])]
    assert kinds == ["stream.gap", "worker.started"]
