"""Writing a model in another layout, reading it with the other library, and comparing outputs."""

import importlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unmask.config.io import to_json
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import MAESpec, ViTSpec
from unmask.errors import CheckpointError
from unmask.interop.card import model_card
from unmask.interop.description import OUR_ENTRY, Weights
from unmask.interop.files import read_settings, write_safetensors, write_whole
from unmask.interop.heads import without_batch_norm
from unmask.interop.hf import hf_config, to_hf
from unmask.interop.hf_images import hf_preprocessor
from unmask.interop.hub import CONFIG, PREPROCESSOR, WEIGHTS
from unmask.interop.official import to_official
from unmask.interop.timm import timm_config, to_timm
from unmask.interop.weights import DESCRIPTION, build, read_weights
from unmask.models.detector_spec import DetectorSpec
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.storage import written_aside

Layout = Literal["official", "safetensors", "timm", "hf"]
DEFAULT_NAMES: dict[Layout, str] = {
    "official": "official.pth",
    "safetensors": "unmask.safetensors",
    "timm": "timm",
    "hf": "hf",
}
SUFFIXES = {"official": (".pth", ".pt"), "safetensors": (".safetensors",)}
"""Suffixes of layouts that are one file; the others are folders."""
LIBRARIES = {"timm": "timm", "hf": "transformers"}
TOLERANCE = 1e-3
"""Outputs that differ by more, as a share of the largest, are an error. In float32 1e-5 is usual."""

Outputs = Callable[[Tensor, Tensor], Tensor]
"""From images and noise to what is compared."""


class Exported(NamedTuple):
    """A file or folder, and how far its outputs are from the source's."""

    path: Path
    difference: float

    @property
    def line(self) -> str:
        """Python that loads it."""
        return how_to_load(self.path, self.path)


def export_weights(weights: Weights, to: Layout, path: Path, *, measured: str = "") -> Exported:
    """Writes weights, description and model card; reads them back with the library they are for.

    What is compared are reconstructions, a classifier's logits, or an encoder's tokens.
    Raises ValueError if the path or the installation does not suit, CheckpointError if the
    layout cannot hold the model.
    """
    _check_place(path, to)
    if to in LIBRARIES:
        _check_installed(to)
    model = weights.description.model
    scenes = isinstance(model, DetectorSpec | SegmenterSpec)
    if scenes or (to == "timm" and isinstance(model, MAESpec)):
        weights = weights.encoder_only()  # no layout holds heads for scenes, and timm's no decoder
    WRITERS[to](weights, path)
    difference = largest_difference(weights, to, path)
    card = path / "README.md" if path.is_dir() else path.with_suffix(".md")
    line = how_to_load(path, Path(path.name))
    text = model_card(weights.description, layout=to, name=path.stem, line=line, measured=measured)
    with written_aside(card) as aside:
        aside.write_text(text, encoding="utf-8", errors="replace")
    return Exported(path, difference)


def default_path(to: Layout, folder: Path) -> Path:
    """Where an export goes if nobody says. Raises ValueError if there is no such layout."""
    if to not in DEFAULT_NAMES:
        raise ValueError(f"there is no layout {to!r}: choose one of {', '.join(DEFAULT_NAMES)}")
    return folder / DEFAULT_NAMES[to]


def how_to_load(path: Path, named: Path) -> str:
    """Python that loads what was exported to `path`, under the name `named`."""
    if path.suffix in SUFFIXES["official"]:
        return f'model.load_state_dict(torch.load("{named}", weights_only=True)["model"])'
    if not path.is_dir():
        return f'unmask.load("{named}")'
    config = read_settings(path / CONFIG)
    if "architecture" in config:
        return f'timm.create_model("local-dir:{named}", pretrained=True)'
    name, *_ = config["architectures"]
    without = ", add_pooling_layer=False" if name == "ViTModel" else ""
    return f'transformers.{name}.from_pretrained("{named}"{without})'


def largest_difference(weights: Weights, to: Layout, path: Path) -> float:
    """The largest absolute difference of outputs on the same two random images.

    Raises CheckpointError if they are not the same model.
    """
    d = weights.description
    if to == "hf" and (mae := d.autoencoder):  # transformers masks single patches; weights do not tell
        single = replace(mae, mask=replace(mae.mask, unit=1))
        weights = Weights(weights.state, replace(d, model=single))
    images, noise = random_input(d.encoder)
    with torch.inference_mode():
        wanted = _ours(weights)(images, noise)
        found = READERS[to](path)(images, noise)
    difference = float((wanted - found).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise CheckpointError(
            f"{path} does not give the source's outputs (they differ by {difference:.3g}): do not use "
            f"it; please report this, with the versions of unmask and {LIBRARIES.get(to, 'torch')}"
        )
    return difference


def random_input(encoder: ViTSpec) -> tuple[Tensor, Tensor]:
    """Two images and their noise, always the same."""
    seed = torch.Generator().manual_seed(0)
    images = torch.randn(2, encoder.channels, *encoder.image_size, generator=seed)
    return images, torch.rand(2, encoder.patches, generator=seed)


def _write_official(weights: Weights, path: Path) -> None:
    tokens, mae = weights.description.encoder.class_tokens, weights.description.autoencoder
    odd = f"one class token and this model has {tokens}" if tokens != 1 else ""
    if mae and mae.mask.tokens_in_encoder:
        odd = "mask tokens in the decoder and this model has them in the encoder"
    if mae and mae.target.kind in ("pca", "tokens"):
        odd = f"pixels as the target and this model predicts {mae.target.kind}"
    if odd:
        raise CheckpointError(
            f"the official MAE code's layout holds {odd}: export it --to safetensors instead"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"model": to_official(weights.state), OUR_ENTRY: to_json(weights.description)}
    content = io.BytesIO()
    torch.save(entry, content)
    write_whole(path, content.getvalue())


def _write_safetensors(weights: Weights, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, weights.state, {OUR_ENTRY: to_json(weights.description)})


def _write_timm(weights: Weights, folder: Path) -> None:
    weights = without_batch_norm(weights)
    config = timm_config(weights.description, has_norm=weights.has_norm)
    _write_folder(folder, to_timm(weights.state), {CONFIG: config})


def _write_hf(weights: Weights, folder: Path) -> None:
    weights = without_batch_norm(weights)
    d = weights.description
    config = hf_config(d, has_norm=weights.has_norm)
    settings = {CONFIG: config, PREPROCESSOR: hf_preprocessor(d)}
    _write_folder(folder, to_hf(weights.state, has_decoder=d.autoencoder is not None), settings)


def _write_folder(folder: Path, state: dict[str, Tensor], settings: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in settings.items():
        with written_aside(folder / name) as aside:
            aside.write_text(to_json(values), encoding="utf-8")
    write_safetensors(folder / WEIGHTS, state, {})


def _ours(weights: Weights) -> Outputs:
    model = build(weights)
    if isinstance(model, MaskedAutoencoder):
        return model.reconstruct
    return lambda images, noise: model(images)


def _read_ours(path: Path) -> Outputs:
    return _ours(read_weights(path))


def _read_timm(folder: Path) -> Outputs:
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return lambda images, noise: (model if model.num_classes else model.forward_features)(images)


def _read_hf(folder: Path) -> Outputs:
    import transformers

    name, *_ = read_settings(folder / CONFIG)["architectures"]
    with _quiet(transformers):
        if name == "ViTMAEForPreTraining":
            mae = transformers.ViTMAEForPreTraining.from_pretrained(folder).eval()
            return lambda images, noise: mae(images, noise=noise).logits
        if name == "ViTForImageClassification":
            classifier = transformers.ViTForImageClassification.from_pretrained(folder).eval()
            return lambda images, noise: classifier(images).logits
        vit = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
        return lambda images, noise: vit(images).last_hidden_state


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars, and with errors only."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


WRITERS = {
    "official": _write_official,
    "safetensors": _write_safetensors,
    "timm": _write_timm,
    "hf": _write_hf,
}
READERS = {"official": _read_ours, "safetensors": _read_ours, "timm": _read_timm, "hf": _read_hf}


def _check_place(path: Path, to: Layout) -> None:
    """Raises if writing would overwrite something else than an earlier export."""
    if to in SUFFIXES:
        if path.suffix not in SUFFIXES[to]:
            raise ValueError(
                f"--to {to} writes one file, and {path} does not end in {SUFFIXES[to][0]}: rename it"
            )
        if path.name == WEIGHTS and (path.parent / DESCRIPTION).exists():
            raise CheckpointError(f"{path} belongs to a run: choose another --out")
        return
    strangers = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if strangers and not (path.is_dir() and OUR_ENTRY in read_settings(path / CONFIG)):
        raise CheckpointError(
            f"--to {to} writes a folder, and {path} holds something else than an earlier export: choose "
            f"another --out"
        )


def _check_installed(to: Layout) -> None:
    try:
        importlib.import_module(LIBRARIES[to])
    except ImportError as error:
        raise ValueError(
            f"--to {to} compares with {LIBRARIES[to]}, which is not installed: run pip install "
            f"'unmask[{to}]'"
        ) from error
