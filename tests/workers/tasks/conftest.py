import tempfile
from pathlib import Path
from typing import Any

import pytest

from bridge.aegis_redis import AegisRedis


@pytest.fixture
def temp_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system temporary folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def ctx(redis: AegisRedis) -> dict[str, Any]:
    """What a worker of the queue ``arq:queue:load_test`` hands to the first try of a job."""
    redis.default_queue_name = "arq:queue:load_test"
    return {"redis": redis, "job_id": "job-1", "job_try": 1}
