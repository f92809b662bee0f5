"""The pages that a run leaves behind: curves and report.html."""

import io
from pathlib import Path
from typing import Any

from unmask.config.plan import Plan
from unmask.engine.metrics import read_metrics
from unmask.engine.run_directory import RunDirectory
from unmask.viz.curves import training_curves
from unmask.viz.report import report_html

SAMPLES = {
    "reconstruction": "Reconstructions",
    "reconstruction-ratios": "The same model at higher mask ratios",
    "other-data": "Images of another data set, which the model was not trained on",
    "other-data-ratios": "Images of another data set at higher mask ratios",
}


def write_summary(run: RunDirectory, plan: Plan, title: str) -> None:
    """Draws the curves and writes the report from what the run directory holds."""
    records = read_metrics(run)
    curves = io.BytesIO()
    training_curves(records).save(curves, format="png")
    run.write("plots/curves.png", curves.getvalue())
    pictures = [
        (f"{caption}, after {_step(path)} steps", path.read_bytes())
        for name, caption in SAMPLES.items()
        for path in _first_and_last(run.samples, name)
    ]
    page = report_html(
        f"{title}: {run.path.name}",
        facts=_facts(run, plan, records),
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


def _facts(run: RunDirectory, plan: Plan, records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    a, t, f = plan.architecture, plan.training, plan.facts
    height, width = a.image_size
    trained = [r for r in records if r.get("loss") is not None]
    return [
        ("Images", f"{f.training_images} for training, {f.held_out_images} held out"),
        ("Input", f"{height} x {width} pixels, {f.channels} channel(s)"),
        ("Patches", f"{a.patch_size[0]} x {a.patch_size[1]} pixels"),
        ("Encoder", f"{a.depth} blocks, {a.width} wide, {a.heads} heads"),
        ("Decoder", f"{a.decoder_depth} blocks, {a.decoder_width} wide, {a.decoder_heads} heads"),
        ("Masked", f"{a.mask_ratio:.0%}; target {a.target}; loss on {a.loss_on} patches"),
        ("Training", f"{t.steps} steps of {t.batch} images, {t.steps / t.steps_per_epoch:.4g} epochs"),
        ("Optimizer", f"AdamW, peak rate {t.lr:.3g}, weight decay {t.weight_decay:g}, {t.precision}"),
        ("Last loss", f"{trained[-1]['loss']:.4f}" if trained else "none yet"),
        ("Held-out images", last_measurement(run)),
        ("Skipped steps", str(trained[-1]["skipped_steps"]) if trained else "0"),
    ]  # fmt: skip


def _first_and_last(samples: Path, name: str) -> list[Path]:
    paths = sorted(samples.glob(f"{name}-[0-9]*.png"))
    return paths if len(paths) < 2 else [paths[-1], paths[0]]


def _step(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])
