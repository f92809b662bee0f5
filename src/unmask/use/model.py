"""A trained model in Python: loaded, given images, and asked by the function that serves its kind."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unmask.data.bad_images import none_readable
from unmask.data.centre_crops import CentreCrops, in_one
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.in_memory import InMemory, images_in_memory
from unmask.data.normalize import normalize
from unmask.data.sources.find import find_images
from unmask.interop.fit import at_size
from unmask.interop.models import Model, build
from unmask.interop.weights import model_type, read_asked
from unmask.tasks import function_for

Source = str | Path | Sequence[str | Path]
Pictures = Source | InMemory | Sequence[InMemory]


class ReadImages(NamedTuple):
    """What a model takes, and where it came from."""

    images: Tensor
    """Normalised centre crops [n, C, H, W] of the images that can be read."""
    names: list[str]
    """The path of each, or images#0, images#1, ... of images that were in memory."""
    bad: list[BadImage]
    """Those that cannot be read, with `path` and `reason`."""


def load(
    run_or_file: str | Path, size: int | tuple[int, int] | None = None, *, heads: int | None = None
) -> Model:
    """A model in evaluation mode: a run directory's, or the official MAE code's, timm's or Hugging
    Face's.

    A classifier if there is a head, the encoder alone if there is neither that nor a decoder.
    `model.description` says what it is, and how it sees images.

    Args:
        run_or_file: a run directory, a folder of Hugging Face or timm weights, or a file of weights.
        size: pixels of the images, one number or height and width, for which positions are
            interpolated; as it was trained if None.
        heads: attention heads of the encoder, for weights that do not say them.
    """
    weights = read_asked(run_or_file, heads)
    return build(weights if size is None else at_size(weights, size))


def read(images: Pictures, model: Model) -> ReadImages:
    """Images as a loaded model takes them: centre crops [n, C, H, W], normalised, and their names.

    If the model is a classifier, crops are those of its evaluation.

    Args:
        images: a folder, a file, a list of paths, or a data set by name; a PIL image or an array
            [h, w, C], several in a list, or an array [n, h, w, C].
        model: what `load` returned.

    Returns (images, names, bad): what cannot be read is left out, and listed in `bad` with the reason.
    """
    given = images_in_memory(images)
    return _read(find_images(_words(images)) if given is None else given, model.description)


def serving(use: str, init: str) -> Callable[..., Any]:
    """The function of the task whose model `init` is; a classifier's if no other claims it."""
    if not init:
        raise ValueError(f"{use} needs a model: write --init RUN, a run directory or a file")
    serve = function_for(model_type(init), use) or function_for("classifier", use)
    assert serve is not None
    return serve


def _read(images: Images, description: Any) -> ReadImages:
    image = description.image
    names, bad = list[str](), list[BadImage]()

    def normalized() -> Iterator[Tensor]:
        for batch in CentreCrops(images, image):
            names.extend(images.paths[index] for index in batch.indices)
            bad.extend(batch.bad)
            yield normalize(batch.images, image.mean, image.std)

    found = in_one(normalized(), len(images))
    if not names:
        raise none_readable(bad)
    return ReadImages(found, names, bad)


def _words(source: Any) -> tuple[str, ...]:
    several = (source,) if isinstance(source, str | Path) else source
    return tuple(map(str, several))
