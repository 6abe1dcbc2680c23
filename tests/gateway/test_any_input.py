"""Whatever a caller sends, the answer is no fault of the gateway, and every error is a problem document."""

from urllib.parse import quote

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.problem import ENQUEUE, JSON

TASKS = ["io_simulation_task", "send_email", "print_label", "remind", "keep_anything", "cleanup_temp_files"]

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {"task_name": st.sampled_from(TASKS) | texts},
    optional={
        "queue_type": st.sampled_from(["load_test", "system", "mail", "media"]) | json_values,
        "args": st.lists(json_values, max_size=3) | json_values,
        "kwargs": st.dictionaries(
            st.sampled_from(["delay_ms", "user_id", "address", "at", "copies"]) | texts, json_values, max_size=3
        )
        | json_values,
        "delay_seconds": st.floats(0, 10**9) | json_values,
        "run_at": st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()) | json_values,
        "expires_seconds": st.floats(0, 10**9) | json_values,
        "task_id": st.text(st.characters(codec="ascii"), max_size=10) | json_values,
        "timeout_seconds": st.floats(0, 10**9) | json_values,
        "max_tries": st.integers(0, 2000) | json_values,
        "unknown": json_values,
    },
)
bodies = st.one_of(requests.map(msgspec.json.encode), json_values.map(msgspec.json.encode), st.binary(max_size=200))
header_values = st.binary(max_size=300) | st.text(st.characters(codec="ascii"), max_size=60).map(str.encode)
task_ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=50) | st.binary(max_size=50)

anything = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,  # the same inputs in every run: a red run of the suite is never bad luck
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # jobs of earlier inputs may stay
)


def assert_is_no_fault(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert problem.keys() >= {"type", "title", "status", "detail", "code"}


@anything
@given(body=bodies)
async def test_any_body(gateway: httpx.AsyncClient, body: bytes) -> None:
    answer = await gateway.post(ENQUEUE, content=body, headers=JSON)

    assert_is_no_fault(answer)
    if answer.status_code == 202:  # what is accepted can be read back
        status = await gateway.get(answer.headers["location"])
        assert status.status_code == 200, status.text
        assert status.json()["task_id"] == answer.json()["task_id"]


@anything
@given(body=bodies, key=header_values, traceparent=header_values)
async def test_any_headers(gateway: httpx.AsyncClient, body: bytes, key: bytes, traceparent: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"idempotency-key", key), (b"traceparent", traceparent)]
    assert_is_no_fault(await gateway.post(ENQUEUE, content=body, headers=headers))


@anything
@given(items=st.lists(bodies, max_size=5), media_type=st.sampled_from(["application/json", "application/jsonl"]))
async def test_any_batch(gateway: httpx.AsyncClient, items: list[bytes], media_type: str) -> None:
    content = b"[" + b",".join(items) + b"]" if media_type == "application/json" else b"\n".join(items)
    answer = await gateway.post(f"{ENQUEUE}/batch", content=content, headers={"Content-Type": media_type})
    assert_is_no_fault(answer)
    if answer.status_code == 202:
        told = answer.json()
        assert told["enqueued"] + told["duplicates"] + told["refused"] == len(told["items"])


@anything
@given(task_id=task_ids)
@pytest.mark.parametrize("route", ["status", "result"])
async def test_any_id(gateway: httpx.AsyncClient, route: str, task_id: str | bytes) -> None:
    answer = await gateway.get(f"/api/v1/tasks/{route}/{quote(task_id, safe='')}")
    assert_is_no_fault(answer)
