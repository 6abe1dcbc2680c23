"""The worker in Python: arq's constructor, arq's options, another class."""

from typing import Any

from arq.connections import RedisSettings

from workers.batch_worker import BatchWorker
from workers.task import task


async def send_welcome_email(ctx: dict[str, Any], user_id: int) -> str:
    """Greets a new user."""
    return f"user {user_id} was greeted"


def make_worker(redis_url: str, **options: Any) -> BatchWorker:
    """A worker of the queue ``mail`` that runs up to 20 jobs at a time."""
    return BatchWorker(
        [task(send_welcome_email, timeout=30, retry_on=(ConnectionError,))],
        queue_name="arq:queue:mail",
        redis_settings=RedisSettings.from_dsn(redis_url),
        max_jobs=20,
        **options,
    )


if __name__ == "__main__":
    make_worker("redis://localhost:6379").run()
