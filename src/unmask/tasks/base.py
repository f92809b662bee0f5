"""What training tasks have in common: a task states its own in one file, and this is the rest."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from unmask.config.fields import pair
from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.config.resolve import resolve_encoder
from unmask.core.spec import ModelSpec, Size, ViTSpec
from unmask.core.vit import VisionTransformer
from unmask.data.bad_images import BadImageLog
from unmask.data.images import Images
from unmask.data.paths import slugs
from unmask.data.samples import Samples
from unmask.data.sources.find import find_images
from unmask.data.split import default_held_out
from unmask.engine.optim import Groups, decay_groups, layer_decay_groups
from unmask.engine.task import Draw, Metric, Scheduled, StepOutput
from unmask.errors import DataError
from unmask.interop.description import Weights
from unmask.interop.fit import encoder_for
from unmask.interop.weights import read_asked
from unmask.models.classifier import drop_path_keep

DEFAULT_SIZE = (224, 224)


def encoder_of(init: Weights, image: ImageSpec) -> ViTSpec:
    """What the encoder of --init is for these images. Raises ValueError if its patches do not fit."""
    known = init.description.encoder
    (h, w), (p, q) = image.size, known.patch_size
    if h % p or w % q:
        sizes = f"{math.ceil(h / p) * p} {math.ceil(w / q) * q}"
        raise ValueError(
            f"images of {h} x {w} pixels are not made of the encoder's patches of {p} x {q}: write "
            f"--data.size {sizes}"
        )
    return replace(known, image_size=image.size, channels=image.channels)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images of a run; a task's own record of labels and the like extends it."""

    training: Images
    held_out: Images
    fingerprint: str
    """Changes when what is trained on or measured does."""
    messages: tuple[str, ...] = ()
    """What was decided about them, in sentences."""
    files_called: ClassVar[str] = "image files"
    """What `files` are, for messages."""

    @property
    def files(self) -> tuple[Images, ...]:
        """What is read again and again: a change of these files changes a run."""
        return self.training, self.held_out


class BaseTask:
    """One training command with its configuration; `run` in runs/run.py calls the methods in order.

    A task needs a name, a configuration, recipes, `spec`, `samples` and `step`; the rest has defaults.
    """

    name: ClassVar[str]
    """The command."""
    title: ClassVar[str]
    """Title of the report."""
    config_class: ClassVar[type]
    recipes: ClassVar[Mapping[str, Callable[[], Any]]] = {}
    metrics: ClassVar[Sequence[Metric]] = ()
    """What its evaluators measure; the first is what runs are compared by."""
    captions: ClassVar[Mapping[str, str]] = {}
    """Captions of the sample pictures, in the order of the report."""
    from_the_start: ClassVar[Sequence[str]] = ()
    """Sample pictures that the report shows as they were before training, too."""
    exact_on_gpus: ClassVar[bool] = True
    """False if a GPU's kernels add some gradients in no fixed order."""
    needs_init: ClassVar[bool] = False
    keeps_channels: ClassVar[bool] = False
    """Whether images are read with as many channels as the weights of --init have."""

    def __init__(self, config: Any):
        self.config = config

    @property
    def init(self) -> str | None:
        """Where the weights begin; None if they are new."""
        return getattr(self.config, "init", None)

    def read_init(self) -> Weights:
        """What --init names; --model.heads is for weights that do not say them.

        Raises CheckpointError.
        """
        assert self.init
        return read_asked(self.init, getattr(getattr(self.config, "model", None), "heads", None))

    def check_start(self) -> None:
        """Raises ValueError if a new run is not told where its weights begin."""
        if self.needs_init and not self.init:
            raise ValueError(
                f"{self.name} needs an encoder: write --init RUN, a run directory or a file, or use "
                f"scratch"
            )

    def path(self) -> Path:
        """The run directory: --out, or a name made of the command and the data's."""
        names = slugs(self.config.data.source)
        return Path(self.config.out or f"runs/{self.name}-{names}")

    def find(self) -> Data:
        """All images of the source, some of them held out."""
        d = self.config.data
        images = find_images(d.source, root=d.root, download=d.download)
        asked = getattr(d, "held_out", None)
        held_out = default_held_out(len(images)) if asked is None else asked
        if not 0 <= held_out < len(images):
            raise DataError(
                f"--data.held-out {held_out} leaves no training image of {len(images)}: choose less"
            )
        training, aside = images.split(held_out)
        return Data(training=training, held_out=aside, fingerprint=images.fingerprint())

    def size(self, init: Weights | None) -> Size:
        """Height and width of the model's input."""
        asked = self.config.data.size
        if asked is not None:
            return pair("data.size", asked)
        return init.description.image.size if init else DEFAULT_SIZE

    def eval_crop(self, size: Size) -> float:
        """Share of an image's side that evaluation crops."""
        return 1.0

    def spec(self, data: Any, image: ImageSpec, init: Weights | None) -> ModelSpec:
        """What the model is, for images seen like that."""
        raise NotImplementedError

    def check(self, plan: Plan, data: Any) -> Iterator[str]:
        """Yields sentences on what was decided; raises ValueError if settings do not fit together."""
        yield from ()

    def samples(self, plan: Plan, data: Any) -> Samples:
        """How pictures become samples, and samples a batch."""
        raise NotImplementedError

    def model(self, plan: Plan, init: Weights | None) -> tuple[nn.Module, list[str]]:
        """The model with its first weights, drawn from the run's seed; and sentences on them."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.training.seed)
            return plan.model.build(), []

    def fit(self, model: Any, plan: Plan, data: Any) -> Iterator[str]:
        """Computes what a model takes from the images once, before it is trained; yields sentences.

        What is fitted already, by the weights of --init, stays.
        """
        yield from ()

    def param_groups(self, model: Any, plan: Plan) -> Groups:
        """Weights decayed, biases and norms not."""
        return decay_groups(model, plan.training.weight_decay)

    def step(self, model: Any, batch: Any, draw: Draw) -> StepOutput:
        """The loss of one micro-batch, a mean whose value does not depend on how a batch is divided."""
        raise NotImplementedError

    def evaluators(self, plan: Plan, data: Any) -> Sequence[Scheduled]:
        """What to measure and draw along the way."""
        return ()

    def summary(self, record: Mapping[str, Any], plan: Plan) -> str:
        """The newest measurement in a sentence."""
        shown = [m.shown(record[m.key]) for m in self.metrics if record.get(m.key) is not None]
        return ", ".join(shown)

    def shortfalls(self, record: Mapping[str, Any]) -> list[str]:
        """What of the newest measurement is no better than its baseline, in sentences with advice."""
        return [sentence for m in self.metrics if (sentence := m.shortfall(record))]

    def facts(self, plan: Plan, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What the report says of model and data, given the newest measurement: names and values."""
        f = plan.facts
        return [("Images", f"{f.training_images} for training, {f.held_out_images} held out")]

    def conclude(self, run: Path, step: int) -> Iterator[str]:
        """What a finished run says of its files, and what to type next."""
        yield from ()


class HeadSpec(Protocol):
    """What the spec of a model with a head on an encoder has besides its own fields."""

    encoder: ViTSpec
    final_norm: bool

    def around(self, encoder: VisionTransformer) -> nn.Module:
        """The model on a given encoder; the head is freshly drawn from torch's global generator."""


class EncoderTask(BaseTask):
    """A task that puts a head on the encoder of --init, or on a new one.

    Its model has the encoder as `encoder`; its spec is a `HeadSpec`.
    """

    def check_start(self) -> None:
        """Also raises ValueError if the command has --scratch, unless exactly one of it and --init is
        given."""
        super().check_start()
        if getattr(self.config, "scratch", not self.init) == bool(self.init):
            both = "both --init and --scratch" if self.init else "neither --init nor --scratch"
            raise ValueError(
                f"{self.name} got {both}: write --init RUN, a run directory or a file of weights, to "
                f"begin with a pre-trained encoder, or --scratch to begin with a new one"
            )

    def encoder(self, image: ImageSpec, init: Weights | None) -> ViTSpec:
        """What the encoder of --init is for these images, or the new one that the settings describe."""
        if init:
            return encoder_of(init, image)
        return resolve_encoder(self.config.model, size=image.size, channels=image.channels)

    def notes_on_encoder(self) -> Iterator[str]:
        """Yields messages on settings that change nothing, or harm, for this start of the encoder."""
        c = self.config
        if self.init and hasattr(c, "model"):
            recipe = self.recipes[c.recipe]() if c.recipe in self.recipes else self.config_class()
            # Heads may be unknown of the weights of --init, too.
            if replace(c.model, heads=recipe.model.heads) != recipe.model:
                yield "the section model changes nothing here: --init says what the encoder is"
        if not self.init and c.optim.layer_decay < 1:
            yield (
                f"a layer decay of {c.optim.layer_decay:g} slows the first blocks of a new encoder "
                f"down: --optim.layer-decay 1 is usual from scratch"
            )

    def model(self, plan: Plan, init: Weights | None) -> tuple[nn.Module, list[str]]:
        """The encoder of --init, or a new one, with a new head; and what of it is trained."""
        spec: HeadSpec = plan.model  # type: ignore[assignment]  # the task's own `spec` made it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.training.seed)
            encoder, messages = spec.encoder.build(), ["encoder and head initialised randomly"]
            if init:
                encoder, changes = encoder_for(
                    init,
                    image_size=plan.image.size,
                    channels=plan.image.channels,
                    final_norm=spec.final_norm,
                    display=plan.image.display,
                )
                loaded = "encoder loaded from --init, head initialised randomly"
                messages = ["; ".join([loaded, *changes])]
            model = spec.around(encoder)
        self.freeze(model)
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        trained, total = sum(n for n, is_trained in sizes if is_trained), sum(n for n, _ in sizes)
        return model, [*messages, f"{trained:,} of {total:,} parameters are trainable"]

    def bad_validation_images(self, plan: Plan) -> BadImageLog:
        """Where validation writes down what cannot be read, and counts it."""
        return BadImageLog(
            self.path() / "bad_images.jsonl",
            images=plan.facts.held_out_images,
            max_share=plan.loading.max_bad_share,
            part="validation",
        )

    def freeze(self, model: Any) -> None:
        """Says by `requires_grad` what is not trained; nothing if everything is."""

    def drop_path(self, rate: float, images: int, draw: Draw, *, key: int, depth: int) -> Tensor | None:
        """What drop path keeps of a micro-batch: drawn for the whole step, this part's columns of it.

        None if the rate is 0. `key` keeps it apart from what else a step draws.
        """
        if not rate:
            return None
        keep = drop_path_keep(depth, rate, draw.plan.training.batch, draw.generator(key))
        return keep[:, :, draw.first : draw.first + images].to(draw.device, non_blocking=True)

    def param_groups(self, model: Any, plan: Plan) -> Groups:
        """What is trained, with learning rates that fall towards the input."""
        return layer_decay_groups(
            model.named_parameters(),
            depth=len(model.encoder.blocks),
            weight_decay=plan.training.weight_decay,
            layer_decay=self.config.optim.layer_decay,
        )
