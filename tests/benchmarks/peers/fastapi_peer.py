"""FastAPI on uvicorn, with an arq pool of its own for each request, as tutorials have it, for ``http``."""

import sys
from typing import Any

import uvicorn
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
redis_settings = RedisSettings(port=int(sys.argv[2]))


class Request(BaseModel):
    """The body that is posted."""

    task_name: str
    queue_type: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


@app.post("/api/v1/tasks/enqueue", status_code=202)  # type: ignore[untyped-decorator, unused-ignore]
async def enqueue(request: Request) -> dict[str, Any]:
    pool = await create_pool(redis_settings)
    queue = f"arq:queue:{request.queue_type}"
    try:
        job = await pool.enqueue_job(request.task_name, *request.args, _queue_name=queue, **request.kwargs)
    finally:
        await pool.aclose()
    assert job is not None
    return {"task_id": job.job_id, "task_name": request.task_name, "queue_type": request.queue_type}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", access_log=False)
