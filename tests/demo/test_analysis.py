"""What is read from one source file, and from the files of a package."""

import argparse
import ast
import gc
import textwrap
import warnings
from pathlib import Path

import pytest

from openagents_json.demo._analysis import (
    LONGEST,
    Figures,
    FileReport,
    Function,
    analyse,
    ignore_source_warnings,
    summarise,
)


def read(source: str, file: str = "package/module.py") -> FileReport:
    return analyse(textwrap.dedent(source).encode(), file)


@pytest.mark.parametrize(("source", "lines"), [(b"", 0), (b"\n", 1), (b"a = 1", 1), (b"a = 1\n", 1), (b"a\n\nb", 3)])
def test_lines_are_counted_with_or_without_a_last_newline(source: bytes, lines: int) -> None:
    assert analyse(source, "module.py").figures == Figures(
        files=1, lines=lines, documentable=bool(source.strip()), documented=0
    )


def test_functions_and_classes_are_counted_wherever_they_stand() -> None:
    figures = read("""
        class A:
            def method(self): ...
            class B:
                async def method(self): ...
        if True:
            def one(): ...
        else:
            def two():
                def inner(): ...
        try:
            pass
        except ValueError:
            def three(): ...
        finally:
            def four(): ...
        match 1:
            case 1:
                def five(): ...
        with open("x") as file:
            for line in file:
                async def six(): ...
        """).figures
    assert (figures.classes, figures.functions, figures.async_functions) == (2, 9, 2)


def test_docstring_coverage_looks_at_what_is_public() -> None:
    figures = read('''
        """The module."""
        class Public:
            """Has one."""
            def method(self): ...
            def _private(self): ...
            def __init__(self): ...
            @property
            def size(self):
                """Has one."""
            @size.setter
            def size(self, value): ...
        class _Private:
            def method(self): ...
        @overload
        def function(a: int) -> int: ...
        def function(a):
            """Has one."""
            def inner(): ...
        ''').figures
    assert (figures.documentable, figures.documented) == (5, 4)
    assert figures.docstring_coverage == 0.8


@pytest.mark.parametrize(
    ("file", "documentable"),
    [
        ("module.py", 2),
        ("_module.py", 0),
        ("package/__init__.py", 2),
        ("package/__main__.py", 2),
        ("__future__.py", 2),
        ("_package/__init__.py", 0),
        ("package/_private/module.py", 0),
    ],
)
def test_nothing_in_a_private_module_is_public(file: str, documentable: int) -> None:
    assert read("def function(): ...", file).figures.documentable == documentable


def test_an_empty_module_needs_no_docstring() -> None:
    assert read("# nothing\n").figures.docstring_coverage is None


def test_annotation_coverage_looks_at_parameters_and_results_without_self() -> None:
    figures = read("""
        class A:
            def method(self, a: int, /, b, *rest: int, c: int, **more) -> None: ...
            @staticmethod
            def static(a: int): ...
            @classmethod
            def made(cls) -> "A": ...
            def odd(*arguments): ...
        def function(self): ...
        """).figures
    # in the order of the source; each has its result besides its parameters
    assert (figures.annotatable, figures.annotated) == (6 + 2 + 1 + 2 + 2, 4 + 1 + 1)
    assert figures.annotation_coverage == pytest.approx(6 / 13)


def test_imports_on_loading_and_deferred_ones_are_told_apart() -> None:
    report = read("""
        import os.path, sys
        from collections import abc
        from . import sibling
        from .sibling import name
        import package.other
        if TYPE_CHECKING:
            import decimal
        elif True:
            import enum
        if typing.TYPE_CHECKING:
            import fractions
        try:
            import json
        except ImportError:
            import pickle
        class A:
            import re
        def function():
            import sys, shutil
            class B:
                import socket
        if __name__ == "__main__":
            import doctest
        """)
    assert report.imports == {"os", "sys", "collections", "enum", "json", "pickle", "re"}
    assert report.deferred == {"decimal", "fractions", "shutil", "socket", "doctest"}


def test_the_longest_functions_come_first_with_their_place() -> None:
    body = "\n".join("    pass" for _ in range(3))
    source = f"class A:\n    def short(self): pass\n\ndef long():\n{body}\n    def inner(): pass\n"
    assert analyse(source.encode(), "m.py").longest == (
        Function("long", "m.py", 4, 5),
        Function("A.short", "m.py", 2, 1),
        Function("long.inner", "m.py", 8, 1),
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"print 'python 2'\n", "line 1"),
        (b"a = 1\nb = (\n", "line 2"),
        (b"a = '\0'\n", "null"),
        (b"# coding: no-such-encoding\n", "encoding"),
        (b"'\xff'\n", "utf-8"),
        (b"(" * 5000 + b")" * 5000 + b"\n", ""),
    ],
)
def test_what_cannot_be_parsed_is_counted_as_such(source: bytes, reason: str) -> None:
    report = analyse(source, "m.py")
    assert report.problem
    assert reason in report.problem
    assert report.figures == Figures(files=1, lines=source.count(b"\n"))


def test_declared_encodings_are_understood() -> None:
    assert analyse("# coding: latin-1\ndef größe(): ...\n".encode("latin-1"), "m.py").longest[0].name == "größe"


def test_a_long_elif_chain_is_no_problem() -> None:
    chain = "if a == 0: pass\n" + "".join(f"elif a == {number}: pass\n" for number in range(1, 500))
    assert not analyse((chain + "else:\n    def last(): ...\n").encode(), "m.py").problem


def test_whoever_else_parses_meanwhile_does_no_harm() -> None:
    def parse_too(phase: str, info: dict[str, int]) -> None:
        compile("1", "", "eval", ast.PyCF_ONLY_AST)

    gc.callbacks.append(parse_too)
    try:
        assert not analyse(Path(argparse.__file__).read_bytes(), "argparse.py").problem
    finally:
        gc.callbacks.remove(parse_too)
    assert gc.isenabled()


def test_warnings_about_sources_are_ignored_where_asked() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignore_source_warnings()
        assert not analyse(b"a = '\\d'\n", "m.py").problem
        with pytest.raises(UserWarning):
            warnings.warn("another one", UserWarning, stacklevel=1)


def test_a_package_is_the_sum_of_its_files() -> None:
    report = summarise(
        "package",
        [
            ("package/a.py", read("import re\nimport os\ndef a():\n    import json")),
            ("package/b.py", read("import re\nimport json\n")),
            ("package/c.py", analyse(b"print 1\n", "package/c.py")),
        ],
    )
    assert report.figures.files == 3
    assert report.figures.lines == 4 + 2 + 1
    assert report.imports == {"json": 1, "os": 1, "re": 2}
    assert report.deferred == {}
    assert list(report.unparsable) == ["package/c.py"]


def test_a_package_remembers_only_its_longest_functions() -> None:
    source = "".join(f"def f{number}():\n" + "    pass\n" * (number + 1) for number in range(LONGEST + 5))
    longest = summarise("m", [("m.py", analyse(source.encode(), "m.py"))]).longest
    assert [function.name for function in longest] == [f"f{number}" for number in range(LONGEST + 4, 4, -1)]
