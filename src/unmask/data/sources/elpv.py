"""ELPV: photographs of solar cells, with the likelihood that each is defective (Deitsch et al. 2019)."""

import importlib.util
from pathlib import Path

import numpy as np

from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.records import Named, Parts
from unmask.data.sources.folder import images_below
from unmask.data.sources.source import Options, Source
from unmask.data.split import VAL_SHARE, hold_out
from unmask.errors import DataError

LICENCE = "ELPV images of solar cells (Deitsch et al.), CC BY-NC-SA 4.0: no commercial use"
ALL, TRAINING, PLAIN = "elpv", "elpv:train", "elpv:plain"
CLASSES = ("functional", "defective")


def _images(word: str, options: Options) -> Images:
    """All in the order of their names; of elpv:train those that fine-tuning on elpv trains on.

    Those it validates on are new to an encoder that was trained on elpv:train.
    """
    if word == TRAINING:
        return hold_out(_labelled(ALL, options).training, VAL_SHARE)[0].images
    return Images("elpv", images_below(str(_folder() / "images")), LICENCE)


def _labelled(word: str, options: Options) -> Parts:
    """Cells with any likelihood above 0 are defective, weighted by it, as in the paper of the data.

    elpv:plain: those with a likelihood above one half, without weights. The split is stratified by
    defect likelihood and cell type.
    """
    folder, plain = _folder(), word == PLAIN
    rows = sorted(tuple(line.split()) for line in (folder / "labels.csv").read_text().splitlines())
    names, likelihoods, kinds = zip(*rows, strict=True)
    likelihood = np.array(likelihoods, dtype=np.float32)
    defective = likelihood > (0.5 if plain else 0)
    weights = None if plain else np.where(defective, likelihood, np.float32(1))
    how = (
        "a cell is defective if its likelihood is above one half"
        if plain
        else "a cell is defective if its likelihood is above 0, and weighs that much in the loss"
    )
    cells = Named(
        images=Images("elpv", PathList(str(folder / name) for name in names), LICENCE),
        names=[CLASSES[i] for i in defective.astype(int)],
        keys=list(names),
        classes=CLASSES,
        strata=list(zip(likelihoods, kinds, strict=True)),
        weights=weights,
    )
    stratified = "split stratified by defect likelihood and cell type"
    return Parts(training=cells, notes=(how, stratified))


def _folder() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError("the data set elpv comes in a package of its own: pip install elpv-dataset")
    return Path(spec.origin).parent / "data"


SOURCE = Source(
    matches=(ALL, TRAINING, PLAIN).__contains__,
    images=_images,
    labelled=_labelled,
    built_in=(ALL, TRAINING),
)
