"""Settings: the documented names, validated, from the environment, read when a manager is made."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from openagents_json import OpenAgentsApp
from openagents_json.errors import ConfigurationError
from openagents_json.job import JobManager
from openagents_json.job.storage import MemoryJobStore
from openagents_json.settings import Settings, settings
from tests.api.helpers import run_to_the_end, shown

DEFAULTS: dict[str, object] = {
    "job.store_type": "memory",
    "job.store_path": Path("job_data"),
    "job.job_recovery_timeout_minutes": 5.0,
    "job.retention_days": 30.0,
    "job.max_concurrent_jobs": 10,
    "job.default_timeout": None,
    "job.default_max_retries": 0,
    "job.default_retry_delay": 1.0,
    "job.default_max_recoveries": 5,
    "job.shutdown_timeout": 30.0,
    "job.cancel_grace": 5.0,
    "job.max_payload_bytes": 1024 * 1024,
    "job.max_result_bytes": 1024 * 1024,
    "storage.database.dialect": "sqlite",
    "storage.database.path": Path("jobs.db"),
    "storage.database.host": "localhost",
    "storage.database.port": None,
    "storage.database.username": None,
    "storage.database.password": None,
    "storage.database.name": "openagents",
    "storage.database.connection_pool_size": 10,
}


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("OPENAGENTS_"):
            monkeypatch.delenv(name)


def _leaves(model: BaseModel, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _section(of: Settings, path: str) -> tuple[BaseModel, str]:
    *sections, name = path.split(".")
    at: Any = of
    for section in sections:
        at = getattr(at, section)
    return at, name


def test_settings_have_these_names_and_defaults_and_no_others() -> None:
    assert _leaves(Settings()) == DEFAULTS


def test_the_settings_of_this_process_are_settings() -> None:
    assert isinstance(settings, Settings)
    assert _leaves(settings) == DEFAULTS


@pytest.mark.parametrize("path", DEFAULTS)
def test_every_setting_is_documented_where_it_is_defined(path: str) -> None:
    section, name = _section(settings, path)
    assert re.search(rf"^ +{name}: \S", type(section).__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "value", "kept"),
    [
        ("job.store_type", "file", "file"),
        ("job.store_path", "./job_data", Path("job_data")),
        ("job.job_recovery_timeout_minutes", 10, 10.0),
        ("job.job_recovery_timeout_minutes", 0.05, 0.05),
        ("job.retention_days", None, None),
        ("job.retention_days", 0, 0.0),
        ("storage.database.dialect", "postgresql", "postgresql"),
        ("storage.database.dialect", "mysql", "mysql"),
        ("storage.database.path", "./jobs.db", Path("jobs.db")),
        ("storage.database.port", 5432, 5432),
        ("storage.database.password", "password", SecretStr("password")),
        ("storage.database.connection_pool_size", 10, 10),
    ],
    ids=shown,
)
def test_assigned_values_are_taken_and_brought_into_form(path: str, value: object, kept: object) -> None:
    section, name = _section(Settings(), path)
    setattr(section, name, value)
    assert getattr(section, name) == kept


WRONG: tuple[tuple[str, Any], ...] = (
    *(("job.store_type", value) for value in ("", "redis", "MEMORY", None, 1)),
    *(("job.store_path", value) for value in (None, 1, 1.5)),
    *(("job.job_recovery_timeout_minutes", value) for value in (0, -1, math.nan, math.inf, "soon", None, 10**400)),
    *(("job.retention_days", value) for value in (-1, math.nan, math.inf, "soon")),
    *(("job.max_concurrent_jobs", value) for value in (0, -1, 1.5, "many", None, 10**9)),
    *(("job.default_timeout", value) for value in (0, -1, math.nan, math.inf, "soon", 1e12)),
    *(("job.default_max_retries", value) for value in (-1, 1.5, "many", None, 10**9)),
    *(("job.default_retry_delay", value) for value in (-1, math.nan, math.inf, "soon", None, 1e12)),
    *(("job.default_max_recoveries", value) for value in (-1, 1.5, "many", 10**9)),
    *(("job.shutdown_timeout", value) for value in (-1, math.nan, math.inf, "soon", None)),
    *(("job.cancel_grace", value) for value in (-1, math.nan, math.inf, "soon", None)),
    *(("job.max_payload_bytes", value) for value in (0, -1, 1.5, "much", None)),
    *(("job.max_result_bytes", value) for value in (0, -1, 1.5, "much", None)),
    *(("storage.database.dialect", value) for value in ("", "oracle", "postgres", None)),
    *(("storage.database.port", value) for value in (0, -1, 65536, "http")),
    *(("storage.database.host", value) for value in (None, 1)),
    *(("storage.database.name", value) for value in (None, 1)),
    *(("storage.database.connection_pool_size", value) for value in (0, -1, 1.5, "many", None)),
)


@pytest.mark.parametrize(("path", "value"), WRONG, ids=shown)
def test_a_wrong_value_is_refused_at_the_assignment_or_when_a_manager_is_made(
    monkeypatch: pytest.MonkeyPatch, path: str, value: object
) -> None:
    section, name = _section(settings, path)
    before = getattr(section, name)
    monkeypatch.setattr(section, name, before)  # whatever happens, it is put back
    try:
        setattr(section, name, value)
    except ValidationError as refusal:
        assert name in str(refusal)  # noqa: PT017 - refused in one way or the other
        assert getattr(section, name) == before
    else:
        assert path.startswith("job."), f"{path} = {value!r} was taken"
        with pytest.raises(ConfigurationError, match=name):
            JobManager()


@pytest.mark.parametrize("path", ["job.store_typ", "storage.database.user", "storage.redis", "jobs"])
def test_a_setting_that_does_not_exist_cannot_be_assigned(path: str) -> None:
    section, name = _section(Settings(), path)
    with pytest.raises(ValueError, match=name):
        setattr(section, name, "value")


def test_the_password_is_shown_nowhere() -> None:
    own = Settings()
    own.storage.database.password = SecretStr("hunter2")
    for text in (repr(own), str(own), repr(own.storage.database), own.model_dump_json(), str(own.model_dump())):
        assert "hunter2" not in text


@pytest.mark.parametrize("password", [["hunter2"], {"hunter2": 1}, 20252026, b"\xffhunter2"], ids=shown)
def test_no_error_shows_the_password(password: object) -> None:
    own = Settings()
    with pytest.raises(ValidationError) as refusal:
        setattr(own.storage.database, "password", password)  # noqa: B010 - the wrong type is the point
    assert "hunter2" not in str(refusal.value)
    assert "20252026" not in str(refusal.value)


PROBE = """
import json, sys
from openagents_json.settings import settings
print(json.dumps(json.loads(settings.model_dump_json())))
password = settings.storage.database.password
print(json.dumps(None if password is None else password.get_secret_value()))
"""


def _in_environment(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAGENTS_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_settings_come_from_the_environment() -> None:
    process = _in_environment(
        OPENAGENTS_JOB__STORE_TYPE="database",
        OPENAGENTS_JOB__STORE_PATH="/var/jobs",
        OPENAGENTS_JOB__JOB_RECOVERY_TIMEOUT_MINUTES="0.5",
        openagents_job__max_concurrent_jobs="3",
        OPENAGENTS_STORAGE__DATABASE__DIALECT="postgresql",
        OPENAGENTS_STORAGE__DATABASE__PORT="5432",
        OPENAGENTS_STORAGE__DATABASE__PASSWORD="12345",
        OPENAGENTS_UNRELATED="ignored",
    )
    assert process.returncode == 0, process.stderr
    shown_settings, password = map(json.loads, process.stdout.splitlines())
    assert shown_settings["job"]["store_type"] == "database"
    assert shown_settings["job"]["store_path"] == "/var/jobs"
    assert shown_settings["job"]["job_recovery_timeout_minutes"] == 0.5
    assert shown_settings["job"]["max_concurrent_jobs"] == 3
    assert shown_settings["storage"]["database"]["dialect"] == "postgresql"
    assert shown_settings["storage"]["database"]["port"] == 5432
    assert password == "12345"


def test_none_can_be_said_in_the_environment_and_stays_a_text_where_texts_belong() -> None:
    process = _in_environment(
        OPENAGENTS_JOB__RETENTION_DAYS="none",
        OPENAGENTS_JOB__DEFAULT_MAX_RECOVERIES="None",
        OPENAGENTS_STORAGE__DATABASE__NAME="none",
        OPENAGENTS_STORAGE__DATABASE__PASSWORD="None",
    )
    assert process.returncode == 0, process.stderr
    shown_settings, password = map(json.loads, process.stdout.splitlines())
    assert shown_settings["job"]["retention_days"] is None
    assert shown_settings["job"]["default_max_recoveries"] is None
    assert shown_settings["storage"]["database"]["name"] == "none"
    assert password == "None"


def test_a_wrong_setting_in_the_environment_is_named_and_no_password_shown() -> None:
    process = _in_environment(
        OPENAGENTS_JOB__STORE_TYPE="redis",
        OPENAGENTS_JOB__STORE_TYP="memory",
        OPENAGENTS_STORAGE__DATABASE__PASSWORD="hunter2",
        OPENAGENTS_STORAGE__DATABASE__PASWORD="hunter2",
    )
    assert process.returncode != 0
    assert "store_type" in process.stderr
    assert "'memory', 'file' or 'database'" in process.stderr
    assert "store_typ\n" in process.stderr
    assert "hunter2" not in process.stderr


# what a manager makes of them


def test_a_manager_takes_its_defaults_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.job, "retention_days", 3.5)
    monkeypatch.setattr(settings.job, "max_concurrent_jobs", 7)
    manager = JobManager()
    assert isinstance(manager.job_store, MemoryJobStore)
    assert (manager.retention_days, manager.max_concurrent_jobs) == (3.5, 7)
    app = OpenAgentsApp()
    assert (app.job_manager.retention_days, app.job_manager.max_concurrent_jobs) == (3.5, 7)


def test_arguments_go_before_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.job, "retention_days", 3.5)
    store = MemoryJobStore()
    manager = JobManager(store, retention_days=1, max_concurrent_jobs=2)
    assert manager.job_store is store
    assert (manager.retention_days, manager.max_concurrent_jobs) == (1, 2)


def test_retention_days_none_means_never_and_unset_means_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert JobManager().retention_days == 30
    assert JobManager(retention_days=None).retention_days is None
    assert JobManager(retention_days=0).retention_days == 0
    assert OpenAgentsApp(retention_days=None).job_manager.retention_days is None
    monkeypatch.setattr(settings.job, "retention_days", None)
    assert JobManager().retention_days is None
    assert JobManager(retention_days=2).retention_days == 2


def test_settings_changed_later_affect_managers_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    before = JobManager()
    monkeypatch.setattr(settings.job, "max_concurrent_jobs", 3)
    assert before.max_concurrent_jobs == 10
    assert JobManager().max_concurrent_jobs == 3


async def test_new_jobs_take_their_defaults_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "default_timeout": 12.5,
        "default_max_retries": 4,
        "default_retry_delay": 0.25,
        "default_max_recoveries": None,
    }.items():
        monkeypatch.setattr(settings.job, name, value)
    async with JobManager() as manager:
        job = await manager.create_job("work")
        assert (job.timeout, job.max_retries, job.retry_delay, job.max_recoveries) == (12.5, 4, 0.25, None)
        told = await manager.create_job("work", timeout=None, max_retries=0, retry_delay=0, max_recoveries=1)
        assert (told.timeout, told.max_retries, told.retry_delay, told.max_recoveries) == (None, 0, 0, 1)


def test_a_store_that_this_version_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.job, "store_type", "database")
    with pytest.raises(ConfigurationError, match=r"store_type is 'database'.*'memory'"):
        JobManager()
    assert JobManager(MemoryJobStore()).job_store is not None, "a store of one's own goes before the settings"


async def test_a_small_payload_limit_still_allows_jobs_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.job, "max_payload_bytes", 1)
    monkeypatch.setattr(settings.job, "max_result_bytes", 4)
    async with JobManager(shutdown_timeout=1) as manager:

        @manager.handler("work")
        async def work() -> None: ...

        assert (await run_to_the_end(manager, "work")).status == "completed"
