"""The pages that a run leaves behind: curves and report.html."""

import io
from pathlib import Path

from unmask.config.plan import DataFacts, Plan, TrainingPlan
from unmask.config.resolve_classify import ClassifyPlan
from unmask.core.mae import Architecture
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.viz.curves import training_curves
from unmask.viz.report import report_html

AS_IT_LEARNS = ("reconstruction", "other-data")
"""Pictures that are shown as they were at first, too."""

SAMPLES = {
    "reconstruction": "Reconstructions",
    "reconstruction-ratios": "The same model at higher mask ratios",
    "other-data": "Images of another data set, which the model was not trained on",
    "other-data-ratios": "Images of another data set at higher mask ratios",
}

VALIDATION_SAMPLES = {
    "confusion": "What is taken for what",
    "mistakes": "The surest mistakes",
    "calibration": "Whether it is right as often as it says",
}
NAMED_CLASSES = 20
OPTIMIZERS = {"adamw": "AdamW", "lars": "LARS", "sgd": "SGD"}


def write_summary(run: RunDirectory, plan: Plan, title: str) -> None:
    """The pages of a pre-training run."""
    _write_pages(run, title, _facts(run, plan), SAMPLES)


def write_classification_summary(run: RunDirectory, plan: ClassifyPlan, title: str) -> None:
    """The pages of a classification run."""
    _write_pages(run, title, _classification_facts(run, plan), VALIDATION_SAMPLES)


def _write_pages(
    run: RunDirectory, title: str, facts: list[tuple[str, str]], captions: dict[str, str]
) -> None:
    """Draws the curves and writes the report from what the run directory holds."""
    curves = io.BytesIO()
    training_curves(read_metrics(run)).save(curves, format="png")
    run.write("plots/curves.png", curves.getvalue())
    pictures = [
        (f"{caption}, after {_step(path)} steps", path.read_bytes())
        for name, caption in captions.items()
        for path in _newest(run.samples, name, first=name in AS_IT_LEARNS)
    ]
    page = report_html(
        f"{title}: {run.path.name}",
        facts=facts,
        pictures=[*pictures, ("Training curves", curves.getvalue())],
    )
    run.write("report.html", page)


def last_measurement(run: RunDirectory) -> str:
    """The newest held-out error, in a sentence."""
    for record in reversed(read_metrics(run)):
        if record.get("held_out/ratio") is not None:
            return (
                f"Held-out error on masked pixels {record['held_out/error']:.4f}, harmonic fill "
                f"{record['held_out/harmonic_error']:.4f}, ratio {record['held_out/ratio']:.3f}"
            )
    return "Nothing was measured on held-out images"


def last_features(run: RunDirectory) -> str:
    """What the features were worth at the last look, in a sentence; empty where none was taken."""
    for record in reversed(read_metrics(run)):
        if record.get("features/rank") is None:
            continue
        rank = f"effective rank {record['features/rank']:.1f}"
        if record.get("probe/top1") is None:
            return rank
        return (
            f"k-NN accuracy {record['knn/top1']:.2%}, linear probe's {record['probe/top1']:.2%}, the "
            f"commonest class's {record['probe/commonest_class']:.2%}; {rank}"
        )
    return ""


def last_scores(run: RunDirectory) -> str:
    """The newest accuracy on validation images, in a sentence; top-5 where there are more classes."""
    for record in reversed(read_metrics(run)):
        if record.get("val/top1") is not None:
            classes = (run.read("plan.json") or {}).get("classes", ())
            top5 = f", top-5 {record['val/top5']:.2%}" if len(classes) > 5 else ""
            bad = record.get("val/unreadable")
            left_out = f"; {bad} validation images cannot be read: see bad_images.jsonl" if bad else ""
            return (
                f"Validation accuracy {record['val/top1']:.2%}, balanced "
                f"{record['val/balanced_accuracy']:.2%}{top5}{left_out}"
            )
    return "Nothing was measured on validation images"


def _facts(run: RunDirectory, plan: Plan) -> list[tuple[str, str]]:
    a, f = plan.architecture, plan.facts
    return [
        ("Held-out images", last_measurement(run)),
        ("Frozen features", last_features(run) or "not looked at"),
        ("Images", f"{f.training_images} for training, {f.held_out_images} held out"),
        *_input_facts(a, f),
        ("Decoder", _transformer(a.decoder_depth, a.decoder_width, a.decoder_heads)),
        ("Masked", f"{a.mask_ratio:.0%}; target {a.target}; loss on {a.loss_on} patches"),
        *_training_facts(run, plan.training),
    ]


def _classification_facts(run: RunDirectory, plan: ClassifyPlan) -> list[tuple[str, str]]:
    a, f, h, g = plan.architecture, plan.facts, plan.head, plan.augment
    crop = plan.data.crop_scale
    amounts = {"erasing": g.erasing, "mixup": g.mixup, "cutmix": g.cutmix, "smoothing": g.smoothing}
    augmented = [
        f"crops of {crop[0]:g} to {crop[1]:g} of the area",
        *(["flips"] if plan.data.flip else []),
        *(["RandAugment"] if plan.data.rand_augment else []),
        *(f"{name} {value:g}" for name, value in amounts.items() if value),
    ]
    return [
        ("Result", last_scores(run)),
        ("Images", f"{f.training_images} for training, {_readable(run, f)} for validation"),
        ("Classes", f"{len(plan.classes)}: {', '.join(plan.classes[:NAMED_CLASSES])}"),
        *_input_facts(a, f),
        ("Trained", f"{_trained(h.tune_blocks)}; pooling {h.pool}; drop path {h.drop_path:g}"),
        ("Augmented by", ", ".join(augmented)),
        *_training_facts(run, plan.training),
        ("Layer decay", f"{plan.layer_decay:g}"),
    ]


def _readable(run: RunDirectory, f: DataFacts) -> int:
    """Validation images that were measured."""
    bad = [r["val/unreadable"] for r in read_metrics(run) if r.get("val/unreadable") is not None]
    return f.held_out_images - (bad[-1] if bad else 0)


def _trained(blocks: float | None) -> str:
    if blocks is None:
        return "everything"
    return f"the head and {_counted(blocks, 'block')}" if blocks else "the head alone"


def _input_facts(a: Architecture, f: DataFacts) -> list[tuple[str, str]]:
    (height, width), (p, q) = a.image_size, a.patch_size
    return [
        ("Input", f"{height} x {width} pixels, {f.channels} channel(s)"),
        ("Patches", f"{p} x {q} pixels"),
        ("Encoder", _transformer(a.depth, a.width, a.heads)),
    ]


def _transformer(depth: int, width: int, heads: int) -> str:
    return f"{_counted(depth, 'block')}, {width} wide, {_counted(heads, 'head')}"


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


def _training_facts(run: RunDirectory, t: TrainingPlan) -> list[tuple[str, str]]:
    trained = [r for r in read_metrics(run) if r.get("loss") is not None]
    name = OPTIMIZERS[t.optimizer]
    return [
        ("Training", f"{t.steps} steps of {t.batch} images, {t.steps / t.steps_per_epoch:.4g} epochs"),
        ("Optimizer", f"{name}, peak rate {t.lr:.3g}, decay {t.weight_decay:g}, {t.precision}"),
        ("Last loss", f"{trained[-1]['loss']:.4f}" if trained else "none yet"),
        ("Skipped steps", str(trained[-1]["skipped_steps"]) if trained else "0"),
    ]


def _newest(samples: Path, name: str, *, first: bool) -> list[Path]:
    """And the first behind it."""
    paths = sorted(samples.glob(f"{name}-[0-9]*.png"))
    return [*paths[-1:], *(paths[:1] if first and len(paths) > 1 else [])]


def _step(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])
