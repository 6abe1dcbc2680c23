"""Tasks get their arguments as their annotated types, whoever runs them: stock arq or ours."""

import dataclasses
import functools
from typing import Any, Final

from arq.worker import Function

from bridge.arguments import Signature

__all__ = ["converting"]

SIGNATURE: Final = "__aegis_signature__"
"""The attribute of a converting coroutine that holds its `Signature`; wrappers made with functools.wraps copy it."""


def converting(function: Function) -> Function:
    """The same arq function, whose arguments arrive as their annotated types; as it is, if it converts already.

    Its coroutine raises `bridge.errors.InvalidArguments` before anything of the task has run when the
    signature does not accept what the job holds. A call without arguments that needs none costs one comparison.

    Args:
        function: what `arq.worker.func` or `workers.task.task` returned.

    Raises:
        ConfigurationError: it takes no ``ctx``, or a parameter's type cannot be read from JSON.
    """
    run = function.coroutine
    if hasattr(run, SIGNATURE):
        return function
    signature = Signature(run, task_name=function.name)
    needs_arguments = bool(signature.required)

    @functools.wraps(run)
    async def run_converted(ctx: dict[Any, Any], /, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or needs_arguments:
            converted_args, converted_kwargs = signature.convert(args, kwargs)
            return await run(ctx, *converted_args, **converted_kwargs)
        return await run(ctx)

    setattr(run_converted, SIGNATURE, signature)
    # ctx by position only: a task may have an argument named ctx.
    return dataclasses.replace(function, coroutine=run_converted)  # type: ignore[arg-type]
