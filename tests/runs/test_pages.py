"""report.html of a run says what was done, and where it fell short."""

import re
from dataclasses import replace

import pytest

from unmask.engine.task import Metric
from unmask.runs.pages import _command
from unmask.runs.run import run
from unmask.tasks.pretrain import Pretrain

pytestmark = pytest.mark.usefixtures("blank_charts")

RATIO = next(m for m in Pretrain.metrics if m.key == "held_out/ratio")
ACCURACY = Metric(
    key="top1", label="accuracy", better="higher", baseline_key="common", baseline_label="the majority"
)


@pytest.mark.parametrize(
    ("metric", "record", "says"),
    [
        (
            RATIO,
            {"held_out/ratio": 1.2},
            "is 1.200 times that of a smooth interpolation from the visible patches (harmonic fill): ",
        ),
        (RATIO, {"held_out/ratio": 1.0}, "a longer run usually helps"),
        (RATIO, {"held_out/ratio": 0.9}, ""),
        (RATIO, {}, ""),
        (
            ACCURACY,
            {"top1": 0.6, "common": 0.7},
            "0.6000 is no better than the majority (0.7000)",
        ),
        (ACCURACY, {"top1": 0.8, "common": 0.7}, ""),
        (ACCURACY, {"top1": 0.8}, ""),
    ],
)
def test_shortfall(metric, record, says):
    found = metric.shortfall(record)
    assert says in found if says else found == ""


def test_a_run_that_learned_little_says_so(tiny, capsys):
    """A rate of zero draws noise: worse than harmonic fill."""
    path = run(Pretrain(replace(tiny, optim=replace(tiny.optim, steps=2, base_lr=0.0))))
    page, printed = (path / "report.html").read_text(), capsys.readouterr().out
    for text in (page, printed):
        assert re.search(r"images is [0-9.]+ times that of a smooth interpolation", text)
        assert "visible patches (harmonic fill): a longer run usually helps" in text
    assert "What is harmonic fill?" in page
    assert "the smoothest surface through the visible pixels" in page
    facts = ("Command", "Data", "Initialised from", "Seed", "Started", "Duration", "Machine")
    places = [page.index(f'<th scope="row">{name}</th>') for name in facts]
    assert places == sorted(places)
    assert "<td>random weights</td>" in page


def test_parts_are_counted(tiny):
    path = run(Pretrain(replace(tiny, optim=replace(tiny.optim, steps=2))))
    (path / "model.safetensors").unlink()
    run(Pretrain(replace(tiny, optim=replace(tiny.optim, steps=2))))
    assert "in 2 parts, with the time between them" in (path / "report.html").read_text()


def test_command():
    assert _command(["/usr/bin/unmask", "pretrain", "my folder"]) == "unmask pretrain 'my folder'"
    assert _command(["/x/unmask/__main__.py", "probe"]) == "unmask probe"
    assert _command(["train.py"]) == "train.py"
    assert _command([]) == "not known"
