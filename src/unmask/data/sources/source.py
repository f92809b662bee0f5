"""What a kind of source offers: how to recognise it, its images, and its labels if it has them."""

from collections.abc import Callable
from dataclasses import dataclass

from unmask.config.annotations import MapOptions
from unmask.data.annotated import AnnotatedParts
from unmask.data.images import Images
from unmask.data.instances import Detections
from unmask.data.maps import LabelMaps
from unmask.data.records import Parts
from unmask.data.sources.sizes import USUAL_MEGAPIXELS


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may say about a source beside its name."""

    root: str
    """Where torchvision keeps its data sets."""
    download: bool = False
    """Whether torchvision may download a data set that is not there."""
    label_column: str = "label"
    """The column of the labels in a list or a Hugging Face data set."""
    max_megapixels: float = USUAL_MEGAPIXELS
    """The largest image on which objects are drawn."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One kind of source. Each function takes the word that the user wrote.

    A module in this package defines one, and the registry lists it.
    """

    matches: Callable[[str], bool]
    images: Callable[[str, Options], Images]
    """All images, without their labels; raises DataError if they cannot be found."""
    labelled: Callable[[str, Options], Parts]
    """The images with the names of their classes; raises DataError if labels are missing or wrong."""
    alone: bool = True
    """Whether it is a complete data set, which is not joined with other sources."""
    built_in: tuple[str, ...] = ()
    """Names of data sets that need no folder."""


@dataclass(frozen=True, kw_only=True)
class BoxSource:
    """One kind of source of objects in images, as `Source` is of images and their classes."""

    matches: Callable[[str], bool]
    read: Callable[[str, Options], AnnotatedParts[Detections]]
    """All images and objects; raises DataError if they cannot be used."""


@dataclass(frozen=True, kw_only=True)
class MapSource:
    """One kind of source of label maps, as `Source` is of images and their classes."""

    matches: Callable[[str], bool]
    read: Callable[[str, MapOptions], AnnotatedParts[LabelMaps]]
    """All images and maps; raises DataError if they cannot be used."""
