"""The one place that states the package's version; it imports nothing."""

__version__ = "0.1.0"
