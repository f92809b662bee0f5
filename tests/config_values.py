"""Hypothesis strategies: configurations of any values that their settings take."""

import dataclasses
import math
import types
import typing
from typing import Any

from hypothesis import strategies as st

from unmask.config.fields import RANGE
from unmask.core.spec import ModelSpec
from unmask.models.classifier_spec import EncoderSpec

ANY = (-math.inf, math.inf)
TEXTS = st.text(
    st.characters(exclude_categories=("Cs",)) | st.integers(0xDC80, 0xDCFF).map(chr), max_size=12
)
"""With all that a file's name may hold, bytes that are not UTF-8 included."""


def configs_of(cls: type) -> st.SearchStrategy[Any]:
    """Configurations of one class: each setting of its type and within its range."""
    hints = typing.get_type_hints(cls)
    return st.builds(
        cls,
        **{
            field.name: values_of(hints[field.name], *field.metadata.get(RANGE, ANY))
            for field in dataclasses.fields(cls)
        },
    )


def values_of(kind: Any, least: float = -math.inf, most: float = math.inf) -> st.SearchStrategy[Any]:
    """Values of a setting's type; numbers from `least` to `most`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is ModelSpec:
        return configs_of(EncoderSpec)
    if dataclasses.is_dataclass(kind):
        return configs_of(typing.cast(type, kind))
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(values_of(option, least, most) for option in arguments))
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_of, arguments))
    if kind in (int, float):
        low, high = (None if math.isinf(limit) else limit for limit in (least, most))
        if kind is int:
            return st.integers(low and math.ceil(low), high and math.floor(high))
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    return {bool: st.booleans(), str: TEXTS, type(None): st.none()}[kind]
