"""Looks at the features while they are learned: what they find, and that training does not notice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unmask
from conftest import photograph
from tests_support import image_spec, resolved
from unmask.config.plan import Plan
from unmask.config.settings import FeatureProbe, Source
from unmask.core.mae import MaskedAutoencoder
from unmask.data import centre_crops
from unmask.data.centre_crops import CentreCrops
from unmask.data.sources.find import find_images
from unmask.distributed.processes import ALONE
from unmask.errors import DataError
from unmask.tasks.features import FeatureRank, LabelledFeatures, find_probe_images, images_to_rank

pytestmark = pytest.mark.usefixtures("blank_charts")

TIMING = ("images_per_second", "data_wait", "memory_gib")
WATCHED = ("knn/top1", "probe/top1", "probe/images", "probe/commonest_class", "features/rank")


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    """32 bright and 8 dark pictures, which any feature tells apart."""
    folder = tmp_path_factory.mktemp("labelled") / "light"
    for i in range(40):
        name = "dark" if i % 5 == 0 else "bright"
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(photograph(i)) // 4 + (0 if name == "dark" else 190)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture
def plan(tiny) -> Plan:
    return resolved(tiny)


@pytest.fixture
def model(plan) -> MaskedAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return plan.model.build()


def probed(classes: Path, pretraining: Path | None = None, **asked):
    where = find_images((str(pretraining or classes),))
    return find_probe_images(FeatureProbe(data=(str(classes),), **asked), Source(), where)


def test_training_does_not_notice(tiny, classes, tmp_path):
    """Nor does what is drawn at random."""
    plain = replace(tiny, probe=FeatureProbe(images=0), out=str(tmp_path / "plain"))
    looked = replace(
        tiny, probe=FeatureProbe(data=(str(classes),), every=2), out=str(tmp_path / "looked")
    )
    first, second = unmask.pretrain(plain), unmask.pretrain(looked)
    without, with_looks = records(first), records(second)
    looks = [record["step"] for record in with_looks if "knn/top1" in record]
    assert looks == [0, 2, 4, 6, 7]
    for record in with_looks:
        assert ("knn/top1" in record) == all(name in record for name in WATCHED)
    left = [
        {name: value for name, value in record.items() if name not in (*TIMING, *WATCHED)}
        for record in without + with_looks
    ]
    assert left[: len(without)] == left[len(without) :]
    one, other = (load_file(run / "model.safetensors") for run in (first, second))
    assert all(one[name].equal(value) for name, value in other.items())
    log = (second / "train.log").read_text()
    assert "k-NN and linear probe: 30 labelled images, 10 query images (0 seen in pre-training)" in log
    assert "linear probe accuracy 100.00%, majority-class baseline 80.00%, effective rank" in log
    assert "k-NN accuracy 100.00%" in (second / "report.html").read_text()


def test_looks_may_change_on_resume(tiny, classes):
    """A finished run is compared with what is asked now, as a resumed one is."""
    run = unmask.pretrain(tiny)
    changed = FeatureProbe(data=(str(classes),), val=("x",), images=9, every=1, label_column="kind")
    assert unmask.pretrain(replace(tiny, probe=changed)) == run


def test_without_labels_the_rank_of_training_images(tiny):
    last = records(unmask.pretrain(tiny))[-1]
    assert 1 <= last["features/rank"] <= 16
    assert "knn/top1" not in last


def test_labels_that_are_not_there_stop_the_run_before_it_begins(tiny):
    with pytest.raises(DataError, match="there is no folder or file nowhere"):
        unmask.pretrain(replace(tiny, probe=FeatureProbe(data=("nowhere",))))
    assert not (Path(tiny.out) / "checkpoints").exists()


def test_separable_classes_are_told_apart(classes, model, plan):
    found = dict(LabelledFeatures(probed(classes), plan).run(model, ALONE))
    assert list(found) == list(WATCHED)
    assert (found["knn/top1"], found["probe/top1"]) == (1, 1)
    assert found["probe/commonest_class"] == pytest.approx(0.8)


def test_labels_of_broken_images_go_with_them(classes, model, plan, tmp_path):
    """Without the indices of readable images every label after a broken one would be another's."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(classes, copy)
    found = probed(copy)
    for part, bright in ((found.training, 24), (found.validation, 8)):
        assert not part.labels[:bright].any()
        for path in list(part.images.paths)[: bright - 2]:
            Path(path).write_bytes(b"nothing")
    measured = dict(LabelledFeatures(found, plan).run(model, ALONE))
    assert (measured["knn/top1"], measured["probe/top1"]) == (1, 1)


def test_nothing_is_measured_where_features_are_no_numbers(classes, model, plan, tmp_path):
    images = find_images((str(classes),))
    watch = [LabelledFeatures(probed(classes), plan), FeatureRank(images, plan)]
    assert all(dict(evaluator.run(model, ALONE)) for evaluator in watch)
    model.encoder.norm.bias.data[0] = torch.nan
    assert not any(dict(evaluator.run(model, ALONE)) for evaluator in watch)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    assert not dict(FeatureRank(find_images((str(tmp_path),)), plan).run(model, ALONE))


def test_nothing_global_is_drawn_and_everything_repeats(classes, model, plan):
    """Under what the loop does around an evaluator: inference mode, and bf16."""
    state = torch.random.get_rng_state()
    evaluator = LabelledFeatures(probed(classes), plan)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        first, again = dict(evaluator.run(model, ALONE)), dict(evaluator.run(model, ALONE))
    assert first == again
    assert torch.random.get_rng_state().equal(state)
    assert not any(p.grad is not None for p in model.parameters())


def test_the_choice_is_bounded_and_the_unseen_come_first(classes, tmp_path):
    everything = probed(classes)
    assert (len(everything.training), len(everything.validation), everything.seen) == (30, 10, 10)
    few = probed(classes, images=8)
    assert (len(few.training), len(few.validation)) == (8, 4)
    assert set(few.training.labels) == {0, 1}
    assert set(few.training.images.paths) <= set(everything.training.images.paths)
    seen = sorted(everything.validation.images.paths)[:7]
    (tmp_path / "seen.txt").write_text("\n".join(seen))
    some = probed(classes, tmp_path / "seen.txt", images=8)
    assert (len(some.validation), some.seen) == (4, 1)
    assert len(set(some.validation.images.paths) - set(seen)) == 3


def test_seen_however_the_folder_is_written(classes, monkeypatch):
    monkeypatch.chdir(classes.parent)
    assert probed(Path("light"), classes / "..").seen == 10


def test_images_to_rank(photos):
    images = find_images((str(photos),))
    assert len(images_to_rank(FeatureProbe(), images, width=4)) == 16
    assert len(images_to_rank(FeatureProbe(images=5), images, width=4)) == 5
    assert len(images_to_rank(FeatureProbe(), images, width=400)) == 24
    assert len(images_to_rank(FeatureProbe(images=0), images, width=4)) == 0


@pytest.mark.parametrize("limit", [2**30, 0])
def test_crops_are_decoded_once_where_they_fit(photos, monkeypatch, limit):
    monkeypatch.setattr(centre_crops, "CACHED_BYTES", limit)
    decoded = []
    monkeypatch.setattr(CentreCrops, "__getitem__", _counted(CentreCrops.__getitem__, decoded))
    looked = CentreCrops(find_images((str(photos),)), image_spec((8, 8)), batch=10, keep=True)
    first, again = list(looked), list(looked)
    assert [len(batch.indices) for batch in first] == [10, 10, 4]
    assert all(a.images.equal(b.images) for a, b in zip(first, again, strict=True))
    assert len(decoded) == (24 if limit else 48)


def _counted(original, calls):
    def wrapped(self, index):
        calls.append(index)
        return original(self, index)

    return wrapped
