"""What several tests of the public API say often."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from typing_extensions import override

from openagents_json import OpenAgentsApp
from openagents_json.job import Job, JobManager

#: What cannot be an id: wrong types, path-like texts, wrong lengths, other alphabets, control characters.
BAD_IDS: tuple[object, ...] = (
    "",
    "../x",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "a" * 65,
    "-a",
    "_a",
    "jöb",
    "１２",  # noqa: RUF001 - digits, but not ASCII ones
    "a b",
    "a\n",
    "\na",
    "a\0",
    "a\ud800",
    b"a",
    1,
    True,
    1.5,
    ["a"],
    object(),
)

#: What cannot be a text, whatever its length.
BAD_TEXTS: tuple[object, ...] = ("nul\0", "\0", "lone \ud800", "\udfff", None, 7, True, b"bytes", ["text"], object())


class BrokenRepr:
    """A value that cannot even be shown."""

    @override
    def __repr__(self) -> str:
        return cast("str", None)


@dataclass(frozen=True)
class Case:
    """A wrong value for an option, and what the refusal has to say.

    Attributes:
        option: the option.
        value: the wrong value.
        field: what the error calls the place; default: the option.
        says: a part of the message.
    """

    option: str
    value: object
    says: str
    field: str = ""

    @property
    def place(self) -> str:
        """What the error calls the place."""
        return self.field or self.option

    @override
    def __str__(self) -> str:
        return f"{self.place}={shown(self.value)}"


def shown(value: object) -> str:
    """Show a value in a test's id: in a few ASCII characters, the same ones in every process."""
    try:
        text = ascii(value)
    except (TypeError, ValueError):
        return type(value).__name__
    return type(value).__name__ if " at 0x" in text else text[:40]


async def call(function: Callable[..., Awaitable[Any]], *arguments: object, **options: object) -> Any:
    """Call a typed coroutine function with what its types forbid."""
    return await function(*arguments, **options)


async def run_to_the_end(manager: JobManager | OpenAgentsApp, name: str, **options: Any) -> Job:
    """Create a job, start it, and return it once it is over, however it ended."""
    job = await manager.create_job(name, **{"auto_start": True, **options})
    return await manager.wait_for_job(job.job_id, timeout=10)
