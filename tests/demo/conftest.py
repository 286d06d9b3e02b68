"""What the tests of the whole demo share."""

from pathlib import Path

import pytest


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the demo quick where the plot does not matter."""
    monkeypatch.setattr("openagents_json.demo._plot.draw", lambda report, *, software: software.encode())


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the test in an empty current directory."""
    monkeypatch.chdir(tmp_path)
