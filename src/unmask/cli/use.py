"""The commands that use a trained model or look at data: flags, a function of the API, what it says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from unmask.cli.arguments import (
    parse,
    refuse_removed,
    take_switch,
    with_full_names,
)
from unmask.cli.processes import is_main_process
from unmask.config import commands
from unmask.errors import printable


class Use(NamedTuple):
    """A command: its configuration, where its words belong, and its help."""

    config: Callable[[], Any]
    place: str
    """data.source or source."""
    argument: str
    description: str


USES = {
    "check": Use(
        commands.CheckConfig,
        "data.source",
        "DATA",
        "Counts images, sizes and formats; lists ignored, unreadable and duplicate files; measures mean "
        "and standard deviation; draws what a model would see, in --out; estimates time and memory of a "
        "run with --recipe, or with the one that suits the images. --json: the facts about the images "
        "as one JSON object, for programs; no figure is written.",
    ),
    "evaluate": Use(
        commands.EvaluateConfig,
        "data.source",
        "DATA",
        "Measures a model on labelled images: a classifier by accuracy, calibration, every class, the "
        "most confident errors; a run of detect by average precision, a run of segment by intersection "
        "over union. --init takes a run of finetune, probe, scratch, detect or segment, or a classifier "
        "from timm, Hugging Face or the official MAE code. On the data of a run it reproduces the final "
        "scores of its training. --robustness a, r, sketch or c: DATA is that variant of ImageNet. "
        "Under torchrun the processes divide the images.",
    ),
    "knn": Use(
        commands.KnnConfig,
        "data.source",
        "DATA",
        "Classifies validation images by their nearest neighbours among the training images (k-NN) in "
        "the features of a frozen model, and by a linear probe of the same features. --init takes a "
        "run, or weights from timm, Hugging Face or the official MAE code. --baselines: the same with "
        "raw pixels and with a random encoder.",
    ),
    "predict": Use(
        commands.PredictConfig,
        "source",
        "IMAGES",
        "Classifies images and writes the probabilities of the classes, as predictions.csv and "
        "predictions.jsonl, and a contact sheet. --init takes a run of finetune, probe or scratch, or a "
        "classifier of timm, Hugging Face or the official MAE code. A run of segment writes a label map "
        "of each image, an overlay, and the shares of the classes as shares.csv; a run of detect writes "
        "the objects that it finds as detections.json, in COCO's format, and pictures of them.",
    ),
    "reconstruct": Use(
        commands.ReconstructConfig,
        "source",
        "IMAGES",
        "Draws original, masked image, reconstruction, and reconstruction with the visible patches "
        "pasted in, at one mask ratio; and reconstructions at mask ratios of 75 to 95 %.",
    ),
    "embed": Use(
        commands.EmbedConfig,
        "source",
        "DATA",
        "Writes a feature vector for each image, computed without masking, in the order of the data. "
        "--init takes a run, or weights from timm, Hugging Face or the official MAE code.",
    ),
}


def main(command: str, argv: list[str]) -> None:
    """Reads the arguments, calls the API, and says what came of it."""
    use, flags = USES[command], with_full_names(argv)
    refuse_removed(command, flags)
    as_json = command == "check" and take_switch(flags, "--json")
    config, words = parse(
        use.config(), flags, prog=f"unmask {command} {use.argument}", description=use.description
    )
    if words and use.place == "source":
        config = replace(config, source=tuple(words))
    elif words:
        config = replace(config, data=replace(config.data, source=tuple(words)))

    from unmask import api
    from unmask.cli import tables

    found = getattr(api, command)(config)
    if not is_main_process():
        return
    if as_json:
        tables.show_json(found.record())
    else:
        getattr(tables, f"show_{command}")(found)


def export(argv: list[str]) -> None:
    """Writes a model in another layout; prints the difference, and how to load the result."""
    description = (
        "Writes the model of a run in another layout with a model card, reads it back with the library "
        "that it is for, and prints the largest difference between both models' outputs. First word: a "
        "run directory, a folder of Hugging Face or timm weights or a file of weights."
    )
    asked, words = parse(
        commands.ExportConfig(), argv, prog="unmask export RUN", description=description
    )
    if len(words) != 1:
        raise ValueError("export takes one run: write unmask export RUN --to timm")

    from unmask import api

    done = api.export(
        words[0],
        to=asked.to,
        out=asked.out,
        encoder_only=asked.encoder_only,
        heads=asked.model.heads,
    )
    how_far = f"its outputs differ from the source's by {done.difference:.3g} at most"
    print(printable(f"wrote {done.path}; read back, {how_far}"))
    print(printable(f"load it with: {done.line}"))


def quickstart(argv: list[str]) -> None:
    """Pre-training and what it gains, with everything decided."""
    description = (
        "Pre-trains a small model on 4,000 handwritten digits without their labels, then compares four "
        "ways of learning them from 100 labels: a linear probe of the pixels, training from scratch, a "
        "linear probe of the pre-trained encoder, and fine-tuning it. Four minutes on two processor "
        "cores; running it again resumes. --data elpv: 1,967 photographs of solar cells (CC BY-NC-SA "
        "4.0) with all their labels, for which this is not long enough to gain anything."
    )
    config, words = parse(
        commands.QuickstartConfig(), argv, prog="unmask quickstart", description=description
    )
    if words:
        raise ValueError("quickstart takes no data: it has its own; write unmask pretrain DATA")

    from unmask import api

    api.quickstart(config)


def replay(argv: list[str]) -> None:
    """One step of a run again, seen from inside."""
    description = (
        "Takes one step of a run again, as the run took it, from the checkpoint before it, and says "
        "what happened in it: the images of its batch with the loss of each, the first module whose "
        "output is not finite, the largest activations, the gradient's norm by block, and whether the "
        "loss equals the recorded one. Writes replay.json and a picture of the images with the largest "
        "losses to --out, and nothing into the run directory."
    )
    config, words = parse(
        commands.ReplayConfig(), argv, prog="unmask replay RUN", description=description
    )
    if len(words) != 1:
        raise ValueError("replay takes one run: write unmask replay RUN --step N")

    from unmask import api

    done = api.replay(words[0], config)
    for sentence in done.sentences():
        print(printable(sentence))
    print(printable(f"report: {done.path / 'replay.json'}"))
