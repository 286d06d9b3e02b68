"""The tests; helpers shared by several test modules are imported as `tests.name`."""
