"""docs/job-management.md: the user's description of job management, made asynchronous. Every snippet of it runs.

What a snippet leaves behind is looked at, too. The page keeps the sections of the description it comes from, and the
calls of each of its snippets; both are written down here, so that none gets lost.
"""

import ast
import inspect
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from openagents_json import OpenAgentsApp
from openagents_json.errors import ConfigurationError
from openagents_json.job import JobManager, JobStatus, storage
from openagents_json.settings import Settings, settings

pytestmark = pytest.mark.timeout(20)

PAGE = Path(__file__).parents[2] / "docs" / "job-management.md"

#: The sections of the description, and what each of its snippets does: the names it calls, the settings it sets.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Job Management": (),
    "Overview": (),
    "Job State Management": (),
    "Storage Options": (),
    "Recovery Mechanisms": (),
    "Configuration Example": (
        "settings.job.store_type",
        "settings.job.store_path",
        "settings.storage.database.dialect",
        "settings.storage.database.path",
        "settings.storage.database.host",
        "settings.storage.database.port",
        "settings.storage.database.username",
        "settings.storage.database.password",
        "settings.storage.database.name",
        "settings.storage.database.connection_pool_size",
        "settings.job.job_recovery_timeout_minutes",
        "JobManager",
    ),
    "Usage Examples": (),
    "Basic Usage": ("JobManager", "create_job", "start_job", "get_job_status", "get_job_results"),
    "Using File-based Storage": ("FileJobStore", "JobManager", "create_job"),
    "Using Database Storage with SQLAlchemy": ("DatabaseJobStore", "JobManager", "create_job"),
    "Job Filtering and Listing": ("list_jobs",),
    "Job Control Operations": ("start_job", "pause_job", "resume_job", "cancel_job", "delete_job"),
    "Job Dependencies": (
        "create_job",
        "start_job",
        "add_job_dependency",
        "remove_job_dependency",
        "get_dependencies",
        "get_dependent_jobs",
    ),
    "Batch Job Operations": ("create_job_batch", "get_batch_jobs"),
    "Cleanup Old Jobs": ("cleanup_old_jobs",),
    "Job States": (),
    "Job Priorities": (),
    "Retry Mechanism": ("create_job",),
    "Customization": (),
    "Integration with OpenAgentsApp": ("OpenAgentsApp", "create_job", "get_job_status", "get_job_results"),
}

#: Snippets that cannot run yet, and why.
NOT_YET = {"Using Database Storage with SQLAlchemy": "DatabaseJobStore arrives in a later version"}


@dataclass(frozen=True)
class Snippet:
    """A Python snippet of the page.

    Attributes:
        section: the heading above it.
        options: what follows ``python`` in the line that opens it.
        line: the number of that line.
        source: its text.
        program: its text after that of the snippets it continues.
    """

    section: str
    options: tuple[str, ...]
    line: int
    source: str
    program: str


def read_page() -> tuple[list[str], list[Snippet]]:
    """Read the page's headings and snippets."""
    headings: list[str] = []
    snippets: list[Snippet] = []
    program = ""
    fence: list[str] | None = None
    opened = 0
    options: tuple[str, ...] = ()
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), start=1):
        if fence is None and line.startswith("#"):
            headings.append(line.lstrip("# "))
        elif fence is None and line.startswith("```"):
            fence, opened, options = [], number, tuple(line.removeprefix("```").split())
        elif fence is not None and line == "```":
            source = "\n".join(fence) + "\n"
            if "notest" not in options:
                program = program + source if "continuation" in options else source
            snippets.append(Snippet(headings[-1], options[1:], opened, source, program))
            fence = None
        elif fence is not None:
            fence.append(line)
    return headings, snippets


HEADINGS, SNIPPETS = read_page()


def compiled(snippet: Snippet) -> CodeType:
    """Compile a snippet, with those it continues, as a coroutine."""
    code: CodeType = compile(
        snippet.program, f"{PAGE.name}: {snippet.section}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    return code


@pytest.fixture
async def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    """Names for a snippet to use, in a directory of its own; what it started is stopped and what it set, set back."""
    before = settings.model_copy(deep=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "snippet"}
    try:
        yield names
    finally:
        settings.job, settings.storage = before.job, before.storage
        for value in names.values():
            if isinstance(value, JobManager | OpenAgentsApp):
                await value.stop(timeout=0)


def _statuses(names: dict[str, Any]) -> set[JobStatus]:
    return {job.status for job in names["batch_jobs"]}


def _config(names: dict[str, Any]) -> None:
    own: Settings = names["settings"]
    database = own.storage.database
    assert (own.job.store_path, own.job.job_recovery_timeout_minutes) == (Path("job_data"), 10)
    assert (database.dialect, database.path, database.host, database.port) == (
        "postgresql",
        Path("jobs.db"),
        "localhost",
        5432,
    )
    assert database.password is not None
    assert (database.username, database.password.get_secret_value()) == ("user", "password")
    assert (database.name, database.connection_pool_size) == ("jobsdb", 10)
    assert isinstance(names["job_manager"].job_store, storage.MemoryJobStore)


def _basic(names: dict[str, Any]) -> None:
    assert (names["status"], names["results"]) == ("completed", "database -> report")


def _file(names: dict[str, Any]) -> None:
    assert names["job_manager"].retention_days == 30
    assert Path("jobs_data").is_dir()
    kept = [path.read_text(encoding="utf-8") for path in Path("jobs_data").rglob("*.json")]
    assert any(names["job"].job_id in text for text in kept)


def _filtering(names: dict[str, Any]) -> None:
    for name in ("all_jobs", "running_jobs", "tagged_jobs", "recent_jobs", "sorted_jobs"):
        assert names[name] == []


def _dependencies(names: dict[str, Any]) -> None:
    assert names["loaded"].result == "3 rows into the database"
    assert [job.job_id for job in names["dependencies"]] == [names["second_job"].job_id]
    assert [job.job_id for job in names["dependent_jobs"]] == [names["second_job"].job_id]


def _batch(names: dict[str, Any]) -> None:
    assert names["combined"].result == ["Europe", "Asia", "Americas"]
    assert [job.job_id for job in names["batch_jobs"]] == [job.job_id for job in names["jobs"]]
    assert _statuses(names) == {JobStatus.COMPLETED}


def _cleanup(names: dict[str, Any]) -> None:
    assert names["deleted_count"] == 0


def _retry(names: dict[str, Any]) -> None:
    job = names["job"]
    assert (job.max_retries, job.retry_delay, job.timeout) == (3, 60, 300)


def _app(names: dict[str, Any]) -> None:
    assert (names["status"], names["results"]) == ("completed", "read s3://bucket/file.csv")


def _control(names: dict[str, Any]) -> None:
    assert names["job_id"]


#: What each snippet leaves behind.
CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "Configuration Example": _config,
    "Basic Usage": _basic,
    "Using File-based Storage": _file,
    "Job Filtering and Listing": _filtering,
    "Job Control Operations": _control,
    "Job Dependencies": _dependencies,
    "Batch Job Operations": _batch,
    "Cleanup Old Jobs": _cleanup,
    "Retry Mechanism": _retry,
    "Integration with OpenAgentsApp": _app,
}


@pytest.mark.parametrize(
    "snippet",
    [
        pytest.param(
            snippet,
            id=snippet.section,
            marks=[pytest.mark.skip(reason=NOT_YET[snippet.section])] if snippet.section in NOT_YET else [],
        )
        for snippet in SNIPPETS
    ],
)
async def test_the_snippet_runs(
    snippet: Snippet, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    running = eval(compiled(snippet), namespace)  # noqa: S307 - our own page
    if inspect.isawaitable(running):
        await running
    CHECKS[snippet.section](namespace)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(re.findall(r"\bprint\(", snippet.program))


async def test_a_deleted_job_is_gone(namespace: dict[str, Any]) -> None:
    snippet = next(snippet for snippet in SNIPPETS if snippet.section == "Job Control Operations")
    await eval(compiled(snippet), namespace)  # noqa: S307 - our own page
    assert await namespace["job_manager"].count_jobs() == 0


def test_every_section_of_the_description_is_there_in_its_order() -> None:
    assert list(SECTIONS) == HEADINGS


def test_every_snippet_of_the_description_is_there() -> None:
    assert [snippet.section for snippet in SNIPPETS] == [section for section, does in SECTIONS.items() if does]
    assert set(CHECKS) | set(NOT_YET) == {snippet.section for snippet in SNIPPETS}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.section)
def test_a_snippet_does_what_it_did_in_the_description(snippet: Snippet) -> None:
    tree = compile(snippet.source, PAGE.name, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    does: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            does.add(ast.unparse(node.func).rpartition(".")[2])
        elif isinstance(node, ast.Assign):
            does.update(ast.unparse(target) for target in node.targets)
    assert set(SECTIONS[snippet.section]) - does == set()


def test_only_what_cannot_run_yet_is_kept_from_running_and_the_page_says_why() -> None:
    assert {snippet.section for snippet in SNIPPETS if "notest" in snippet.options} == set(NOT_YET)
    text = PAGE.read_text(encoding="utf-8")
    for section in NOT_YET:
        assert re.search(rf"### {section}\n\n`\w+` arrives in a later version", text)


def test_what_the_page_says_is_to_come_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever adds the store know that the page has to change."""
    assert not hasattr(storage, "DatabaseJobStore")
    monkeypatch.setattr(settings.job, "store_type", "database")
    with pytest.raises(ConfigurationError):
        JobManager()
