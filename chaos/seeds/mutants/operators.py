"""From source to mutants: one small change each, at its place in the text, so that a diff is short.

The operators are those that mutation testers for Python agree on (MutPy, Cosmic Ray, mutmut,
mutatest): comparisons and their bounds, connectives, conditions forced either way, constants off by
one, arithmetic, statements and arguments that are dropped or swapped, returned constants, loops
left too early or never begun. Ours besides: ``early=True``, by which a message leaves before what
it claims is durable, and one side of a ``max`` or ``min``, by which something goes back.

What cannot change how a protocol behaves stays as it is: annotations, messages of errors, marks,
invariants and what they read, asserts (a mutant without one would be caught by less, never more),
and the check of parameters. And what refuses messages that cannot be true stays: among seeds nobody
lies, so only the fuzzer of frames can judge it.
"""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator

import msgspec

OTHER_COMPARISON: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
OTHER_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
OTHER_FUNCTION = {"max": "min", "min": "max", "any": "all", "all": "any"}
EMPTY = {"int": "0", "float": "0.0", "str": '""', "list": "[]", "dict": "{}", "set": "set()"}
"""What a function returns instead, by the beginning of its annotation."""
NOT_A_PROTOCOLS = ("Invariant", "Parameters", "Protocol")
"""Bases of classes that only judge or configure it, or are for the type checker."""
VIEWS_OF_INVARIANTS = ("watched", "__repr__", "__str__")
UNORDERED = ("isinstance", "max", "min")
"""Functions whose arguments are not swapped: that changes nothing, or raises at once."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one file: the bytes from ``start`` to ``end`` become ``text``.

    It is known by its content, so that it is the same one after edits elsewhere: ``file`` (relative
    to the project), ``function`` (its qualified name), ``line`` (the source line where it begins,
    stripped), ``change``, and ``number`` (from 1) among those that are equal in all of that.
    ``at``: the number of the line today."""

    file: str
    function: str
    line: str
    change: str
    number: int
    at: int
    start: int
    end: int
    text: str

    @property
    def key(self) -> str:
        """Its content, as one text."""
        return f"{self.file}:{self.function}: {self.line} [{self.change}] {self.number}"

    def apply(self, source: bytes) -> bytes:
        """The source with the change in it."""
        return source[: self.start] + self.text.encode() + source[self.end :]


class _Change(msgspec.Struct, frozen=True):
    start: int
    end: int
    text: str
    change: str


def mutants_of(source: bytes, file: str) -> list[Mutant]:
    """All mutants of a file, in the order of their places."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    lines = source.decode().splitlines()
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for function, change in sorted(finder.found, key=lambda each: (each[1].start, each[1].end)):
        at = source.count(b"\n", 0, change.start) + 1
        line = lines[at - 1].strip()
        seen[function, line, change.change] += 1
        found.append(
            Mutant(
                file=file,
                function=function,
                line=line,
                change=change.change,
                number=seen[function, line, change.change],
                at=at,
                start=change.start,
                end=change.end,
                text=change.text,
            )
        )
    return found


class _Finder(ast.NodeVisitor):
    """Collects the changes within functions. ``found``: with the function's qualified name."""

    def __init__(self, source: bytes) -> None:
        self.found: list[tuple[str, _Change]] = []
        self._source = source
        self._lines = [0, *itertools.accumulate(len(line) for line in source.splitlines(True))]
        self._names: list[str] = []
        self._functions: list[Function] = []
        self._judges: set[str] = set()

    # --- places in the text ---

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._lines[node.lineno - 1] + node.col_offset
        return start, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _add(self, place: ast.expr | ast.stmt | tuple[int, int], text: str, change: str) -> None:
        start, end = place if isinstance(place, tuple) else self._span(place)
        if self._source[start:end].decode() != text:
            self.found.append((".".join(self._names), _Change(start, end, text, change)))

    def _add_between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """The operator between two operands."""
        begin, end = self._span(left)[1], self._span(right)[0]
        at = begin + self._source[begin:end].index(old.encode())
        self._add((at, at + len(old)), new, f"`{old}` to `{new}`")

    def _short(self, node: ast.expr | ast.stmt) -> str:
        """The code of a node, as part of the name of a change."""
        return " ".join(ast.unparse(node).split())

    # --- what is left alone ---

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [ast.unparse(base).split("[")[0] for base in node.bases]
        if any(base.endswith(NOT_A_PROTOCOLS) or base in self._judges for base in bases):
            self._judges.add(node.name)
        else:
            self._names.append(node.name)
            for statement in node.body:
                if isinstance(statement, Function | ast.ClassDef):
                    self.visit(statement)
            self._names.pop()

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            if isinstance(statement, Function | ast.ClassDef):
                self.visit(statement)

    def visit_FunctionDef(self, node: Function) -> None:
        if node.name in VIEWS_OF_INVARIANTS:
            return
        self._names.append(node.name)
        self._functions.append(node)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._block(node.body)
        self._functions.pop()
        self._names.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_Raise(self, node: ast.Raise) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    # --- statements ---

    def _block(self, body: list[ast.stmt], *, alone_is_left: bool = False) -> None:
        """``alone_is_left``: a single statement is not dropped; forcing the condition is the
        same."""
        for statement in body:
            if _is_left_alone(statement):
                continue
            if self._can_be_dropped(statement) and not (alone_is_left and len(body) == 1):
                self._add(statement, "pass", f"drop `{self._short(statement)}`")
            self.visit(statement)

    def _can_be_dropped(self, statement: ast.stmt) -> bool:
        """A statement without which the function still runs: not one that first binds a name, for
        that would be a NameError that nobody needs to look for."""
        match statement:
            case ast.Expr(value=ast.Constant()):
                return False
            case ast.Expr() | ast.AugAssign() | ast.Delete() | ast.Break() | ast.Continue():
                return True
            case ast.Return(value=None):
                return True
            case ast.Assign(targets=targets):
                return all(self._was_bound(target, statement) for target in targets)
        return False

    def _was_bound(self, target: ast.expr, statement: ast.stmt) -> bool:
        function = self._functions[-1]
        if isinstance(target, ast.Subscript):
            return True
        if isinstance(target, ast.Attribute):
            return function.name != "__init__"
        names = {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
        before = {argument.arg for argument in ast.walk(function) if isinstance(argument, ast.arg)}
        before |= {
            node.id
            for node in ast.walk(function)
            if isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and node.lineno < statement.lineno
        }
        return names <= before and isinstance(target, ast.Name)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in OTHER_ARITHMETIC:
            old, new = (f"{sign}=" for sign in OTHER_ARITHMETIC[type(node.op)])
            self._add_between(node.target, node.value, old, new)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            return
        for constant in _constants(self._functions[-1]):
            self._add(node.value, constant, f"return `{constant}`")
        self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, "continue", "`break` to `continue`")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "break", "`continue` to `break`")

    def visit_If(self, node: ast.If) -> None:
        if _refuses_lies(node):
            self._force(node.test, "True")
            return
        self._force(node.test, "True", "False")
        self.visit(node.test)
        self._block(node.body, alone_is_left=not node.orelse)
        self._block(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        # Never "True": a loop without an end tells nothing of the protocol.
        self._force(node.test, "False")
        self.visit(node.test)
        self._block(node.body)

    def visit_For(self, node: ast.For) -> None:
        self._add(node.iter, "()", f"no turn over `{self._short(node.iter)}`")
        self.visit(node.iter)
        self._block(node.body)
        self._block(node.orelse)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.visit(item.context_expr)
        self._block(node.body)

    def visit_Try(self, node: ast.Try) -> None:
        self._block(node.body)
        for handler in node.handlers:
            self._block(handler.body)
        self._block(node.orelse)
        self._block(node.finalbody)

    # --- expressions ---

    def _force(self, test: ast.expr, *values: str) -> None:
        for value in values:
            self._add(test, value, f"`{self._short(test)}` is {value}")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._force(node.test, "True", "False")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._force(test, "True", "False")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        is_and = isinstance(node.op, ast.And)
        old, new = ("and", "or") if is_and else ("or", "and")
        for left, right in itertools.pairwise(node.values):
            self._add_between(left, right, old, new)
        for value in node.values:
            self._add(value, str(is_and), f"leave out `{self._short(value)}`")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start, end = self._span(node)[0], self._span(node.operand)[0]
            space = self._source[start:end].decode().removeprefix("not").lstrip()
            self._add((start, end), space, f"drop `not` of `{self._short(node.operand)}`")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip(
            (node.left, *node.comparators), node.ops, node.comparators, strict=False
        ):
            self._add_between(left, right, *OTHER_COMPARISON[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in OTHER_ARITHMETIC:
            self._add_between(node.left, node.right, *OTHER_ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add(node, str(not value), f"`{value}` to `{not value}`")
        elif isinstance(value, int):
            for other in (value + 1, value - 1):
                if other >= 0:
                    self._add(node, str(other), f"`{value}` to `{other}`")

    def visit_Slice(self, node: ast.Slice) -> None:
        for bound in (node.lower, node.upper):
            self._off_by_one(bound)
        self.generic_visit(node)

    def _off_by_one(self, bound: ast.expr | None) -> None:
        if bound is not None and not isinstance(bound, ast.Constant):
            self._add(bound, f"{self._text(bound)} + 1", f"`{self._short(bound)}` plus 1")

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in OTHER_FUNCTION:
            name = node.func.id
            self._add(node.func, OTHER_FUNCTION[name], f"`{name}` to `{OTHER_FUNCTION[name]}`")
            if name in ("max", "min") and len(node.args) == 2 and not node.keywords:
                for argument in node.args:
                    self._add(node, f"({self._text(argument)})", f"only `{self._short(argument)}`")
        if isinstance(node.func, ast.Name) and node.func.id == "range":
            for bound in node.args:
                self._off_by_one(bound)
        if not (isinstance(node.func, ast.Name) and node.func.id in UNORDERED):
            self._swap_arguments(node)
        self._early(node)
        self.generic_visit(node)

    def _swap_arguments(self, node: ast.Call) -> None:
        for one, other in itertools.pairwise(node.args):
            if isinstance(one, ast.Starred) or isinstance(other, ast.Starred):
                continue
            (start, middle), (begin, end) = self._span(one), self._span(other)
            between = self._source[middle:begin].decode()
            self._add(
                (start, end),
                f"{self._text(other)}{between}{self._text(one)}",
                f"swap `{self._short(one)}` and `{self._short(other)}`",
            )

    def _early(self, node: ast.Call) -> None:
        """Before what it claims is durable; or only then."""
        given = next((word for word in node.keywords if word.arg == "early"), None)
        if given is not None:
            if not isinstance(given.value, ast.Constant):
                self._force(given.value, "True", "False")
        elif (
            isinstance(node.func, ast.Attribute)
            and node.func.attr in ("send", "reply")
            and self._text(node.func.value).endswith("out")
        ):
            end = self._span(node)[1] - 1
            comma = "" if self._source[:end].rstrip().endswith(b",") else ", "
            self._add((end, end), f"{comma}early=True", "`early=True`")


def _is_left_alone(statement: ast.stmt) -> bool:
    """A mark, which is for those who watch a run, or a check that refuses what nobody sends."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name == "mark" or name.lstrip("_").startswith("check")
    return False


def _refuses_lies(node: ast.If) -> bool:
    """Whether all that it does is to raise BadMessage."""
    match node:
        case ast.If(body=[ast.Raise(exc=ast.Call(func=ast.Name(id="BadMessage")))], orelse=[]):
            return True
    return False


def _constants(function: Function) -> Iterator[str]:
    """What may be returned instead, of the type that is annotated."""
    if function.returns is None:
        return
    annotation = ast.unparse(function.returns)
    if annotation == "bool":
        yield from ("True", "False")
    for kind in annotation.split(" | "):
        if kind == "None" or kind == "Any":
            yield "None"
    beginning = annotation.split("[")[0]
    if beginning in EMPTY:
        yield EMPTY[beginning]
    elif annotation.startswith("tuple[") and annotation.endswith("...]"):
        yield "()"
