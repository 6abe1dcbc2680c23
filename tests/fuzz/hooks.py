"""What schemathesis is told of the gateway: no request may wait for long for something to happen."""

from typing import Any, Final

import schemathesis

LONGEST_WAIT_S: Final = 0.01


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """The same query, but for a ``wait`` that is a valid one."""
    if isinstance(query, dict) and "wait" in query:
        try:
            if float(query["wait"]) > LONGEST_WAIT_S:
                query["wait"] = LONGEST_WAIT_S
        except (TypeError, ValueError, OverflowError):
            pass  # it is refused
    return query
