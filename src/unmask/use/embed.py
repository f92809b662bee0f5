"""Features of images, in a file: unmasked, in the order of the data, without anything random."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from unmask.config.commands import EmbedConfig
from unmask.config.fields import check, pair
from unmask.config.resolve import default_workers, either
from unmask.config.settings import Pool
from unmask.data.bad_images import none_readable
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.sources.find import find_images
from unmask.engine.locks import only_writer_of
from unmask.engine.machine import detect_machine
from unmask.errors import CheckpointError
from unmask.inference import infer
from unmask.interop.files import write_whole
from unmask.interop.fit import at_size
from unmask.interop.models import Model, build
from unmask.interop.weights import read_asked
from unmask.storage import written_aside


class NamedRows(NamedTuple):
    """Features of some images, and their names."""

    names: list[str]
    features: np.ndarray


class Embedded(NamedTuple):
    """What was written."""

    path: Path
    images: int
    bad: list[BadImage]
    notes: tuple[str, ...]
    """What was left out or changed when another library's weights were read."""


def run_embedding(config: EmbedConfig, given: Images | None = None) -> Embedded:
    """Writes the features of all readable images: those of the configuration, or those given.

    Raises ValueError, DataError or CheckpointError with a fix.
    """
    check(config)
    if not config.init:
        raise ValueError("embed needs a model: write --init RUN, a run directory or a file")
    path = Path(config.out)
    if path.suffix not in WRITERS:
        raise ValueError(f"--out {config.out} must end in {' or '.join(WRITERS)}")
    weights = read_asked(config.init, config.model.heads)
    if config.size is not None:
        weights = at_size(weights, pair("size", config.size))
    machine = detect_machine(config.device)
    model, d = build(weights).to(machine.device), weights.description
    device = torch.device(machine.device)

    def embed(images: Tensor) -> Tensor:
        return features_of(model, images, pool=config.pool, layer=config.layer)

    # What cannot be is refused before data are read.
    embed(torch.zeros(1, d.image.channels, *d.image.size, device=device))
    images = find_images(config.source, root=config.root) if given is None else given
    workers = either(config.workers, default_workers(machine))
    crops = CentreCrops(images, d.image, batch=config.batch, workers=workers)
    bad: list[BadImage] = []

    def rows() -> Iterator[NamedRows]:
        for found in infer(embed, crops, device, title="features"):
            bad.extend(found.unreadable)
            if found.indices:
                names = [images.paths[i] for i in found.indices]
                yield NamedRows(names, found.output.float().cpu().numpy())

    with only_writer_of(path):
        count = WRITERS[path.suffix](path, rows())
        if not count:
            raise none_readable(bad)
    return Embedded(path, count, bad, d.notes)


def features_of(
    model: Model, images: Tensor, *, pool: Pool = "mean", layer: int | None = None
) -> Tensor:
    """A model's features of one batch of normalised images [B, C, H, W]; see its method.

    Raises ValueError as that does, and CheckpointError if the model is of a kind that looks at whole
    scenes.
    """
    if not hasattr(model, "features"):
        kind, give = type(model).__name__.lower(), "the run or the file that its training started from"
        if kind == "tokenizer":  # whose training starts from nothing
            give = "a run of pre-training or classification"
        raise CheckpointError(f"a {kind} gives no features of whole images: give {give}")
    return model.features(images, pool=pool, layer=layer, batch=len(images))


def _write_safetensors(path: Path, rows: Iterator[NamedRows]) -> int:
    """One tensor `features`; the names of its rows are in a .csv beside it."""
    parts = list(rows)
    if not parts:
        return 0
    write_whole(path, save({"features": np.concatenate([part.features for part in parts])}))
    names, text = [name for part in parts for name in part.names], io.StringIO()
    table = csv.writer(text)
    table.writerow(["row", "path"])
    table.writerows(enumerate(names))
    write_whole(path.with_suffix(".csv"), text.getvalue().encode("utf-8", "backslashreplace"))
    return len(names)


def _write_parquet(path: Path, rows: Iterator[NamedRows]) -> int:
    """Columns `path` and `features`: a list of numbers, or of lists if every patch has some."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError(
            "Parquet files need a library: pip install 'unmask[parquet]', or write .safetensors"
        ) from error
    writer, count = None, 0
    with written_aside(path) as aside:
        for names, features in rows:
            column = pa.array(features.ravel())
            for length in reversed(features.shape[1:]):
                column = pa.FixedSizeListArray.from_arrays(column, length)
            printable = [name.encode("utf-8", "backslashreplace").decode() for name in names]
            table = pa.table({"path": printable, "features": column})
            writer = writer or pq.ParquetWriter(aside, table.schema)
            writer.write_table(table)
            count += len(names)
        if writer:
            writer.close()
    return count


WRITERS = {".safetensors": _write_safetensors, ".parquet": _write_parquet}
