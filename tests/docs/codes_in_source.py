"""Finds every code of a message in the package's source, and what the message says, by reading its syntax trees.

A code reaches a message as the first argument of the classes in ``MESSAGES``, or of a function that hands its own
argument on to one (``fail``, ``_finding``, ``warn`` …: these are found, not listed). A code put together in another way
needs a line in ``BUILT``; one without is an error, so that no code is overlooked.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Function = ast.FunctionDef | ast.AsyncFunctionDef

PACKAGE = Path(__file__).parents[2] / "gpualloc"

MESSAGES = {
    "Diagnostic": "message",
    "PlanWarning": "plan warning",
    "Refusal": "reason",
    "HealthIssue": "health",
    "Cause": "message",
}
"""The classes whose first argument is a code, the second the words; and what kind of code it is."""

HINTS = {"Diagnostic": 3, "Cause": 2}
"""Those of them whose messages have a hint, and where it is among the arguments."""

_CODE = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Use:
    """One place where a message is made: its code, kind and place, and the fixed parts of its words.

    ``said`` has them for each way in which it is worded; None where the words are made elsewhere. ``hinted`` tells
    whether it has a hint in every case; of kinds of messages that have none it is True.
    """

    code: str
    kind: str
    where: str
    said: tuple[tuple[str, ...], ...] | None = None
    hinted: bool = True


@dataclass(frozen=True, slots=True)
class _Sink:
    """A callable that makes messages: where its code and its words are among the arguments."""

    kind: str
    code: int
    code_name: str
    words: int | None
    words_name: str | None
    hint: int | None = None
    hint_name: str | None = None
    hinted: bool = True
    """Whether there is a hint where none is given to it."""


@dataclass(slots=True)
class _Module:
    name: str
    tree: ast.Module
    sinks: dict[str, _Sink] = field(default_factory=dict)


def uses(package: Path = PACKAGE) -> list[Use]:
    """Return every use of a code. Raises LookupError for a code that is put together in a way not listed."""
    modules = [
        _Module(path.relative_to(package).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(package.rglob("*.py"))
    ]
    public = {
        name: _Sink(kind, 0, "code", 1, "summary", HINTS.get(name), "hint", name not in HINTS)
        for name, kind in MESSAGES.items()
    }
    while _find_sinks(modules, public):
        pass
    found: list[Use] = []
    for module in modules:
        for call, function, sink in _calls(module, public):
            found += _uses_of(module, modules, call, function, sink)
    return found


def _find_sinks(modules: list[_Module], public: dict[str, _Sink]) -> bool:
    """Make functions that hand on their own argument as a code sinks too; tell whether any was new."""
    new = False
    for module in modules:
        for call, function, sink in _calls(module, public):
            code = _argument(call, sink.code, sink.code_name)
            if function is None or not isinstance(code, ast.Name):
                continue
            names = _parameters(function)
            known = module.sinks if function.name.startswith("_") or _is_method(module, function) else public
            if code.id in names and function.name not in known:
                words = _argument(call, sink.words, sink.words_name)
                same = isinstance(words, ast.Name) and words.id in names
                hint = _argument(call, sink.hint, sink.hint_name)
                handed = isinstance(hint, ast.Name) and hint.id in names
                known[function.name] = _Sink(
                    sink.kind,
                    names.index(code.id),
                    code.id,
                    names.index(words.id) if same and isinstance(words, ast.Name) else None,
                    words.id if same and isinstance(words, ast.Name) else None,
                    names.index(hint.id) if handed and isinstance(hint, ast.Name) else None,
                    hint.id if handed and isinstance(hint, ast.Name) else None,
                    (sink.hinted if hint is None else _hinted(hint, function)) and not handed,
                )
                new = True
    return new


def _calls(module: _Module, public: dict[str, _Sink]) -> Iterator[tuple[ast.Call, Function | None, _Sink]]:
    for node, function in _walk(module.tree, None):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr if node.func.attr in module.sinks else None
        sink = module.sinks.get(name or "") or public.get(name or "")
        if sink is not None and (node.args or node.keywords):
            yield node, function, sink


def _walk(node: ast.AST, function: Function | None) -> Iterator[tuple[ast.AST, Function | None]]:
    for child in ast.iter_child_nodes(node):
        yield child, function
        inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from _walk(child, inner)


def _parameters(function: Function) -> list[str]:
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _is_method(module: _Module, function: Function) -> bool:
    return any(isinstance(node, ast.ClassDef) and function in node.body for node in ast.walk(module.tree))


def _argument(call: ast.Call, position: int | None, name: str | None) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg is not None and keyword.arg == name:
            return keyword.value
    return call.args[position] if position is not None and position < len(call.args) else None


# --------------------------------------------------------------------------------------------------------------------
# Codes


def _uses_of(
    module: _Module, modules: list[_Module], call: ast.Call, function: Function | None, sink: _Sink
) -> Iterator[Use]:
    expression = _argument(call, sink.code, sink.code_name)
    if expression is None or (isinstance(expression, ast.Name) and function and expression.id in _parameters(function)):
        return
    where = f"{module.name}:{call.lineno}"
    said = _said(_argument(call, sink.words, sink.words_name), function)
    hint = _argument(call, sink.hint, sink.hint_name)
    hinted = sink.hinted if hint is None else _hinted(hint, function)
    codes = list(_constants(expression, function))
    if not codes:
        text = ast.unparse(expression)
        for name, key, build in BUILT:
            if module.name.endswith(name) and key == text:
                codes = list(build(modules))
                break
        else:
            message = (
                f"{where}: the code {text} is put together in a way that tests/docs/codes_in_source.py cannot read"
            )
            raise LookupError(message)
    for code in codes:
        assert _CODE.fullmatch(code), f"{where}: {code!r} is no code"
        yield Use(code, sink.kind, where, said, hinted)


def _hinted(hint: ast.expr, function: Function | None) -> bool:
    """Tell whether a hint is there in every case, as far as it can be read: a call is taken to give one."""
    if isinstance(hint, ast.Constant):
        return bool(hint.value)
    if isinstance(hint, ast.IfExp):
        return _hinted(hint.body, function) and _hinted(hint.orelse, function)
    if isinstance(hint, ast.BoolOp):
        return isinstance(hint.op, ast.Or) and any(_hinted(value, function) for value in hint.values)
    if isinstance(hint, ast.Name) and function is not None:
        parameters = [a for a in ast.walk(function.args) if isinstance(a, ast.arg) and a.arg == hint.id]
        if parameters and parameters[0].annotation is not None:
            return "None" not in ast.unparse(parameters[0].annotation)
        return all(value is None or _hinted(value, None) for value in _assigned(function, hint.id))
    return True


def _constants(expression: ast.expr, function: Function | None) -> Iterator[str]:
    """Yield what an expression can be, if it is text, a choice of texts, or a name that was set to such in full."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        yield expression.value
    elif isinstance(expression, ast.IfExp):
        yield from _constants(expression.body, function)
        yield from _constants(expression.orelse, function)
    elif isinstance(expression, ast.Name) and function is not None:
        values = _assigned(function, expression.id)
        found = [list(_constants(value, None)) if value is not None else [] for value in values]
        if all(found):
            for codes in found:
                yield from codes


def _assigned(function: Function, name: str) -> list[ast.expr | None]:
    """Return every value that a name is set to in a function; None for one that cannot be told."""
    values: list[ast.expr | None] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    values.append(node.value)
                elif isinstance(target, ast.Tuple):
                    for position, part in enumerate(target.elts):
                        if isinstance(part, ast.Name) and part.id == name:
                            whole = isinstance(node.value, ast.Tuple)
                            values.append(node.value.elts[position] if isinstance(node.value, ast.Tuple) else None)
                            assert whole or values[-1] is None
        elif isinstance(node, ast.For | ast.comprehension) and any(
            isinstance(part, ast.Name) and part.id == name for part in ast.walk(node.target)
        ):
            values.append(None)
    return values


def _said(words: ast.expr | None, function: Function | None) -> tuple[tuple[str, ...], ...] | None:
    """Return the fixed parts of a message's words, for each way in which it is worded; None if made elsewhere."""
    if isinstance(words, ast.BinOp):
        words = words.left  # what is added may be nothing
    several: list[ast.expr | None] = []
    if isinstance(words, ast.Name) and function is not None:
        several = _assigned(function, words.id)
    elif isinstance(words, ast.IfExp):
        several = [words.body, words.orelse]
    elif isinstance(words, ast.Constant) and isinstance(words.value, str):
        return ((words.value,),)
    elif isinstance(words, ast.JoinedStr):
        return (tuple(str(part.value) for part in words.values if isinstance(part, ast.Constant)),)
    ways = [_said(value, None) for value in several]
    return tuple(parts for way in ways for parts in way or ()) if ways and None not in ways else None


# --------------------------------------------------------------------------------------------------------------------
# Codes that are put together


def _module(modules: Iterable[_Module], name: str) -> ast.Module:
    return next(module.tree for module in modules if module.name == name)


def _first_of_calls(tree: ast.AST, *names: str) -> list[str]:
    """Return the first arguments, as far as they are text, of calls of methods with these names."""
    return [
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in names
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]


def _prefixed(modules: list[_Module], method: str, prefixes: dict[str, tuple[str, ...]], where: str) -> Iterator[str]:
    """Yield ``prefix-kind`` for every call of a checking method, by the prefixes that its module is used with."""
    for module in modules:
        kinds = _first_of_calls(module.tree, method)
        if not kinds or not module.name.startswith(where):
            continue
        if module.name not in prefixes:
            message = f"{module.name} calls .{method}(…): tests/docs/codes_in_source.py must know with which prefix"
            raise LookupError(message)
        yield from (f"{prefix}-{kind}" for prefix in prefixes[module.name] for kind in kinds)


def _checker(modules: list[_Module]) -> Iterator[str]:
    both = ("policy", "ask")
    prefixes = {"policy/checks.py": both, "policy/asks.py": both, "policy/schema.py": ("policy",)}
    yield from _prefixed(modules, "report", prefixes, "policy/")


_STRICT: dict[str, tuple[str, ...]] = {
    "strict.py": ("inventory", "plan"),
    "inventory/snapshot.py": ("inventory",),
    "render/plan_json.py": ("plan",),
    "compose/interpolate.py": (),  # its own method of that name, which takes whole codes
}


def _strict(modules: list[_Module]) -> Iterator[str]:
    yield from _prefixed(modules, "error", _STRICT, "")
    for call in ast.walk(_module(modules, "strict.py")):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "_error_at":
            kind = call.args[1]
            if isinstance(kind, ast.Constant):
                yield from (f"{prefix}-{kind.value!s}" for prefix in _STRICT["strict.py"])


def _tuples(tree: ast.AST, *functions: str) -> Iterator[str]:
    """Yield the first item of every tuple of texts in these functions, or all: how filters and rules give a code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in functions:
            for made in ast.walk(node):
                value = made.value if isinstance(made, ast.Return) else None
                first = value.elts[0] if isinstance(value, ast.Tuple) else value
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value


def _table(tree: ast.Module, name: str) -> Iterator[str]:
    """Yield the first item of every line of a table of tuples."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert isinstance(node.value, ast.Tuple)
            for line in node.value.elts:
                assert isinstance(line, ast.Tuple)
                assert isinstance(line.elts[0], ast.Constant)
                yield str(line.elts[0].value)


def _filters(modules: list[_Module]) -> set[str]:
    tree = _module(modules, "policy/filters.py")
    return {*_table(tree, "POLICY_FILTERS"), *_table(tree, "REQUEST_FILTERS")}


def _refusals(modules: list[_Module]) -> set[str]:
    unplaced = _module(modules, "solve/unplaced.py")
    methods = _tuples(unplaced, "_here", "_no_more_devices", "_together")
    return {*_filters(modules), *methods, *_tuples(_module(modules, "solve/rules.py"), "crowd_fault")}


def _pinned_to(modules: list[_Module]) -> Iterator[str]:
    for code in _filters(modules):
        yield "unhealthy-device" if code == "unhealthy" else f"unfit-{code.replace('_', '-')}"
    for call in ast.walk(_module(modules, "inventory/health.py")):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "HealthIssue":
            given, fatal = call.args[0], next((k.value for k in call.keywords if k.arg == "fatal"), None)
            if isinstance(given, ast.Constant) and isinstance(fatal, ast.Constant) and not fatal.value:
                yield str(given.value).replace("_", "-")  # a fault that the worker may stay with


def _changes(modules: list[_Module]) -> Iterator[str]:
    for function in ast.walk(_module(modules, "checks/changes.py")):
        if isinstance(function, ast.FunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Change":
                    found = list(_constants(call.args[0], function))
                    assert found, ast.unparse(call)
                    yield from (f"changed-{code}" for code in found)


def _readings(modules: list[_Module]) -> Iterator[str]:
    yield from _tuples(_module(modules, "verify/causes.py"), "_reading", "_numbers")


def _nvml(modules: list[_Module]) -> Iterator[str]:
    for node in ast.walk(_module(modules, "inventory/nvml.py")):
        if isinstance(node, ast.FunctionDef) and node.name == "_not_opened":
            for made in ast.walk(node):
                if isinstance(made, ast.Tuple) and len(made.elts) == 3 and isinstance(made.elts[0], ast.Constant):
                    yield str(made.elts[0].value)


def _json(_modules: list[_Module]) -> Iterator[str]:
    yield from (f"{kind}-json" for kind in _STRICT["strict.py"])


def _replaced(modules: list[_Module]) -> Iterator[str]:
    """Yield codes that take the place of a cause's own; the others are found where causes are made."""
    for keyword in ast.walk(_module(modules, "verify/judge.py")):
        if isinstance(keyword, ast.keyword) and keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
            yield str(keyword.value.value)


def _none(_modules: list[_Module]) -> Iterator[str]:
    yield from ()


def _moves(_modules: list[_Module]) -> Iterator[str]:
    yield from ("would-move", "would-resize")


def _xid(_modules: list[_Module]) -> Iterator[str]:
    yield "xid"  # one page for all numbers


def _frameworks(modules: list[_Module]) -> Iterator[str]:
    yield from _tuples(_module(modules, "verify/judge.py"), "_framework")


BUILT: tuple[tuple[str, str, Callable[[list[_Module]], Iterable[str]]], ...] = (
    ("policy/checks.py", "f'{self._prefix}-{kind}'", _checker),
    ("strict.py", "f'{self.document.kind}-{what}'", _strict),
    ("jsontext.py", "f'{kind}-json'", _json),
    ("solve/unplaced.py", "code", _refusals),
    ("checks/devices.py", "code", _pinned_to),
    ("checking.py", "f'changed-{change.code}'", _changes),
    ("checking.py", "f'would-{placement.action}'", _moves),
    ("inventory/nvml.py", "name", _nvml),
    ("verify/causes.py", "code", _readings),
    ("inventory/health.py", "f'xid_{number}'", _xid),
    ("verify/judge.py", "cause.code", _replaced),
    ("verify/judge.py", "code", _frameworks),
    ("inventory/snapshot.py", "fields['code'].text()", _none),  # read from a document, made elsewhere
    ("render/plan_json.py", "fields['code'].text()", _none),
)
"""Codes that are put together: the module, the expression as Python writes it, and what finds them all."""
