"""Signatures and docstrings read from the source, so that names are listed and checked without importing JAX."""

from __future__ import annotations

import ast
import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from nodepert.registry.spec import PARSING, Spec, parse

KNOWN: dict[str, Any] = {t.__name__: t for t in (float, int, bool, str, list, dict, Spec)}  # in annotations


class Described(NamedTuple):
    """A factory's parameters, with evaluated annotations, and its docstring."""

    parameters: tuple[inspect.Parameter, ...]
    doc: str


def described(factory: Callable[..., Any]) -> Described:
    """The description of an imported factory."""
    parameters = inspect.signature(factory, eval_str=True).parameters.values()
    named = [_as_spec(p.replace(annotation=_without_none(p.annotation))) for p in parameters]
    return Described(tuple(named), inspect.getdoc(factory) or "")


def _as_spec(p: inspect.Parameter) -> inspect.Parameter:
    """A parameter for a spec that may be given as text: its default is parsed."""
    if p.annotation not in (Spec, Spec | str):
        return p
    return p.replace(annotation=Spec, default=parse(p.default) if isinstance(p.default, str) else p.default)


def _without_none(annotation: Any) -> Any:
    """An annotation without None: int for int | None."""
    options = [option for option in typing.get_args(annotation) if option is not types.NoneType]
    return options[0] if isinstance(annotation, types.UnionType) and len(options) == 1 else annotation


@functools.cache
def read(target: str) -> Described | None:
    """The description of a function or dataclass "module:name" of this package, from its source; None if it must be
    imported.

    An annotation that no argument of a spec has (a `Model`, an `Array`) is returned as text.
    """
    module, _, name = target.partition(":")
    factory = _top_level(module).get(name)
    if isinstance(factory, ast.ClassDef):
        parameters = _fields(module, name)
    elif isinstance(factory, ast.FunctionDef) and all(map(_changes_nothing, factory.decorator_list)):
        parameters = _parameters(module, factory.args)
    else:
        return None
    try:
        unique = {p.name: p for p in parameters}.values()
        return Described(tuple(unique), inspect.cleandoc(ast.get_docstring(factory) or ""))
    except ValueError:  # a default that is not a literal
        return None


def _changes_nothing(decorator: ast.expr) -> bool:
    """Whether a decorator returns the function itself: `stored(...)`, which declares its files."""
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "stored"


def _fields(module: str, name: str):
    """The fields of a dataclass, those of its base first; those with a default are keyword-only."""
    match _top_level(module).get(name):
        case ast.ImportFrom(module=str() as source):
            yield from _fields(source, name)
        case ast.ClassDef(bases=bases, body=body):
            yield from (field for base in bases if isinstance(base, ast.Name) for field in _fields(module, base.id))
            for field in body:
                if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation):
                    kind = inspect.Parameter.KEYWORD_ONLY if field.value else inspect.Parameter.POSITIONAL_OR_KEYWORD
                    target = ast.arg(ast.unparse(field.target), field.annotation)
                    yield _parameter(module, target, kind, field.value)


def _parameters(module: str, arguments: ast.arguments):
    kinds = inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(positional) - len(arguments.defaults))
    for a, default in zip(positional, [*missing, *arguments.defaults], strict=True):
        yield _parameter(module, a, kinds.POSITIONAL_OR_KEYWORD, default)
    if arguments.vararg:
        yield _parameter(module, arguments.vararg, kinds.VAR_POSITIONAL, None)
    for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(module, a, kinds.KEYWORD_ONLY, default)
    if arguments.kwarg:
        yield _parameter(module, arguments.kwarg, kinds.VAR_KEYWORD, None)


def _parameter(module: str, a: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
    return _as_spec(inspect.Parameter(a.arg, kind, default=value, annotation=_annotation(module, a.annotation)))


def _annotation(module: str, node: ast.expr | None) -> Any:
    """The type that an annotation names: a builtin, Spec, a Literal or an alias of these; else its text."""
    match node:
        case None:
            return inspect.Parameter.empty
        case ast.Subscript(ast.Name("Literal"), options):
            values = ast.literal_eval(options)
            return Literal[values] if isinstance(values, str) else Literal[*values]  # pyright: ignore
        case ast.Name(name) if name in KNOWN:
            return KNOWN[name]
        case ast.BinOp(option, ast.BitOr(), ast.Constant(None) | ast.Name("str")):  # a spec may be given as text
            return _annotation(module, option)
        case ast.Subscript(ast.Name("tuple"), ast.Tuple([ast.Name(name), ast.Constant()])) if name in KNOWN:
            return tuple[KNOWN[name], ...]
        case ast.Name(name):
            match _top_level(module).get(name):
                case ast.Assign(value=alias):
                    return _annotation(module, alias)
                case ast.ImportFrom(module=str() as source) if source.startswith("nodepert"):
                    return _annotation(source, node)
    return ast.unparse(node)


@functools.cache
def _top_level(module: str) -> dict[str, ast.stmt]:
    """{name: the statement that defines it} at the top level of one of NodePert's modules."""
    path = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    names: dict[str, ast.stmt] = {}
    with PARSING:
        body = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
    for statement in body:
        match statement:
            case ast.FunctionDef(name) | ast.ClassDef(name):
                names[name] = statement
            case ast.Assign([ast.Name(name)]):
                names[name] = statement
            case ast.ImportFrom():
                names |= {alias.asname or alias.name: statement for alias in statement.names}
    return names
