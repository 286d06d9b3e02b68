"""Job records as JSON documents: what stores that keep files write, and read again.

A document holds what cannot be derived; counters of unmet dependencies are computed anew by whoever reads it. Each
carries the number of its format. An older format is upgraded on reading, a newer one is refused.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pydantic_core

from openagents_json.errors import StoreError
from openagents_json.job._record import JobRecord, JobSpec
from openagents_json.job.model import JobPriority

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import TypeAdapter

FORMAT = 1
"""The format written now."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each older format, how a document of it, of a whole job or of only its state, becomes one of the next."""


class NewerFormatError(StoreError):
    """A document was written by a later version of this package."""


class DamagedDocumentError(StoreError):
    """A document is not what was written: cut short, changed, or of something else."""


def whole(job: JobRecord) -> bytes:
    """Write a job on one line."""
    spec = job.spec
    fields = {"format": FORMAT, "job_id": spec.job_id} | _state_fields(job) | _spec_fields(spec)
    raw = {"payload": spec.payload, "metadata": spec.metadata, "result": job.result}
    return _splice(fields, raw)


def read_whole(data: bytes) -> JobRecord:
    """Read what `whole` or `readable` wrote.

    Raises:
        DamagedDocumentError: it is something else.
        NewerFormatError: a later version wrote it.
    """
    return job_of(parse(data))


def state(job: JobRecord) -> bytes:
    """Write what may have changed since the job was created, on one line."""
    return _splice({"format": FORMAT, "job_id": job.job_id} | _state_fields(job), {"result": job.result})


def readable(job: JobRecord) -> bytes:
    """Write a job for people, too: indented, the interesting things first."""
    spec = job.spec
    first = {"format": FORMAT, "job_id": spec.job_id, "name": spec.name, "status": job.status}
    raw = {"payload": spec.payload, "metadata": spec.metadata, "result": job.result}
    values = {name: None if data is None else pydantic_core.from_json(data) for name, data in raw.items()}
    fields = first | values | _spec_fields(spec) | _state_fields(job)
    return pydantic_core.to_json(fields, indent=2, inf_nan_mode="constants") + b"\n"


def parse(data: bytes) -> dict[str, Any]:
    """Read a document, upgraded to the present format.

    Raises:
        DamagedDocumentError: it is no document of a job.
        NewerFormatError: a later version wrote it.
    """
    try:
        document = pydantic_core.from_json(data)
    except ValueError as exc:
        raise DamagedDocumentError(f"it is not JSON: {exc}") from None
    return upgraded(document)


def upgraded(document: object) -> dict[str, Any]:
    """Bring a document to the present format; raises like `parse`."""
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise DamagedDocumentError("it is not a job")
    while document["format"] != FORMAT:
        found = document["format"]
        if found > FORMAT:
            raise NewerFormatError(
                f"one has format {found}, and this version of openagents_json knows {FORMAT}; install a newer one"
            )
        if found not in UPGRADES:
            raise DamagedDocumentError(f"it has format {found}, which never was")
        try:
            document = UPGRADES[found](document)
        except (LookupError, TypeError, ValueError) as exc:
            raise DamagedDocumentError(f"it is no job of format {found}: {exc!r}") from None
    return document


def job_of(document: dict[str, Any], before: JobRecord | None = None) -> JobRecord:
    """Make the record of a document that `whole` or `state` wrote; `unmet` is 0 in it.

    Args:
        document: as `parse` gives it.
        before: an earlier record of the job, which a document of only its state needs.

    Raises:
        DamagedDocumentError: something is missing in it, or has a wrong type or value.
    """
    values = {name: value for name, value in document.items() if name != "format"}
    result = values.get("result")
    values["result"] = None if result is None and values.get("status") != "completed" else _encode(result)
    values["unmet"] = 0
    try:
        if "name" in values:
            spec = {name: values.pop(name) for name in JobSpec._fields}
            spec["payload"], spec["metadata"] = _encode(spec["payload"]), _encode(spec["metadata"])
            spec["priority"] = JobPriority.parse(spec["priority"])
        elif before is not None:
            spec = before.spec._asdict()
            del values["job_id"]
        else:
            raise DamagedDocumentError("what the job was created with is missing")
        return _adapter().validate_python({**values, "spec": spec})
    except KeyError as exc:
        raise DamagedDocumentError(f"it is not a job: {exc} is missing") from None
    except (TypeError, ValueError) as exc:
        raise DamagedDocumentError(f"it is not a job: {exc}") from None


def _spec_fields(spec: JobSpec) -> dict[str, Any]:
    fields = spec._asdict()
    fields["priority"] = spec.priority.name.lower()
    del fields["job_id"], fields["payload"], fields["metadata"]
    return fields


def _state_fields(job: JobRecord) -> dict[str, Any]:
    fields = job._asdict()
    fields["recovery_history"] = [recovery._asdict() for recovery in job.recovery_history]
    del fields["spec"], fields["unmet"], fields["result"]
    return fields


def _splice(fields: dict[str, Any], raw: dict[str, bytes | None]) -> bytes:
    """Write a JSON object, some of whose values are JSON already."""
    parts = [pydantic_core.to_json(fields)[:-1]]
    parts += [b',"%s":%s' % (name.encode(), b"null" if data is None else data) for name, data in raw.items()]
    return b"".join(parts) + b"}"


def _encode(value: Any) -> bytes:
    return pydantic_core.to_json(value, inf_nan_mode="constants")


@cache
def _adapter() -> TypeAdapter[JobRecord]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - slow to import, and only stores that keep files need it

    return TypeAdapter(JobRecord)
