"""Handlers: from a name to the function that does the work, and how that function is called.

A handler is ``async def`` or a plain function (run in a thread). Its first parameter is the payload, validated
against the annotation; a parameter annotated `JobContext`, or named ``context``, gets the context. Either may be
missing.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openagents_json.errors import InvalidHandlerError, NonRetryableError, Retry
from openagents_json.job import _codec
from openagents_json.job.context import JobContext
from openagents_json.job.retry import LONGEST_DELAY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from pydantic import TypeAdapter

__all__ = ["Handler", "HandlerRegistry", "NonRetryableError", "PayloadError", "Retry", "RetryDelay"]

RetryDelay = Callable[[int, BaseException], float | None]
"""A retry policy of one's own: (number of the retry, the error) -> seconds to wait; None gives up."""


class PayloadError(NonRetryableError):
    """A job's payload is not what its handler's annotation asks for."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that runs jobs.

    Attributes:
        name: the name it is registered under.
        function: what is called.
        is_async: whether it is a coroutine function; else it is called in a thread.
        payload_parameter: the parameter that gets the payload; None: it has none.
        payload_by_name: whether the payload is passed by that name; else it comes first.
        context_parameter: the parameter that gets the context; None: it has none.
        payload_type: validates the payload; None: it is passed as it is.
        retry_delay: its own retry policy.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    payload_parameter: str | None
    payload_by_name: bool
    context_parameter: str | None
    payload_type: TypeAdapter[Any] | None
    retry_delay: RetryDelay | None

    def arguments(self, payload: bytes, context: JobContext) -> tuple[list[Any], dict[str, Any]]:
        """Make the arguments of the call.

        Raises:
            PayloadError: the payload does not fit the annotation.
        """
        positional: list[Any] = []
        named: dict[str, Any] = {}
        if self.context_parameter is not None:
            named[self.context_parameter] = context
        if self.payload_parameter is not None and self.payload_by_name:
            named[self.payload_parameter] = self._payload(payload)
        elif self.payload_parameter is not None:
            positional.append(self._payload(payload))
        return positional, named

    def own_delay(self, retry: int, exception: BaseException) -> float | None:
        """Ask the handler's own retry policy for the seconds to wait before a retry; None: give up.

        Raises:
            ValueError: it answers with something else. (And whatever it raises itself.)
        """
        delay = None if self.retry_delay is None else self.retry_delay(retry, exception)
        if delay is not None and not 0 <= delay <= LONGEST_DELAY:
            msg = f"a retry policy must return None or seconds from 0 to {LONGEST_DELAY:g}, not {delay!r}"
            raise ValueError(msg)
        return delay

    def _payload(self, payload: bytes) -> Any:
        if self.payload_type is None:
            return _codec.decode(payload)
        try:
            return self.payload_type.validate_json(payload)
        except ValueError as exc:
            raise PayloadError(f"the payload does not fit handler {self.name!r}: {exc}") from exc


class HandlerRegistry:
    """The handlers of one manager, by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._handlers

    def get(self, name: str) -> Handler | None:
        """Look a handler up."""
        return self._handlers.get(name)

    def register(
        self,
        name: str | None,
        function: Callable[..., Any],
        *,
        retry_delay: RetryDelay | None = None,
        namespace: Mapping[str, Any] | None = None,
    ) -> Handler:
        """Make a function the handler of a name.

        Args:
            name: None: the function's own.
            function: a coroutine function, or a plain one.
            retry_delay: its own retry policy.
            namespace: further names its annotations may use.

        Raises:
            InvalidHandlerError: the function cannot be called as a handler, or the name belongs to another one.
        """
        if not callable(function):
            raise InvalidHandlerError(f"a handler must be a function, not {function!r}")
        if name is None:
            name = getattr(function, "__name__", None)
        if not isinstance(name, str) or not name:
            raise InvalidHandlerError(f"{function!r} has no name to register it under; pass one")
        present = self._handlers.get(name)
        if present is not None and not _is_redefinition(present.function, function):
            raise InvalidHandlerError(
                f"handler {name!r} is registered already, as {present.function!r}; choose another name"
            )
        handler = make_handler(name, function, retry_delay=retry_delay, namespace=namespace)
        self._handlers[name] = handler
        return handler

    def name_of(self, function: Callable[..., Any]) -> str:
        """Find the name a function is registered under.

        Raises:
            InvalidHandlerError: it is not registered.
        """
        for handler in self._handlers.values():
            if handler.function == function:
                return handler.name
        raise InvalidHandlerError(f"{function!r} is not registered; pass it to register_handler() first")


def make_handler(
    name: str,
    function: Callable[..., Any],
    *,
    retry_delay: RetryDelay | None = None,
    namespace: Mapping[str, Any] | None = None,
) -> Handler:
    """Look at a function's signature and annotations; see `HandlerRegistry.register`."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as exc:
        raise InvalidHandlerError(f"handler {name!r}: the signature of {function!r} cannot be read") from exc
    payload: inspect.Parameter | None = None
    context: str | None = None
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    for parameter in signature.parameters.values():
        if parameter.name == "context" or _annotation(function, parameter, namespace) is JobContext:
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                raise InvalidHandlerError(f"handler {name!r}: {parameter.name!r} must be passable by name")
            context = parameter.name
        elif payload is None and parameter.kind in positional:
            payload = parameter
        elif parameter.default is parameter.empty and parameter.kind not in {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }:
            raise InvalidHandlerError(
                f"handler {name!r}: nothing is passed for parameter {parameter.name!r}; a handler takes the payload "
                f"and a JobContext, so give it a default"
            )
    return Handler(
        name=name,
        function=function,
        is_async=_is_async(function),
        payload_parameter=None if payload is None else payload.name,
        payload_by_name=payload is not None and payload.kind is not inspect.Parameter.POSITIONAL_ONLY,
        context_parameter=context,
        payload_type=None if payload is None else _validator(name, function, payload, namespace),
        retry_delay=retry_delay,
    )


def callers_namespace() -> Mapping[str, Any]:
    """Give the local names where the package was called from: annotations of nested handlers may use them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OWN_MODULES):
        frame = frame.f_back
    return {} if frame is None else frame.f_locals


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - not a test for callability


def _is_redefinition(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Tell whether two functions are one, or one the other's newer version (a notebook cell run again)."""
    if old == new:
        return True
    where = (getattr(old, "__module__", None), getattr(old, "__qualname__", None))
    return None not in where and where == (getattr(new, "__module__", None), getattr(new, "__qualname__", None))


_OWN_MODULES = ("openagents_json.app", "openagents_json.job.")
_UNRESOLVED = object()


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter, namespace: Mapping[str, Any] | None) -> Any:
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return eval(annotation, dict(names), dict(namespace or {}))  # noqa: S307 - source of the program itself
    except Exception:  # noqa: BLE001 - any expression may stand in an annotation
        return _UNRESOLVED


def _validator(
    name: str, function: Callable[..., Any], parameter: inspect.Parameter, namespace: Mapping[str, Any] | None
) -> TypeAdapter[Any] | None:
    annotation = _annotation(function, parameter, namespace)
    if annotation is _UNRESOLVED:
        raise InvalidHandlerError(
            f"handler {name!r}: the annotation {parameter.annotation!r} of {parameter.name!r} cannot be resolved; "
            f"it must name something that exists at run time (not only under TYPE_CHECKING)"
        )
    if annotation in {parameter.empty, Any, object}:
        return None
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, errors  # noqa: PLC0415 - slow to import

    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, errors.PydanticUserError) as exc:
        raise InvalidHandlerError(
            f"handler {name!r}: no payload can be validated against {parameter.annotation!r}: {exc}"
        ) from exc
