"""What is installed: the version, the typing marker, and how little `import openagents_json` loads."""

import json
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Any

import pytest

OPTIONAL_OR_HEAVY = {
    "aiomysql", "aiosqlite", "alembic", "asyncpg", "click", "fastapi", "hypothesis", "matplotlib",
    "pydantic_settings", "pytest", "rich", "sqlalchemy", "starlette", "typer",
}  # fmt: skip

PROBE = """
import importlib.resources, json, sys
import openagents_json
print(json.dumps({
    "version": openagents_json.__version__,
    "typed": importlib.resources.files("openagents_json").joinpath("py.typed").is_file(),
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh interpreter, started outside the source tree, says after `import openagents_json`."""
    elsewhere: Path = tmp_path_factory.mktemp("elsewhere")
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def test_importing_the_package_loads_nothing_optional_and_nothing_heavy(imported: dict[str, Any]) -> None:
    top_level = {name.partition(".")[0] for name in imported["modules"]}
    assert top_level & OPTIONAL_OR_HEAVY == set()


def test_the_version_is_that_of_the_metadata(imported: dict[str, Any]) -> None:
    assert imported["version"] == version("openagents-json")


def test_the_typing_marker_is_installed(imported: dict[str, Any]) -> None:
    assert imported["typed"] is True


def test_metadata_names_the_licence_and_every_extra() -> None:
    fields = metadata("openagents-json")
    assert fields["License-Expression"] == "MIT"
    assert set(fields.get_all("Provides-Extra") or ()) == {
        "all", "demo", "mysql", "postgresql", "sqlite", "testing",
    }  # fmt: skip
