"""Confusion matrices, mistakes and calibration, for few and many classes and for hostile names."""

import itertools

import numpy as np
import pytest
import torch

from unmask.evals.classification import calibration, confusion_matrix
from unmask.viz import confusion as confusion_module
from unmask.viz import predictions
from unmask.viz.confusion import confusion_figure
from unmask.viz.predictions import contact_sheet, mistakes_sheet, worst_mistakes
from unmask.viz.reliability import reliability_figure
from unmask.viz.tiles import Sheet

HOSTILE = [
    "a name " * 100, "unbreakable" * 50, "new\nline", "\x1b[31mred", "<script>alert(1)</script>",
    "$\\frac{1$", "", "猫 🙂", "\udcff", "%s {0}",
]  # fmt: skip


def margins_are_blank(picture) -> bool:
    pixels = np.asarray(picture)
    edges = pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]
    return all((edge == 255).all() for edge in edges)


def confusion_of(classes: int) -> torch.Tensor:
    made = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (classes * 20,), generator=made)
    wrong = torch.randint(classes, labels.shape, generator=made)
    return confusion_matrix(
        labels.where(torch.rand(labels.shape, generator=made) < 0.8, wrong), labels, classes
    )


@pytest.fixture
def axes_of(monkeypatch):
    """The axes of each confusion picture that is drawn."""
    drawn = []
    original = confusion_module._label

    def spy(axes, names, font):
        drawn.append(axes)
        original(axes, names, font)

    monkeypatch.setattr(confusion_module, "_label", spy)
    return drawn


@pytest.mark.parametrize(
    ("classes", "numbers", "named"), [(1, 1, 1), (2, 4, 2), (10, 100, 10), (100, 0, 100), (1000, 0, 20)]
)
def test_numbers_and_names_while_there_is_room(axes_of, classes, numbers, named):
    picture = confusion_figure(confusion_of(classes), [f"class {i}" for i in range(classes)])
    (axes,) = axes_of
    assert len(axes.texts) == numbers
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == named
    assert labels == [label.get_text() for label in axes.get_xticklabels()]
    assert labels[-1] == ("950 class 950" if classes == 1000 else f"class {classes - 1}")
    assert margins_are_blank(picture)
    assert max(picture.size) < 2500


def test_cells_show_counts_and_shares_of_the_row(axes_of):
    confusion_figure(torch.tensor([[3, 1], [0, 0]]), ["a", "b"])
    (axes,) = axes_of
    assert [t.get_text() for t in axes.texts] == ["3\n75 %", "1\n25 %", "0", "0"]
    assert axes.get_title() == "4 images, 75.0 % right"
    assert axes.get_ylabel() == "true class"


def test_labels_do_not_run_into_each_other_or_out_of_the_picture(axes_of):
    for names in (HOSTILE, ["W" * 99] * 20, ["W" * 99] * 110):
        picture = confusion_figure(confusion_of(len(names)), names)
        assert margins_are_blank(picture)
    for axes in axes_of:
        renderer = axes.figure.canvas.get_renderer()
        boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
        boxes.sort(key=lambda box: box.y0)
        assert all(a.y1 <= b.y0 + 1 for a, b in itertools.pairwise(boxes))
        assert max(box.x1 for box in boxes) <= axes.get_window_extent(renderer).x0
        assert axes.get_window_extent(renderer).width > 200


def test_an_empty_matrix_can_be_drawn():
    assert margins_are_blank(confusion_figure(torch.zeros(3, 3, dtype=torch.int64), list("abc")))


PROBABILITIES = torch.tensor(
    [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.001, 0.0, 0.999], [0.3, 0.6, 0.1], [0.1, 0.9, 0.0]]
)
LABELS = torch.tensor([1, 1, 0, 0, 2])


def test_worst_mistakes_are_the_surest():
    assert worst_mistakes(PROBABILITIES, LABELS, 10).tolist() == [2, 0, 4, 3]
    assert worst_mistakes(PROBABILITIES, LABELS, 2).tolist() == [2, 0]
    assert worst_mistakes(PROBABILITIES, PROBABILITIES.argmax(1), 2).tolist() == []


@pytest.fixture
def sheets(monkeypatch) -> list[Sheet]:
    drawn, original = [], predictions.draw

    def spy(sheet):
        drawn.append(sheet)
        return original(sheet)

    monkeypatch.setattr(predictions, "draw", spy)
    return drawn


def pictures(count: int) -> np.ndarray:
    return np.full((count, 12, 16, 3), 200, dtype=np.uint8)


def test_mistakes_say_what_was_taken_for_what(sheets):
    files = ["a/1.png", "b/1.png", "c/photograph-of-2026-11-26-0001.jpg", "images#3", "d/\n.png"]
    mistakes_sheet(pictures(5), PROBABILITIES, LABELS, ["cat", "dog", "new\ncow"], files)
    captions = [caption for row in sheets[0].captions for caption in row]
    assert captions[:3] == [
        "90 % cat\n10 % dog (true)\n1.png", "80 % dog\n80 % dog (true)\n1.png",
        ">99 % new cow\n<1 % cat (true)\n…26-11-26-0001.jpg",
    ]  # fmt: skip
    assert captions[5] == ""
    assert [len(row) for row in sheets[0].rows] == [3, 3]
    assert sheets[0].rows[1][2] is None


def test_contact_sheet_says_what_it_sees(sheets):
    files = [f"photos/{i}.jpg" for i in range(5)]
    contact_sheet(pictures(5), PROBABILITIES, ["cat", "dog", "cow"], files, title="Farm")
    captions = [caption for row in sheets[0].captions for caption in row]
    assert captions[:2] == ["90 % cat\n0.jpg", "80 % dog\n1.jpg"]
    assert sheets[0].title == "Farm"


@pytest.mark.parametrize("count", [0, 1, 2, 7, 70])
def test_sheets_of_any_number_of_images_with_hostile_names(count):
    made = torch.Generator().manual_seed(0)
    probabilities = (torch.randn(count, len(HOSTILE), generator=made) * 3).softmax(1)
    labels = torch.randint(len(HOSTILE), (count,), generator=made)
    files = [HOSTILE[i % len(HOSTILE)] for i in range(count)]
    for picture in (
        mistakes_sheet(pictures(count), probabilities, labels, HOSTILE, files),
        contact_sheet(pictures(count), probabilities, HOSTILE, files),
    ):
        assert margins_are_blank(picture)
        assert int((np.asarray(picture) == 200).all(-1).sum()) >= count * 192 * 144
        assert picture.width < 8 * 220 + 40


def test_reliability_of_sure_unsure_and_no_predictions():
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 4, generator=made) * 4
    labels = torch.randint(4, (500,), generator=made)
    blank = calibration(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for result in (
        calibration(logits.softmax(1), labels),
        calibration(torch.eye(4), torch.arange(4)),
        blank,
    ):
        assert margins_are_blank(reliability_figure(result))
