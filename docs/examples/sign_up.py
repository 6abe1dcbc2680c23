"""An application that enqueues from Python."""

from workers.pools import get_queue_pool


async def sign_up(user_id: int) -> str | None:
    """The id of the job that will send the mail; None when the user has one coming already."""
    redis, _ = await get_queue_pool("mail")
    job = await redis.enqueue_job("send_welcome_email", user_id, template="long", _job_id=f"welcome-{user_id}")
    return job.job_id if job else None
