"""Settings: defaults for managers, read from the environment, changeable by assignment.

Every setting can be given as an environment variable: ``OPENAGENTS_`` and the path with ``__`` between its parts, so
``settings.job.store_type`` is ``OPENAGENTS_JOB__STORE_TYPE``; ``none`` there means None. Assigned values are
validated. A `JobManager` reads the settings when it is made; changing them later affects managers made later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class _Section(BaseModel):
    # inputs are hidden, for one of them may be a password
    model_config: ClassVar[ConfigDict] = ConfigDict(validate_assignment=True, extra="forbid", hide_input_in_errors=True)


def _none_in_words(value: object) -> object:
    """Let environment variables, which hold text only, say None."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


_OrNone = BeforeValidator(_none_in_words)


class JobSettings(_Section):
    """Defaults for job managers and jobs: ``settings.job``.

    Attributes:
        store_type: where jobs are kept: ``memory``, ``file`` or ``database``.
        store_path: the directory of the file store.
        job_recovery_timeout_minutes: how long a worker may be silent before its jobs are taken from it; fractions
            are allowed.
        retention_days: finished jobs are deleted after that many days; None: never.
        max_concurrent_jobs: how many jobs a manager runs at once.
        default_timeout: seconds of running time an attempt may take; None: no limit.
        default_max_retries: retries after the first try.
        default_retry_delay: seconds before a retry.
        default_max_recoveries: worker deaths in a row a job may suffer before it fails; None: no limit.
        shutdown_timeout: seconds that running jobs get to finish when a manager stops.
        cancel_grace: seconds a cancelled handler gets to clean up before its outcome is recorded without it.
        max_payload_bytes: the most a payload may take as JSON.
        max_result_bytes: the most a result may take as JSON.
    """

    store_type: Literal["memory", "file", "database"] = "memory"
    store_path: Path = Path("job_data")
    job_recovery_timeout_minutes: float = Field(5.0, gt=0, allow_inf_nan=False)
    retention_days: Annotated[float | None, _OrNone] = Field(30.0, ge=0, allow_inf_nan=False)
    max_concurrent_jobs: int = Field(10, ge=1)
    default_timeout: Annotated[float | None, _OrNone] = Field(None, gt=0, allow_inf_nan=False)
    default_max_retries: int = Field(0, ge=0)
    default_retry_delay: float = Field(1.0, ge=0, allow_inf_nan=False)
    default_max_recoveries: Annotated[int | None, _OrNone] = Field(5, ge=0)
    shutdown_timeout: float = Field(30.0, ge=0, allow_inf_nan=False)
    cancel_grace: float = Field(5.0, ge=0, allow_inf_nan=False)
    max_payload_bytes: int = Field(1024 * 1024, ge=1)
    max_result_bytes: int = Field(1024 * 1024, ge=1)


class DatabaseSettings(_Section):
    """Where the database of the database store is: ``settings.storage.database``.

    Attributes:
        dialect: ``sqlite``, ``postgresql`` or ``mysql`` (MariaDB too).
        path: the file, for SQLite.
        host: the server, for the others.
        port: None: the dialect's usual port.
        username: None: none is sent.
        password: shown in no repr, log or error.
        name: the database's name.
        connection_pool_size: connections kept open at most.
    """

    dialect: Literal["sqlite", "postgresql", "mysql"] = "sqlite"
    path: Path = Path("jobs.db")
    host: str = "localhost"
    port: Annotated[int | None, _OrNone] = Field(None, ge=1, le=65535)
    username: str | None = None
    password: SecretStr | None = None
    name: str = "openagents"
    connection_pool_size: int = Field(10, ge=1)


class StorageSettings(_Section):
    """Storage back ends: ``settings.storage``.

    Attributes:
        database: the database of the database store.
    """

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)


class Settings(BaseSettings):
    """All settings of the package.

    Attributes:
        job: defaults for job managers and jobs.
        storage: storage back ends.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="OPENAGENTS_",
        env_nested_delimiter="__",
        validate_assignment=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    job: JobSettings = Field(default_factory=JobSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)


settings: Settings = Settings()
"""The settings of this process."""
