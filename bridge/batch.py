"""What is answered to a batch of requests: a verdict for each item."""

from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from bridge.errors import (
    DuplicateJob,
    InvalidArguments,
    InvalidQueueType,
    InvalidRequest,
    InvalidTaskName,
    RequestError,
)

__all__ = ["MOST_ITEMS", "BatchAnswer", "BatchVerdict", "ItemProblem", "problem_of"]

MOST_ITEMS: Final = 10_000
"""Of one batch."""
LONGEST_DETAIL_CHARS: Final = 500


class ItemProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why an item of a batch is not enqueued; ``path`` is where in that item."""

    code: str
    detail: str
    path: str | None = None


class BatchVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one item of a batch.

    Attributes:
        index: its place, from 0.
        status: ``enqueued``; ``duplicate``, its id is taken; ``refused``; ``unknown``, Redis went away before it said
            whether the job is stored; or ``untried``, Redis had gone away before: nothing of it is stored.
        task_id: of the job that is stored now, or whose id is taken, or that may be stored.
        event_id: of the job that is stored now.
        error: why it is not, or may not be.
    """

    index: int
    status: Literal["enqueued", "duplicate", "refused", "unknown", "untried"]
    task_id: str | UnsetType = UNSET
    event_id: str | UnsetType = UNSET
    error: ItemProblem | UnsetType = UNSET


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch: ``items`` in the order of the request, and how many of them have each status."""

    enqueued: int
    duplicates: int
    refused: int
    unknown: int = 0
    untried: int = 0
    items: list[BatchVerdict]


CODES: Final[dict[type[RequestError], str]] = {
    InvalidRequest: "invalid_request",
    InvalidTaskName: "invalid_task_name",
    InvalidQueueType: "invalid_queue_type",
    InvalidArguments: "invalid_arguments",
    DuplicateJob: "duplicate_job",
}
"""The same codes as of single requests."""


def problem_of(error: RequestError) -> ItemProblem:
    """What is wrong with an item, in a few words: there may be ten thousand of them."""
    detail = str(error)
    if len(detail) > LONGEST_DETAIL_CHARS:
        detail = f"{detail[:LONGEST_DETAIL_CHARS]}…"
    return ItemProblem(code=CODES[type(error)], detail=detail, path=getattr(error, "path", None))
