"""Checks and tests, each in its own environment: `nox` runs the default ones, `nox -l` lists them all."""

import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "imports", "docs", "tests"]

ROOT = Path(__file__).parent
OLDEST = "3.11"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def _works(version: str) -> bool:
    """Say whether `pythonX.Y` can be started; a version manager's shim may exist and only print an error."""
    command = shutil.which(f"python{version}")
    return command is not None and subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0


PYTHONS = [version for version in ("3.11", "3.12", "3.13") if version == RUNNING or _works(version)] or [RUNNING]


def _install(session: nox.Session, *groups: str, package: str = ".[all]", options: tuple[str, ...] = ()) -> None:
    """Install the package, editable, with all extras, and the named dependency groups."""
    arguments = [argument for group in groups for argument in ("--group", group)]
    session.install(*options, "--editable", package, *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting; `nox -s lint -- --fix` mends what can be mended."""
    session.install("--group", "lint")
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of package, tests and benchmarks, and that all of the public surface is typed."""
    _install(session, "test", "types", "nox")
    session.run("mypy", *session.posargs)
    session.run("pyright", "--verifytypes", "openagents_json", "--ignoreexternal")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports follow the layers."""
    _install(session, "imports", package=".")
    session.run("lint-imports", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on each Python that is here, on all processors."""
    _install(session, "test")
    session.run("pytest", *(session.posargs or ["-n", "auto"]))


@nox.session
def docs(session: nox.Session) -> None:
    """Run every Python example of README.md and docs/, in a directory of their own."""
    _install(session, "test", "docs")
    pages = [str(page) for page in (ROOT / "README.md", ROOT / "docs") if page.exists()]
    session.chdir(session.create_tmp())
    session.run("pytest", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", "--markdown-docs", *pages)


@nox.session(python=OLDEST)
def min(session: nox.Session) -> None:  # noqa: A001  # a session is named after what one types
    """Run the tests on the oldest dependencies that pyproject.toml allows."""
    _install(session, "test", options=("--resolution", "lowest-direct"))
    # An old release may use what newer releases of its own dependencies call deprecated: not ours to mend.
    quiet = ("-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning")
    session.run("pytest", *quiet, *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build the wheel, install it without extras, and test what a user then has."""
    session.install("--group", "test")
    wheels = Path(session.create_tmp())
    session.run("uv", "build", "--wheel", "--quiet", "--clear", "--out-dir", str(wheels), external=True)
    session.install("--reinstall-package", "openagents-json", *(str(wheel) for wheel in wheels.glob("*.whl")))
    session.run("pytest", "--import-mode=importlib", "tests/test_packaging.py")


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and report which lines and branches they reach."""
    _install(session, "test", "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
