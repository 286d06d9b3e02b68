"""What a source file says about itself, read from its syntax tree (`ast`). Pure: reads no files, knows no jobs.

What is counted, and how:

- A *line* is a physical line, blank ones and comments included.
- *Docstring coverage* looks at modules, public classes, and public functions and methods: no name on the way to them
  begins with an underscore (a module may be called ``__main__``), and no function encloses them. Setters, deleters
  and overloads need no docstring.
- *Annotation coverage* looks at every function: each parameter, apart from ``self`` and ``cls``, and the result.
- An import is made *on loading* unless it stands in a function, under ``if TYPE_CHECKING`` or under
  ``if __name__ == "__main__"``; then it is *deferred*.
"""

from __future__ import annotations

import ast
import gc
import threading
import warnings
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: How many of a package's longest functions are remembered.
LONGEST = 10

#: The file name under which sources are parsed; warnings about them carry it.
_PARSED_AS = "<analysed source>"

#: Only one thread at a time parses; see `_parse`.
_one_parser = threading.Lock()


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts that can be added up; see the module for what is counted.

    Attributes:
        files: source files, also those that cannot be parsed.
        lines: lines of all of them.
        classes: classes.
        functions: functions and methods of both kinds.
        async_functions: those that are ``async def``.
        documentable: what docstring coverage looks at.
        documented: how many of those have a docstring.
        annotatable: what annotation coverage looks at.
        annotated: how many of those have an annotation.
    """

    files: int = 0
    lines: int = 0
    classes: int = 0
    functions: int = 0
    async_functions: int = 0
    documentable: int = 0
    documented: int = 0
    annotatable: int = 0
    annotated: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Figures)))

    @property
    def docstring_coverage(self) -> float | None:
        """The documented fraction, 0 to 1; None when there is nothing to document."""
        return self.documented / self.documentable if self.documentable else None

    @property
    def annotation_coverage(self) -> float | None:
        """The annotated fraction, 0 to 1; None when there is nothing to annotate."""
        return self.annotated / self.annotatable if self.annotatable else None


@dataclass(frozen=True, slots=True)
class Function:
    """A function and where it stands.

    Attributes:
        name: with the classes and functions around it: ``Formatter.format``.
        file: path below the library's directory, with forward slashes.
        line: where its ``def`` stands, from 1.
        lines: how long it is.
    """

    name: str
    file: str
    line: int
    lines: int


@dataclass(frozen=True, slots=True)
class FileReport:
    """What one file says.

    Attributes:
        figures: its counts.
        longest: its longest functions, longest first, at most `LONGEST`.
        imports: top-level packages it imports on loading, without its own.
        deferred: those it only imports later.
        problem: why it cannot be parsed; empty when it can.
    """

    figures: Figures
    longest: tuple[Function, ...] = ()
    imports: frozenset[str] = frozenset()
    deferred: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PackageReport:
    """What the files of one package say together.

    Attributes:
        package: its name.
        figures: its counts.
        longest: its longest functions, longest first, at most `LONGEST`.
        imports: the other packages it imports on loading, with the number of its files that do.
        deferred: those that it only imports later, with the number of files.
        unparsable: files that cannot be parsed, with the reason.
    """

    package: str
    figures: Figures
    longest: tuple[Function, ...]
    imports: dict[str, int]
    deferred: dict[str, int]
    unparsable: dict[str, str]


def analyse(source: bytes, file: str) -> FileReport:
    """Analyse one source file.

    Args:
        source: its content, undecoded, since Python's parser knows the ways to declare an encoding.
        file: its path below the library's directory, with forward slashes; its first part is its package.
    """
    lines = source.count(b"\n") + bool(source and not source.endswith(b"\n"))
    try:
        tree = _parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        # all that the parser raises: syntax, NUL bytes, nesting too deep for it (both of the last two)
        reason = f"{exc.msg}, line {exc.lineno}" if isinstance(exc, SyntaxError) else str(exc) or type(exc).__name__
        return FileReport(Figures(files=1, lines=lines), problem=reason)
    walk = _Walk(file)
    walk.module(tree)
    own = {file.partition("/")[0].removesuffix(".py")}
    return FileReport(
        Figures(files=1, lines=lines, **walk.counts),
        longest=_longest(walk.functions),
        imports=frozenset(walk.imports - own),
        deferred=frozenset(walk.deferred - walk.imports - own),
    )


def summarise(package: str, reports: Iterable[tuple[str, FileReport]]) -> PackageReport:
    """Put the reports of a package's files, each with its path, together."""
    figures = Figures()
    functions: list[Function] = []
    imports: Counter[str] = Counter()
    deferred: Counter[str] = Counter()
    unparsable = {}
    for file, report in reports:
        figures += report.figures
        functions += report.longest
        imports.update(report.imports)
        deferred.update(report.deferred)
        if report.problem:
            unparsable[file] = report.problem
    return PackageReport(
        package=package,
        figures=figures,
        longest=_longest(functions),
        imports=dict(sorted(imports.items())),
        deferred={name: count for name, count in sorted(deferred.items()) if name not in imports},
        unparsable=unparsable,
    )


def ignore_source_warnings() -> None:
    """Keep what the parser warns of in analysed sources (odd escapes, say) from being shown, or raised.

    Changes the process's warning filters; they cannot be changed for one thread alone.
    """
    warnings.filterwarnings("ignore", module=_PARSED_AS)


def longest_first(functions: Iterable[Function]) -> list[Function]:
    """Sort functions by length; equally long ones by their place."""
    return sorted(functions, key=lambda function: (-function.lines, function.file, function.line))


def _parse(source: bytes) -> ast.Module:
    """Build the syntax tree, while no other one is begun.

    Whoever begins one meanwhile upsets the recursion counter of the first: SystemError, "AST constructor recursion
    depth mismatch", seen on Python 3.11.7 (python/cpython#106905). Others do, too: to format a traceback is enough. The
    parser holds the GIL, so they get their turn only when the garbage collector runs Python code: it has to wait.
    """
    with _one_parser:
        collects = gc.isenabled()
        gc.disable()
        try:
            return ast.parse(source, filename=_PARSED_AS)
        finally:
            if collects:
                gc.enable()


def _longest(functions: Iterable[Function]) -> tuple[Function, ...]:
    return tuple(longest_first(functions)[:LONGEST])


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a statement stands: its names' prefix, and what is true of everything in that place."""

    prefix: str = ""
    in_class: bool = False
    public: bool = True
    deferred: bool = False


@dataclass(slots=True)
class _Walk:
    """Goes through a module's statements; expressions hold neither definitions nor imports.

    It keeps its own stack: a long ``elif`` chain nests deeper than Python's recursion limit allows.
    """

    file: str
    counts: Counter[str] = field(default_factory=Counter)
    functions: list[Function] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    deferred: set[str] = field(default_factory=set)
    _pending: list[tuple[ast.stmt, _Scope]] = field(default_factory=list)

    def module(self, tree: ast.Module) -> None:
        """Count a whole module."""
        scope = _Scope(public=_is_public_module(self.file))
        if tree.body and scope.public:
            self._count_docstring(tree)
        self._push(tree.body, scope)
        while self._pending:
            self._statement(*self._pending.pop())

    def _push(self, statements: Iterable[ast.stmt], scope: _Scope) -> None:
        self._pending.extend((statement, scope) for statement in statements)

    def _statement(self, node: ast.stmt, scope: _Scope) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node, scope)
            case ast.ClassDef():
                self._class(node, scope)
            case ast.Import():
                self._import((alias.name for alias in node.names), scope)
            case ast.ImportFrom():
                # a relative import stays inside the package
                self._import([node.module] if node.module and not node.level else [], scope)
            case ast.If() if _is_false_on_loading(node.test):
                self._push(node.body, _Scope(scope.prefix, scope.in_class, scope.public, deferred=True))
                self._push(node.orelse, scope)
            case _:
                for block in _blocks(node):
                    self._push(block, scope)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope) -> None:
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
        self.counts["functions"] += 1
        self.counts["async_functions"] += isinstance(node, ast.AsyncFunctionDef)
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        self.functions.append(Function(scope.prefix + node.name, self.file, node.lineno, length))
        if scope.public and not node.name.startswith("_") and decorators.isdisjoint({"setter", "deleter", "overload"}):
            self._count_docstring(node)
        has_self = scope.in_class and "staticmethod" not in decorators
        annotations = [*_parameter_annotations(node.args, has_self=has_self), node.returns]
        self.counts["annotatable"] += len(annotations)
        self.counts["annotated"] += sum(annotation is not None for annotation in annotations)
        self._push(node.body, _Scope(f"{scope.prefix}{node.name}.", public=False, deferred=True))

    def _class(self, node: ast.ClassDef, scope: _Scope) -> None:
        self.counts["classes"] += 1
        public = scope.public and not node.name.startswith("_")
        if public:
            self._count_docstring(node)
        self._push(node.body, _Scope(f"{scope.prefix}{node.name}.", True, public, scope.deferred))

    def _import(self, modules: Iterable[str], scope: _Scope) -> None:
        target = self.deferred if scope.deferred else self.imports
        target.update(module.partition(".")[0] for module in modules)

    def _count_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.counts["documentable"] += 1
        self.counts["documented"] += bool(ast.get_docstring(node, clean=False))


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Give the blocks of statements inside a compound statement."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, [])
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield part.body


def _parameter_annotations(arguments: ast.arguments, *, has_self: bool) -> list[ast.expr | None]:
    positional = [*arguments.posonlyargs, *arguments.args]
    named = [*positional[has_self:], *arguments.kwonlyargs]
    rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [argument.annotation for argument in (*named, *rest)]


def _is_public_module(file: str) -> bool:
    parts = file.removesuffix(".py").split("/")
    return not any(part.startswith("_") and not part.endswith("__") for part in parts)


def _is_false_on_loading(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()]):
            return True
        case _:
            return False
