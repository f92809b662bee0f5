"""The page of an ablation: a table with spread, what is shown, pictures; as report.html and JSON."""

import json
import math

import torch

from unmask.core.mae import MaskedAutoencoder
from unmask.data.centre_crops import load_centre_crops
from unmask.data.normalize import normalize, valid_pixels
from unmask.engine.run_directory import RunDirectory
from unmask.interop.models import build
from unmask.interop.weights import read_weights
from unmask.runs.ablation import Ablation, Unit
from unmask.runs.ablation_cost import AblationEstimate
from unmask.runs.ablation_findings import NOT_MEASURED, Findings, Row, with_spread
from unmask.runs.pages import links_to
from unmask.tasks.pretrain import Pretrain
from unmask.tasks.reconstruction import display_of, fixed_noise
from unmask.tasks.tokens import tokens_of
from unmask.units import duration
from unmask.viz.ablation import PANELS_IN_A_ROW, Panel, ablation_chart, output_sheet
from unmask.viz.reconstruction import BORROWED_STATISTICS, Views, reconstruct
from unmask.viz.report import Table, report_html
from unmask.viz.saving import png_bytes

PICTURED = 3


def write_page(ablation: Ablation, estimate: AblationEstimate, found: Findings) -> None:
    """report.html for people, ablation.json for programs."""
    written = RunDirectory(ablation.out)
    written.write("ablation.json", json.dumps(_record(ablation, estimate, found), indent=2) + "\n")
    pictures = [
        ("Mean and standard deviation over seeds; dots are single runs", _chart(ablation, found))
    ]
    outputs = _outputs(ablation)
    if outputs:
        caption = (
            f"The same images, as each value of {ablation.axis.label} masks and reconstructs them; "
            f"outputs are poor at visible patches if the loss leaves these out"
        )
        pictures.append((caption, outputs))
    page = report_html(
        f"Ablation: {ablation.axis.label}",
        summary=_table(ablation, estimate, found),
        facts=_facts(ablation, estimate, found),
        pictures=pictures,
        tables=[_runs_table(ablation, found)],
        links=links_to(
            ablation.out, (unit.run(s.name).path for unit in ablation.units for s in unit.steps)
        ),
    )
    written.write("report.html", page)


def _table(ablation: Ablation, estimate: AblationEstimate, found: Findings) -> Table:
    paper, base = ablation.axis.paper, estimate.values[ablation.baseline].training_flops
    header = [ablation.axis.label, *(q.label for q in found.quantities), "runs", "cost", "time"]
    header += ["paper: fine-tuning", "paper: linear"] if paper else []
    rows = []
    for row in found.rows:
        cost = estimate.values[row.value].training_flops / base
        name = f"{row.value} (baseline)" if row.value == ablation.baseline else row.value
        cells = [name, *(with_spread(row, q) for q in found.quantities), str(row.finished)]
        cells += [f"{cost:.2f}x", _time(row)]
        if paper:
            theirs = paper.get(row.value)
            cells += [f"{one}%" for one in theirs] if theirs else [NOT_MEASURED] * 2
        rows.append(cells)
    return Table(f"{ablation.axis.label}: mean ± standard deviation over seeds", header, rows)


def _time(row: Row) -> str:
    return duration(row.seconds) if math.isfinite(row.seconds) else NOT_MEASURED


def _facts(ablation: Ablation, estimate: AblationEstimate, found: Findings) -> list[tuple[str, str]]:
    axis, config = ablation.axis, ablation.config
    some = estimate.values[ablation.baseline]
    f, t, e = some.plan.facts, some.plan.training, some.spec.encoder
    licence = next((one.plan.licence_note for one in estimate.values.values()), "")
    paper = (
        f"{axis.place}: top-1 accuracy in % of a ViT-L/16 on ImageNet-1K, 800 epochs; another model, "
        f"budget and data than here"
    )
    labels = ablation.labels
    measured = (
        f"{len(labels.training)} labelled images to learn from, {len(labels.validation)} to validate "
        f"on, {len(labels.training.classes)} classes; pre-training may see the latter without labels"
        if labels
        else "without labels: by the held-out error and the effective rank of the features"
    )
    facts = [
        ("Significance", found.shown),
        (
            "Seeds",
            "initial weights, order, crops and masks; the images and their split are the same in all "
            "runs, so that the result holds for these images",
        ),
        ("Budget", f"{config.budget}: {t.steps} steps of {t.batch} images in pre-training"),
        ("Model", f"{e.depth} blocks of width {e.width}, {f.training_images} training images"),
        ("Measured", measured),
        (
            "Held-out error",
            "mean square in normalised pixels at random masks of 75 %, for any target and masking in "
            "training; normalized-pixels takes brightness and contrast from visible neighbours",
        ),
        ("Cost", f"operations of pre-training on one image, relative to {ablation.baseline}"),
        ("Time", "of all runs of a value and seed, on the machine that ran them"),
        ("Paper", f"{paper}; {axis.note}" if axis.note else paper),
    ]
    facts += [("Note", note) for note in ablation.notes]
    facts += [("Not finished", ", ".join(found.missing))] if found.missing else []
    return facts + ([("Licence of the data", licence)] if licence else [])


def _runs_table(ablation: Ablation, found: Findings) -> Table:
    rows = []
    for row in found.rows:
        for i, unit in enumerate(ablation.of(row.value)):
            values = [q.shown(row.measured[q.name][i]) for q in found.quantities]
            rows.append([unit.folder.name, *values, _state(unit)])
    return Table("Each run", ["folder", *(q.label for q in found.quantities), ""], rows)


def _state(unit: Unit) -> str:
    diverged = unit.record()["diverged"]
    return f"{diverged} diverged" if diverged else "" if unit.is_finished else "not finished"


def _chart(ablation: Ablation, found: Findings) -> bytes:
    panels = [
        Panel(label=q.label, points=[r.measured[q.name] for r in found.rows], is_share=q.is_share)
        for q in found.quantities
    ]
    paper = [ablation.axis.paper.get(row.value) for row in found.rows]
    if sum(one is not None for one in paper) > 1:
        theirs = [
            Panel(
                label=label,
                points=[[one[place] / 100] if one else [] for one in paper],
                is_share=True,
                from_paper=True,
            )
            for place, label in enumerate(("fine-tuning accuracy", "linear probe accuracy"))
        ]
        # Below the same quantities of these runs, if there are labels.
        panels[PANELS_IN_A_ROW:PANELS_IN_A_ROW] = theirs
    return png_bytes(ablation_chart([r.value for r in found.rows], panels, ablation.axis.label))


def _outputs(ablation: Ablation) -> bytes | None:
    """Fig. 6 of the values whose first finished pre-training is there."""
    drawn: dict[str, Views] = {}
    borrowed: list[str] = []
    for value in ablation.values:
        units = [u for u in ablation.of(value.name) if u.run("pretrain").model.exists()]
        if units:
            drawn[value.name], needs = _views(units[0])
            borrowed += [value.name] if needs else []
    if not drawn:
        return None
    footnote = f"{', '.join(borrowed)}: {BORROWED_STATISTICS}" if borrowed else ""
    return png_bytes(output_sheet(list(drawn), list(drawn.values()), footnote))


def _views(unit: Unit) -> tuple[Views, bool]:
    """What a model makes of held-out images under masks of its own strategy; whether it borrowed from
    them."""
    path = unit.run("pretrain").path
    weights = read_weights(str(path))
    model, spec = build(weights), weights.description.autoencoder
    assert isinstance(model, MaskedAutoencoder)
    assert spec is not None
    image = weights.description.image
    data = Pretrain(unit.pretraining).find()
    images = data.held_out if len(data.held_out) else data.training
    spread = range(0, len(images), max(1, len(images) // PICTURED))[:PICTURED]
    crops = load_centre_crops(images.subset(spread), image)
    tokens = tokens_of(str(path), spec, image)
    with torch.inference_mode():
        views = reconstruct(
            model,
            normalize(crops, image.mean, image.std),
            fixed_noise(len(crops), spec.mask, spec.encoder.grid),
            display=display_of(image),
            valid=valid_pixels(crops),
            tokens=tokens.draw if tokens else None,
        )
    return views, model.target.needs_statistics


def _record(ablation: Ablation, estimate: AblationEstimate, found: Findings) -> dict[str, object]:
    rows = [
        {
            "value": row.value,
            "seeds": list(ablation.config.seeds),
            "training_flops_per_image": estimate.values[row.value].training_flops,
            "seconds": _finite(row.seconds),
            "diverged": row.diverged,
            **{
                q.name: {
                    "mean": _finite(row.mean(q.name)),
                    "standard_deviation": _finite(row.spread(q.name)),
                    "values": [_finite(v) for v in row.measured[q.name]],
                }
                for q in found.quantities
            },
        }
        for row in found.rows
    ]
    return {
        "axis": ablation.name,
        "budget": ablation.config.budget,
        "baseline": ablation.baseline,
        "rows": rows,
        "differences": [one._asdict() | {"shown": one.is_shown} for one in found.differences],
        "missing": found.missing,
        "shown": found.shown,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
