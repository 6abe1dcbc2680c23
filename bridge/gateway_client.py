"""A gateway as a `bridge.backend.Backend`: the same answers and the same errors as from Redis, over HTTP."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from bridge.backend import (
    AbortAnswer,
    BatchAnswer,
    DeadPage,
    DeadStep,
    EventPage,
    JobPage,
    PauseAnswer,
    QueueList,
    RetryAnswer,
    TaskList,
    WorkerList,
)
from bridge.dead_letters import DeadFilter, Step
from bridge.enqueue import Enqueued, TaskRequest
from bridge.errors import (
    AegisError,
    ConfigurationError,
    DuplicateJob,
    Forbidden,
    GatewayProblem,
    GatewayUnreachable,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidQueueType,
    InvalidRequest,
    InvalidTaskName,
    JobNotFound,
    PayloadError,
    RateLimited,
    RequestTooLarge,
    RetryRefused,
    StoreUnreachable,
    Unauthorized,
    UnsupportedMediaType,
)
from bridge.event_stream import BEGINNING, END, EventFilter
from bridge.events import Event
from bridge.health import DetailedHealth
from bridge.inspector import JobResult, JobStatus, QueueStatus, State

if TYPE_CHECKING:
    import httpx

__all__ = ["GatewayClient"]

API: Final = "/api/v1"
TIMEOUT_S: Final = 10.0
"""Longest silence of a gateway that has something to do for us."""
LONG_POLL_S: Final = 20.0
"""A longer wait is asked for in parts: proxies cut what is silent for longer."""
SILENCE_S: Final = 40.0
"""A stream of events that is silent for longer is dead: the gateway sends a comment every 15 s."""
TRIES: Final = 4
LONGEST_PAUSE_S: Final = 5.0
"""A gateway that asks for more patience than this is told of instead of waited for."""
RECONNECT_EVERY_S: Final = 1.0

BUSY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses that may pass."""

ERRORS: Final[Mapping[str, type[AegisError]]] = {
    "invalid_request": InvalidRequest,
    "invalid_task_name": InvalidTaskName,
    "invalid_queue_type": InvalidQueueType,
    "invalid_arguments": InvalidArguments,
    "duplicate_job": DuplicateJob,
    "job_not_found": JobNotFound,
    "retry_refused": RetryRefused,
    "unsupported_media_type": UnsupportedMediaType,
    "request_too_large": RequestTooLarge,
    "idempotency_key_reused": IdempotencyKeyReused,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "rate_limited": RateLimited,
    "undecodable_payload": PayloadError,
    "store_unreachable": StoreUnreachable,
    "configuration_error": ConfigurationError,
}
"""``code`` of a problem -> the error it was on the other side; others are a `GatewayProblem`."""
NO_SUCH_ROUTE: Final = {"not_found", "method_not_allowed"}
OF_A_PROBLEM: Final = {"type", "title", "status", "detail", "code", "instance", "request_id"}

Answer = TypeVar("Answer")

event_decoder: Final = msgspec.json.Decoder(Event)
logger = logging.getLogger("aegis.gateway_client")


class GatewayClient:
    """Implements `bridge.backend.Backend`; use it as an async context manager, or `aclose` it.

    Args:
        url: of the gateway, ``https://tasks.example.org``; further path is kept.
        token: what it asks callers for, if it does; sent with every request, never shown.
        transport: another way to it than the network.

    Raises:
        ConfigurationError: the address is none.
    """

    def __init__(self, url: str, token: str = "", *, transport: "httpx.AsyncBaseTransport | None" = None) -> None:
        import httpx  # takes as long as a whole command on Redis

        self.address = read_url(url)
        is_encrypted = self.address.startswith("https:")
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT_S,
            transport=transport,
            trust_env=is_encrypted,  # a proxy of the environment would see the token otherwise
            verify=ssl.create_default_context() if is_encrypted else False,
        )

    async def __aenter__(self) -> "GatewayClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Its connections are closed."""
        await self._http.aclose()

    # --- tasks and jobs ---------------------------------------------------------------------------

    async def tasks(self) -> TaskList:
        """As in `Backend`."""
        return await self._get("/tasks/", TaskList)

    async def enqueue(
        self, request: TaskRequest, *, strict: bool = True, idempotency_key: str | None = None
    ) -> Enqueued:
        """As in `Backend`."""
        return await self._ask(
            "POST",
            "/tasks/enqueue",
            Enqueued,
            query={} if strict else {"strict": "false"},
            body=given(request),
            headers={} if idempotency_key is None else {"Idempotency-Key": in_quotes(idempotency_key)},
            is_repeatable=idempotency_key is not None,
        )

    async def enqueue_batch(self, items: Sequence[Any]) -> BatchAnswer:
        """As in `Backend`; in parts where the whole is larger than the gateway takes."""
        try:
            return await self._ask("POST", "/tasks/enqueue/batch", BatchAnswer, body=items, is_repeatable=False)
        except RequestTooLarge:
            if len(items) < 2:
                raise
        half = len(items) // 2
        return together(await self.enqueue_batch(items[:half]), await self.enqueue_batch(items[half:]), half)

    async def status(self, task_id: str) -> JobStatus:
        """As in `Backend`."""
        return await self._get(f"/tasks/status/{in_a_path(task_id)}", JobStatus)

    async def result(self, task_id: str, *, wait_s: float = 0) -> JobResult:
        """As in `Backend`."""
        deadline_s = time.monotonic() + wait_s
        while True:
            left_s = max(0.0, deadline_s - time.monotonic())
            part_s = min(left_s, LONG_POLL_S)
            found = await self._get(
                f"/tasks/result/{in_a_path(task_id)}", JobResult, query={"wait": part_s or None}, wait_s=part_s
            )
            if found.is_final or left_s <= LONG_POLL_S:
                return found

    async def abort(self, task_id: str, *, reason: str | None = None) -> AbortAnswer:
        """As in `Backend`."""
        return await self._post(f"/tasks/{in_a_path(task_id)}/abort", AbortAnswer, body={"reason": reason})

    async def retry(self, task_id: str) -> RetryAnswer:
        """As in `Backend`."""
        return await self._ask("POST", f"/tasks/{in_a_path(task_id)}/retry", RetryAnswer, is_repeatable=False)

    async def job_events(self, task_id: str) -> list[Event]:
        """As in `Backend`."""
        return await self._get(f"/tasks/{in_a_path(task_id)}/events", list[Event])

    # --- queues, dead letters, workers ------------------------------------------------------------

    async def queues(self) -> QueueList:
        """As in `Backend`."""
        return await self._get("/queues", QueueList)

    async def queue(self, name: str) -> QueueStatus:
        """As in `Backend`."""
        return await self._get(f"/queues/{await self._queue(name)}", QueueStatus)

    async def jobs(self, queue: str, *, state: State | None = None, cursor: str = "", limit: int = 50) -> JobPage:
        """As in `Backend`."""
        query = {"state": state, "cursor": cursor or None, "limit": limit}
        return await self._get(f"/queues/{await self._queue(queue)}/jobs", JobPage, query=query)

    async def pause(self, queue: str) -> PauseAnswer:
        """As in `Backend`."""
        return await self._post(f"/queues/{await self._queue(queue)}/pause", PauseAnswer)

    async def resume(self, queue: str) -> PauseAnswer:
        """As in `Backend`."""
        return await self._post(f"/queues/{await self._queue(queue)}/resume", PauseAnswer)

    async def workers(self) -> WorkerList:
        """As in `Backend`."""
        return await self._get("/workers", WorkerList)

    async def dead_letters(
        self, wanted: DeadFilter, *, cursor: str = "", limit: int = 50, with_traceback: bool = False
    ) -> DeadPage:
        """As in `Backend`."""
        path = "/dead" if wanted.queue is None else f"/queues/{await self._queue(wanted.queue)}/dead"
        if wanted.ids is not None and not wanted.ids:
            return DeadPage(letters=[], next_cursor=None)
        query = {**in_words(wanted), "cursor": cursor, "limit": limit, "traceback": with_traceback or None}
        return await self._get(path, DeadPage, query=query)

    def retry_dead(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """As in `Backend`."""
        return self._handle_dead(wanted, "retry")

    def purge_dead(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """As in `Backend`."""
        return self._handle_dead(wanted, "purge")

    async def _handle_dead(self, wanted: DeadFilter, how: Literal["retry", "purge"]) -> AsyncGenerator[Step, None]:
        """Queue after queue, each in as many requests as the gateway needs."""
        queues = [wanted.queue] if wanted.queue is not None else list((await self.tasks()).queues)
        which = in_words(wanted) or {"all": True}
        done = total = 0
        for queue in queues:
            path, cursor = f"/queues/{await self._queue(queue)}/dead/{how}", None
            while True:
                body = {**which, "cursor": cursor} if cursor else which
                step = await self._ask("POST", path, DeadStep, body=body, is_repeatable=False)
                yield Step(done + step.done, total + step.total, step.handled)
                cursor = step.next_cursor
                if step.complete or cursor is None:
                    break
            done, total = done + step.total, total + step.total

    # --- events -----------------------------------------------------------------------------------

    async def events(
        self, wanted: EventFilter, *, after: str = BEGINNING, limit: int = 100, wait_s: float = 0
    ) -> EventPage:
        """As in `Backend`; it may wait for less than it is asked to."""
        part_s = min(wait_s, LONG_POLL_S)
        query = {**in_a_filter(wanted), "after": after, "limit": limit, "wait": part_s or None}
        return await self._get("/events", EventPage, query=query, wait_s=part_s)

    async def latest_events(self, wanted: EventFilter, *, limit: int = 50) -> list[Event]:
        """As in `Backend`."""
        page = await self._get("/events", EventPage, query={**in_a_filter(wanted), "latest": True, "limit": limit})
        return page.events

    async def follow(self, wanted: EventFilter, *, after: str = END) -> AsyncGenerator[Event, None]:
        """As in `Backend`.

        Raises:
            GatewayUnreachable: it has not answered at all; later it is waited for.
        """
        import httpx

        cursor = (await self.events(wanted, after=END, limit=1)).next_after if after == END else after
        has_answered = False
        while True:
            try:
                async with self._stream(wanted, cursor) as answer:
                    if not has_answered or answer.status_code not in BUSY:
                        await self._check(answer)
                        has_answered = True
                    async with aclosing(events_in(answer.aiter_bytes())) as events:
                        async for event in events:
                            yield event
                            cursor = event.id
            except httpx.TransportError as error:
                if not has_answered:
                    raise self._unreachable(error) from None
                logger.warning("the gateway went away (%s); waiting for it", str(error) or type(error).__name__)
            await asyncio.sleep(RECONNECT_EVERY_S)

    def _stream(self, wanted: EventFilter, cursor: str) -> "AbstractAsyncContextManager[httpx.Response]":
        """The events after the cursor, as they come."""
        import httpx

        return self._http.stream(
            "GET",
            f"{self.address}{API}/events/stream",
            params=in_a_url({**in_a_filter(wanted), "after": cursor}),
            timeout=httpx.Timeout(TIMEOUT_S, read=SILENCE_S),
        )

    async def health(self) -> DetailedHealth:
        """How the gateway sees Redis, the queues and their workers; also when they are not well."""
        import httpx

        try:
            answer = await self._http.get(f"{self.address}{API}/health/detailed")
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if (
            answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
            and answer.headers.get("Content-Type") == "application/json"
        ):
            answer.status_code = HTTPStatus.OK
        return self._read(answer, DetailedHealth)

    # --- asking -----------------------------------------------------------------------------------

    async def _queue(self, name: str) -> str:
        """The queue's name as part of a path.

        Raises:
            InvalidQueueType: no address can have it.
        """
        if is_no_part_of_a_path(name):
            raise InvalidQueueType(name, available_queues=list((await self.tasks()).queues))
        return quote(name, safe="")

    async def _get(
        self, path: str, answer_type: type[Answer], *, query: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> Answer:
        return await self._ask("GET", path, answer_type, query=query, wait_s=wait_s)

    async def _post(self, path: str, answer_type: type[Answer], *, body: Any = None) -> Answer:
        return await self._ask("POST", path, answer_type, body=body)

    async def _ask(
        self,
        method: str,
        path: str,
        answer_type: type[Answer],
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
        is_repeatable: bool = True,
    ) -> Answer:
        """The answer. ``is_repeatable``: doing it twice by mistake does no harm; ``wait_s``: how long it may take."""
        import httpx

        request = self._http.build_request(
            method,
            self.address + API + path,
            params=in_a_url(query or {}),
            content=None if body is None else msgspec.json.encode(body),
            headers={**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})},
            timeout=httpx.Timeout(TIMEOUT_S, read=TIMEOUT_S + wait_s),
        )
        tries_left = TRIES
        while True:
            tries_left -= 1
            try:
                answer = await self._http.send(request)
            except httpx.TransportError as error:
                # A connection that was kept may have been closed by the other side meanwhile.
                if tries_left and is_repeatable and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                    continue
                raise self._unreachable(error) from None
            pause_s = pause_before_repeating(answer, is_repeatable=is_repeatable)
            if pause_s is None or not tries_left:
                return self._read(answer, answer_type)
            await asyncio.sleep(pause_s)

    async def _check(self, answer: "httpx.Response") -> None:
        """Raises what an answer tells of that is still to be read."""
        if not answer.is_success:
            await answer.aread()
            raise self._refusal(answer)

    def _read(self, answer: "httpx.Response", answer_type: type[Answer]) -> Answer:
        if not answer.is_success:
            raise self._refusal(answer)
        try:
            return msgspec.json.decode(answer.content, type=answer_type)
        except msgspec.MsgspecError as error:
            raise self._strange(answer, f"not in the form of this version ({error})") from None

    def _refusal(self, answer: "httpx.Response") -> AegisError:
        """The error that an answer tells of, with its facts."""
        try:
            problem = msgspec.json.decode(answer.content, type=dict[str, Any])
            code, detail = str(problem["code"]), str(problem["detail"])
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
            if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return GatewayUnreachable(self.address, f"{answer.status_code} {answer.reason_phrase}")
            return self._strange(answer, "no gateway of aegis-tasks answers so; is the address right?")
        facts = {name: value for name, value in problem.items() if name not in OF_A_PROBLEM}
        if code in NO_SUCH_ROUTE:
            return self._strange(answer, "it does not know this; is it another version?")
        error_type = ERRORS.get(code)
        if error_type is None:
            return GatewayProblem(detail, code=code, status=answer.status_code)
        if error_type is Unauthorized:
            detail = f"the gateway at {self.address} wants a token ({detail}): give it with --token or AEGIS_TOKEN"
        error = error_type.__new__(error_type, detail)  # its own text, not one that __init__ would make anew
        vars(error).update(facts)
        return error

    def _strange(self, answer: "httpx.Response", reason: str) -> AegisError:
        place = f"{answer.request.method} {answer.request.url.path}"
        message = f"{self.address} answers {place} with {answer.status_code}: {reason}"
        return GatewayProblem(message, code="strange_answer", status=answer.status_code)

    def _unreachable(self, error: "httpx.TransportError") -> GatewayUnreachable:
        return GatewayUnreachable(self.address, str(error) or type(error).__name__)


def read_url(text: str) -> str:
    """The address without a trailing slash, and without the API's own path.

    Raises:
        ConfigurationError: it is no address of a gateway.
    """
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError("--url (or AEGIS_URL) must be like https://tasks.example.org or http://127.0.0.1:8000")
    return text.rstrip("/").removesuffix(API)


async def events_in(parts: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    """Yields the events of a stream of Server-Sent Events, as a gateway writes them: one line of data each."""
    rest = b""
    async for part in parts:
        *frames, rest = (rest + part).split(b"\n\n")
        for frame in frames:
            for line in frame.split(b"\n"):
                if line.startswith(b"data: "):
                    yield event_decoder.decode(line[len(b"data: ") :])


def in_a_filter(wanted: EventFilter) -> dict[str, Any]:
    """The filter as the query of a request."""
    return {"kind": wanted.kinds, "queue": wanted.queue, "task": wanted.task, "task_id": wanted.job_id}


def in_words(wanted: DeadFilter) -> dict[str, Any]:
    """The filter, but for its queue, as a request has it; empty when it says nothing."""
    said = {
        "task": wanted.task,
        "error_type": wanted.error_type,
        "older_than_seconds": wanted.older_than_s,
        "newer_than_seconds": wanted.newer_than_s,
        "ids": None if wanted.ids is None else list(wanted.ids),
    }
    return {name: value for name, value in said.items() if value is not None}


def in_quotes(key: str) -> str:
    """A text as a string of structured field values (RFC 9651), which takes printable ASCII.

    Raises:
        InvalidRequest: it is something else.
    """
    if not key.isascii() or not key.isprintable():
        raise InvalidRequest("an idempotency key is made of printable ASCII characters", path="Idempotency-Key")
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def in_a_path(task_id: str) -> str:
    """The id as part of a path.

    Raises:
        InvalidRequest: no address can have it.
    """
    if is_no_part_of_a_path(task_id):
        raise InvalidRequest(f"a gateway cannot be asked for the id {task_id!r}", path="$.task_id")
    return quote(task_id, safe="")


def is_no_part_of_a_path(name: str) -> bool:
    return name in {"", ".", ".."} or "/" in name


def given(value: msgspec.Struct) -> dict[str, Any]:
    """The fields of a Struct that are not at their defaults, which is what a request needs to say."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(value)}
    return {name: found for name, found in msgspec.structs.asdict(value).items() if found != defaults[name]}


def in_a_url(query: Mapping[str, Any]) -> "httpx.QueryParams":
    """The query; ``None`` and empty values are left out, lists repeated."""
    import httpx

    parts: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in query.items():
        for one in value if isinstance(value, list | tuple | set | frozenset) else [value]:
            if one is not None and one != "":
                parts.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return httpx.QueryParams(parts)


def pause_before_repeating(answer: "httpx.Response", *, is_repeatable: bool) -> float | None:
    """Seconds after which to send a request again; ``None``: that would not help, or may do harm."""
    is_refused = answer.status_code == HTTPStatus.TOO_MANY_REQUESTS  # before anything was done
    is_away = answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and is_repeatable
    try:
        pause_s = float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return pause_s if (is_refused or is_away) and 0 <= pause_s <= LONGEST_PAUSE_S else None


def together(first: BatchAnswer, second: BatchAnswer, size: int) -> BatchAnswer:
    """One answer for a batch that was sent as two; ``size`` is that of the first."""
    moved = [msgspec.structs.replace(item, index=item.index + size) for item in second.items]
    return BatchAnswer(
        enqueued=first.enqueued + second.enqueued,
        duplicates=first.duplicates + second.duplicates,
        refused=first.refused + second.refused,
        unknown=first.unknown + second.unknown,
        untried=first.untried + second.untried,
        items=[*first.items, *moved],
    )
