"""An asyncio-native job manager for AI agents and other long, failing, expensive work."""

from __future__ import annotations

from openagents_json._version import __version__
from openagents_json.app import OpenAgentsApp

__all__ = ["OpenAgentsApp", "__version__"]
