"""Images with label maps or objects: where they come from, and how their annotations are read."""

from dataclasses import dataclass

from unmask.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class AnnotatedSource:
    """Which images, with what is annotated on each."""

    source: tuple[str, ...] = setting((), may_change=True)
    """One folder, with its annotations. Usually the first word."""
    val: tuple[str, ...] = ()
    """Validation images, annotated in the same way. Default: the data's own validation or test part,
    else a share of it."""
    val_share: float | None = setting(None, least=0.01, most=0.99)
    """Share of the images to hold out for validation, in place of the data's own validation part.
    Default: 0.25 if there is none."""


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What the values in label maps mean."""

    classes: str | None = None
    """A file of the classes: a name per line, or a table of names and colours. Default: one of the usual
    names beside the maps, or else the values that occur."""
    label_offset: int | None = setting(None, least=0, most=65_535)
    """The value of the first class. Default: 1 in ADE20K's layout, where 0 is no class, else 0."""
    ignore_values: tuple[int, ...] = (255,)
    """Values of pixels that have no class."""


@dataclass(frozen=True, kw_only=True)
class ObjectOptions:
    """What annotations of objects mean."""

    single_class: str | None = None
    """Treat all objects as one class of this name. Default: the classes of the annotations."""
