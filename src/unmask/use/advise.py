"""What `unmask check`, and a run that fits itself, measure of a folder and of this machine."""

import math
import statistics
import time
from dataclasses import replace
from typing import NamedTuple

import torch

from unmask.config.advice import ROUND_SIDES, Advice, advised, advised_side
from unmask.config.commands import PretrainConfig
from unmask.config.fields import pair
from unmask.config.image import ImageSpec
from unmask.config.plan import DataFacts, Plan
from unmask.config.resolve import resolve, resolve_autoencoder, resolve_encoder
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import SIZES, MAESpec
from unmask.cost.predict import Prediction, predict_here
from unmask.cost.reading import ReadingTime
from unmask.data.centre_crops import load_centre_crops
from unmask.data.images import Images
from unmask.data.inspect import median_size
from unmask.data.mask_strategies import asked_mask
from unmask.data.sampler import SampleKey, generator
from unmask.data.samples import TrainingSamples
from unmask.data.split import default_held_out
from unmask.engine.machine import autocast, detect_machine
from unmask.engine.optim import build_optimizer, decay_groups, update_weights
from unmask.evals.correlation import autocorrelation, distance_to
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.tasks.measure import Measured, measure, read_layout
from unmask.tasks.pretrain import MaskedSamples

LOOKED_AT = 128
"""Images whose correlation is measured."""
TIMED_SAMPLES = 48
BUDGET_SECONDS = 1800
"""Seconds of a run that is fitted to this machine."""
LEAST_STEPS, MOST_STEPS, MOST_EPOCHS = 1000, 20_000, 2000
"""Limits of such a run; the epochs are those of the recipe small-images."""
SAME_STEPS = 1.3
"""A factor between numbers of steps that makes no difference worth another setting."""

TRIES, TRY_SECONDS, UNCERTAIN = 3, 0.3, 4.0
"""Steps that are timed, of about so long at most, if arithmetic is so much slower than predicted."""
PIXELS = ("pixels", "normalized-pixels")


class Fitted(NamedTuple):
    """A recipe that is fitted to some images."""

    config: PretrainConfig
    measured: Measured
    advice: Advice | None
    """None if patches were not asked for, or the images do not say which."""


def fit_to_images(config: PretrainConfig, images: Images) -> Fitted:
    """With the size, the patches and the mask ratio that suit the images, as `config.fit` asks.

    Raises DataError if nothing can be read.
    """
    d, patches = config.data, "patch" in config.fit
    if "size" in config.fit and (median := median_size(images, read_layout(d, images))):
        multiple = ROUND_SIDES if patches else math.lcm(*pair("model.patch", usual_patches(config)))
        d = replace(d, size=(advised_side(min(d.size), median, multiple=multiple),))
    measured = measure(d, images, size=pair("data.size", d.size))
    config = replace(config, data=d)
    advice = look(images, measured.image, config) if patches else None
    if advice:
        model = replace(config.model, patch=(advice.patch,))
        config = replace(config, model=model, mask=replace(config.mask, ratio=advice.ratio))
    return Fitted(config, measured, advice)


def usual_patches(config: PretrainConfig) -> tuple[int, ...]:
    """The sides of a configuration's patches."""
    return config.model.patch or (SIZES[config.model.size]["patch"],)


def look(images: Images, image: ImageSpec, config: PretrainConfig) -> Advice | None:
    """What suits the images by the centre crops of some; None if these are of one colour each."""
    order = generator(0, len(images)).permutation(len(images)).tolist()
    most = config.data.max_megapixels
    crops = load_centre_crops(images.subset(order[:LOOKED_AT]), image, max_megapixels=most)
    curve = autocorrelation(crops, max(1, min(image.size) // 3))
    if not curve[1:].any():
        return None
    usual = min(usual_patches(config))
    return advised(len(crops), image.size, distance_to(curve, 0.5), usual)


def fit_to_machine(config: PretrainConfig, reading: ReadingTime) -> PretrainConfig:
    """With the steps that this machine does in half an hour, as `config.fit` asks; a GPU's stay."""
    if "steps" not in config.fit or reading.prediction.plan.training.device != "cpu":
        return config
    return replace(config, optim=replace(config.optim, steps=advised_steps(reading)))


def plan_here(config: PretrainConfig, images: Images, measured: Measured) -> Plan:
    """What a run would do; of few images the batch takes what there are."""
    aside, image = default_held_out(len(images)), measured.image
    facts = DataFacts(
        training_images=len(images) - aside,
        held_out_images=aside,
        fingerprint="",
        decoded_bytes=measured.decoded_bytes,
    )
    batch = min(config.optim.batch, facts.training_images * config.data.repeats)
    config = replace(config, optim=replace(config.optim, batch=batch))
    encoder = resolve_encoder(config.model, size=image.size, channels=image.channels)
    spec = resolve_autoencoder(
        *(config.model, config.mask, config.target),
        size=image.size,
        channels=image.channels,
        given=asked_mask(config.mask, encoder.grid),
        vocabulary=TokenizerSpec.vocabulary,
    )
    machine = detect_machine(config.run.device)
    return resolve(config, model=spec, image=image, facts=facts, machine=machine, world_size=1)


def reading_here(config: PretrainConfig, images: Images, plan: Plan) -> ReadingTime:
    """How long a run takes here, by the time of a few samples and steps."""
    samples = TrainingSamples(images, MaskedSamples(config, plan), plan.image, plan.loading)
    order = generator(plan.loading.seed, len(images)).permutation(len(images)).tolist()
    timed = order[:TIMED_SAMPLES]
    epochs = range(2 if plan.loading.keep_decoded else 1)
    times = [statistics.median(_seconds(samples, SampleKey(e, i)) for i in timed) for e in epochs]
    prediction = measured_here(predict_here(plan, decode_ms=1000 * times[0]))
    return ReadingTime(prediction=prediction, kept_ms=1000 * times[-1])


def _seconds(samples: TrainingSamples, key: SampleKey) -> float:
    start = time.perf_counter()
    samples[key]
    return time.perf_counter() - start


def measured_here(prediction: Prediction) -> Prediction:
    """With the share of the peak that a few steps of the model reach; as it was if they are too long.

    Also as it was on a GPU, and for targets that a model alone does not have.
    """
    plan = prediction.plan
    assert isinstance(plan.model, MAESpec)
    t = plan.training
    each = UNCERTAIN * prediction.seconds / (t.steps * t.batch)
    if t.device != "cpu" or plan.model.target.kind not in PIXELS or each > TRY_SECONDS:
        return prediction
    count = max(1, min(t.micro_batch, int(TRY_SECONDS / each)))
    step = seconds_of_a_step(plan, count) * t.batch / count
    return replace(
        prediction, utilisation=prediction.utilisation * prediction.seconds / (step * t.steps)
    )


def seconds_of_a_step(plan: Plan, count: int) -> float:
    """Seconds of the fastest of a few training steps on so many images of noise, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = plan.model
        assert isinstance(spec, MAESpec)
        model = MaskedAutoencoder(spec)
        images = torch.randn(count, plan.image.channels, *plan.image.size)
        noise = torch.rand(count, spec.encoder.patches)
    optimizer = build_optimizer(decay_groups(model, plan.training.weight_decay), plan.training)
    scale, times = torch.ones((), dtype=torch.float64), []
    for _ in range(TRIES):
        began = time.perf_counter()
        with autocast(plan.training):
            loss = model(images, noise=noise).loss
        loss.backward()
        update_weights(optimizer, scale, plan.training.clip)
        times.append(time.perf_counter() - began)
    return min(times)


def advised_steps(reading: ReadingTime) -> int:
    """About half an hour of steps here, to two digits; the plan's own if that is near."""
    plan = reading.prediction.plan
    t = plan.training
    arithmetic = reading.prediction.seconds / t.steps
    fed = reading.later_ms / 1000 * t.batch / max(1, plan.loading.workers)
    most = min(MOST_STEPS, max(LEAST_STEPS, int(MOST_EPOCHS * t.steps_per_epoch)))
    steps = float(f"{max(LEAST_STEPS, min(most, BUDGET_SECONDS / max(arithmetic, fed))):.2g}")
    return t.steps if max(steps / t.steps, t.steps / steps) <= SAME_STEPS else int(steps)
