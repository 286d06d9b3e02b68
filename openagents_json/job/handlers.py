"""Handlers: from a name to the function that does the work, and how that function is called.

A handler is ``async def`` or a plain function (run in a thread). Its first parameter is the payload, validated
against the annotation; a parameter annotated `JobContext`, or named ``context``, gets the context. Either may be
missing.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from openagents_json.errors import InvalidHandlerError, InvalidJobError, NonRetryableError, Retry
from openagents_json.job import _codec
from openagents_json.job._shown import shown
from openagents_json.job.context import JobContext
from openagents_json.job.retry import LONGEST_DELAY, RetryPolicy

if TYPE_CHECKING:
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
        retry_policy: its own retry policy.
    """

    name: str
    function: Callable[..., Any]
    is_async: bool
    payload_parameter: str | None
    payload_by_name: bool
    context_parameter: str | None
    payload_type: TypeAdapter[Any] | None
    retry_policy: RetryDelay | RetryPolicy | None

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

    def own_delay(self, retry: int, exception: BaseException, chance: float) -> float | None:
        """Ask the handler's own retry policy for the seconds to wait before a retry; None: give up.

        Raises:
            ValueError: it answers with something else. (And whatever it raises itself.)
        """
        if self.retry_policy is None or isinstance(self.retry_policy, RetryPolicy):
            return None if self.retry_policy is None else self.retry_policy.delay_before(retry, chance)
        delay = self.retry_policy(retry, exception)
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
        retry_policy: RetryDelay | RetryPolicy | None = None,
        scope: Scope | None = None,
    ) -> Handler:
        """Make a function the handler of a name.

        Args:
            name: None: the function's own.
            function: a coroutine function, or a plain one.
            retry_policy: its own retry policy.
            scope: where it is registered from.

        Raises:
            InvalidHandlerError: the function cannot be called as a handler, or the name belongs to another one.
        """
        if not callable(function):
            raise InvalidHandlerError(f"a handler must be a function, not {function!r}")
        if name is None:
            name = getattr(function, "__name__", None)
        if name is None:
            raise InvalidHandlerError(f"{function!r} has no name to register it under; pass one")
        try:
            _codec.check_text(name, "name", shortest=1, longest=255)
        except InvalidJobError as exc:
            raise InvalidHandlerError(f"no job could ask for a handler of this name: {exc.problem}") from None
        policy: object = retry_policy
        if not (policy is None or isinstance(policy, RetryPolicy) or callable(policy)):
            problem = f"must be a RetryPolicy or a function, not {shown(retry_policy)}"
            raise InvalidHandlerError(f"handler {name!r}: retry_policy {problem}")
        present = self._handlers.get(name)
        if present is not None and not _is_redefinition(present.function, function):
            raise InvalidHandlerError(
                f"handler {name!r} is registered already, as {present.function!r}; choose another name"
            )
        handler = make_handler(name, function, retry_policy=retry_policy, scope=scope)
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
    retry_policy: RetryDelay | RetryPolicy | None = None,
    scope: Scope | None = None,
) -> Handler:
    """Look at a function's signature and annotations; see `HandlerRegistry.register`."""
    plain = _plain_function(function)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise InvalidHandlerError(f"handler {name!r}: {function!r} is a generator function; return the result instead")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as exc:
        raise InvalidHandlerError(f"handler {name!r}: the signature of {function!r} cannot be read") from exc
    names = _names_for(plain, scope)
    payload: inspect.Parameter | None = None
    context: str | None = None
    for parameter in signature.parameters.values():
        if parameter.name == "context" or _is_context(_annotation(parameter, names)):
            if context is not None:
                raise InvalidHandlerError(f"handler {name!r}: two parameters ask for the context; leave one out")
            if parameter.kind not in _BY_NAME:
                raise InvalidHandlerError(f"handler {name!r}: {parameter.name!r} must be passable by name")
            context = parameter.name
        elif payload is None and parameter.kind in _BY_POSITION:
            payload = parameter
        elif parameter.default is parameter.empty and parameter.kind not in _VARIADIC:
            raise InvalidHandlerError(_not_passed(name, parameter, names))
    return Handler(
        name=name,
        function=function,
        is_async=_is_async(function),
        payload_parameter=None if payload is None else payload.name,
        payload_by_name=payload is not None and payload.kind is not inspect.Parameter.POSITIONAL_ONLY,
        context_parameter=context,
        payload_type=None if payload is None else _validator(name, payload, names),
        retry_policy=retry_policy,
    )


class Scope(NamedTuple):
    """Where a handler is registered from: annotations of handlers defined there may use its local names."""

    local_names: Mapping[str, Any]
    module_names: Mapping[str, Any]


def callers_scope() -> Scope | None:
    """Find where the package was called from."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OWN_MODULES):
        frame = frame.f_back
    return None if frame is None else Scope(frame.f_locals, frame.f_globals)


_OWN_MODULES = ("openagents_json.app", "openagents_json.job.")
_BY_POSITION = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
_BY_NAME = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_UNRESOLVED = object()


def _plain_function(function: Callable[..., Any]) -> Any:
    """Find the function behind partials, methods, wrappers, and objects that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function).__call__
    return inspect.unwrap(getattr(function, "__func__", function))


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - not a test for callability


def _is_redefinition(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Tell whether two functions are one, or one the other's newer version (a notebook cell run again)."""
    if old == new:
        return True
    where = (getattr(old, "__module__", None), getattr(old, "__qualname__", None))
    return None not in where and where == (getattr(new, "__module__", None), getattr(new, "__qualname__", None))


def _names_for(plain: Any, scope: Scope | None) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Give the global and local names that annotations of a function mean."""
    module_names: dict[str, Any] = getattr(plain, "__globals__", {})
    is_local = "<locals>" in getattr(plain, "__qualname__", "")
    if scope is not None and is_local and scope.module_names is module_names:
        return module_names, scope.local_names
    return module_names, {}


def _annotation(parameter: inspect.Parameter, names: tuple[dict[str, Any], Mapping[str, Any]]) -> Any:
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names[0], names[1])  # noqa: S307 - source of the program itself
    except Exception:  # noqa: BLE001 - any expression may stand in an annotation
        return _UNRESOLVED


def _is_context(annotation: Any) -> bool:
    if typing.get_origin(annotation) is typing.Annotated:
        return _is_context(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return any(_is_context(part) for part in typing.get_args(annotation))
    return annotation is JobContext


def _not_passed(name: str, parameter: inspect.Parameter, names: tuple[dict[str, Any], Mapping[str, Any]]) -> str:
    if _annotation(parameter, names) is _UNRESOLVED:
        return _unresolved(name, parameter)
    return (
        f"handler {name!r}: nothing is passed for parameter {parameter.name!r}; a handler takes the payload and a "
        f"JobContext, so give it a default"
    )


def _unresolved(name: str, parameter: inspect.Parameter) -> str:
    return (
        f"handler {name!r}: the annotation {parameter.annotation!r} of {parameter.name!r} cannot be resolved; it must "
        f"name something that exists at run time (not only under TYPE_CHECKING)"
    )


def _validator(
    name: str, parameter: inspect.Parameter, names: tuple[dict[str, Any], Mapping[str, Any]]
) -> TypeAdapter[Any] | None:
    annotation = _annotation(parameter, names)
    if annotation is _UNRESOLVED:
        raise InvalidHandlerError(_unresolved(name, parameter))
    if any(annotation is anything for anything in (parameter.empty, Any, object)):
        return None
    from pydantic import TypeAdapter  # noqa: PLC0415 - slow to import

    try:
        adapter = TypeAdapter(annotation)
        if not getattr(adapter, "pydantic_complete", True):
            adapter.rebuild(raise_errors=True)
    except Exception as exc:
        # pydantic raises errors of several kinds, and so do the user's own types
        problem = f"handler {name!r}: no payload can be validated against {parameter.annotation!r}: {exc}"
        raise InvalidHandlerError(problem) from exc
    return adapter
