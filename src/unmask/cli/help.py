"""The help of a command's flags: the text of each setting, and its default once."""

import ast
import inspect
from dataclasses import fields, is_dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from unmask.config.commands import FITTED

DEFAULT = "Default: "
"""How a text names the default that stands for an unset value."""

UNSET = ("", "''", "None", "auto")


def registry(base: Any) -> ConstructorRegistry:
    """How tyro reads a configuration, whose sections have a default each."""
    rules = ConstructorRegistry()
    names = [name for part in getattr(base, "fit", ()) for name in FITTED[part]]
    sections = [name.split(".") for name in names]
    fitted = {(type(getattr(base, section)), name) for section, name in sections}
    rules.struct_rule(partial(_settings, fitted))
    return rules


def _settings(fitted: set[tuple[type, str]], info: StructTypeInfo) -> StructConstructorSpec | None:
    """The settings of a section; images and machine decide the defaults of those in `fitted`."""
    if not is_dataclass(info.type) or not isinstance(info.default, info.type):
        return None
    texts = texts_of(info.type)
    specs = tuple(
        StructFieldSpec(
            name=one.name,
            type=_with_hint(one.type, texts.get(one.name, ""), (info.type, one.name) in fitted),
            default=getattr(info.default, one.name),
            helptext=texts.get(one.name),
        )
        for one in fields(info.type)
    )
    return StructConstructorSpec(instantiate=info.type, fields=specs)


def _with_hint(kind: Any, text: str, is_fitted: bool) -> Any:
    if is_dataclass(kind):
        return kind
    return Annotated[kind, tyro.conf.arg(help_behavior_hint=partial(_hint, DEFAULT in text, is_fitted))]


def _hint(is_named: bool, is_fitted: bool, value: str) -> str:
    """Beside the text of a setting; `is_named`: the text names what stands for an unset value."""
    if is_fitted:
        value = f"fitted to images and machine by --fit, else {value}"
    if value in ("", "''") or (is_named and value in UNSET):
        return ""
    return f"(recipe: {value})" if is_named else f"(default: {value})"


def texts_of(kind: type) -> dict[str, str]:
    """The docstring below each field of a dataclass, its bases' fields included, in one line."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        found |= (
            _texts(inspect.getsourcefile(part) or "", part.__qualname__) if is_dataclass(part) else {}
        )
    return found


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _texts(path: str, name: str) -> dict[str, str]:
    bodies = (
        node.body for node in _tree(path).body if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        field.target.id: " ".join(text.value.value.split())
        for body in bodies
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }
