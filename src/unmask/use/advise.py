"""What `unmask check` measures to fit a recipe to a folder and to this machine."""

import time
from dataclasses import replace
from typing import NamedTuple

import torch

from unmask.config.advice import Advice, advised, advised_side
from unmask.config.commands import PretrainConfig
from unmask.config.fields import pair
from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import SIZES, MAESpec
from unmask.cost.predict import Prediction
from unmask.cost.reading import ReadingTime
from unmask.data.centre_crops import load_centre_crops
from unmask.data.images import Images
from unmask.data.inspect import Inspection
from unmask.data.sampler import generator
from unmask.engine.machine import autocast
from unmask.engine.optim import build_optimizer, decay_groups, update_weights
from unmask.evals.correlation import autocorrelation, distance_to
from unmask.tasks.measure import Measured, measure

LOOKED_AT = 128
"""Images whose correlation is measured."""
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
    advice: Advice


def fit_to_images(
    config: PretrainConfig, images: Images, inspection: Inspection, *, keep_size: bool
) -> Fitted:
    """With the size, the patch and the mask ratio that suit the images; the size stays if asked."""
    d = config.data
    if not keep_size:
        d = replace(d, size=(advised_side(min(d.size), inspection.median),))
    measured = measure(d, images, size=pair("data.size", d.size))
    bad = {one.path for one in inspection.bad}
    advice = look(images, measured.image, bad, usual=usual_patch(config))
    model = replace(config.model, patch=(advice.patch,))
    mask = replace(config.mask, ratio=advice.ratio)
    return Fitted(replace(config, data=d, model=model, mask=mask), measured, advice)


def usual_patch(config: PretrainConfig) -> int:
    """The side of a configuration's patches, the shorter one."""
    return min(config.model.patch or (SIZES[config.model.size]["patch"],))


def look(images: Images, image: ImageSpec, bad: set[str], *, usual: int) -> Advice:
    """What suits the images by their centre crops, but for the `bad` ones."""
    order = generator(0, len(images)).permutation(len(images)).tolist()
    good = [i for i in order if images.paths[i] not in bad][:LOOKED_AT]
    crops = load_centre_crops(images.subset(good), image)
    curve = autocorrelation(crops, max(1, min(image.size) // 3))
    return advised(len(crops), image.size, distance_to(curve, 0.5), usual)


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
