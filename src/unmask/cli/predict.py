"""unmask predict IMAGES --init RUN: classify images."""

from unmask.cli.arguments import parse, split_words
from unmask.config.schema_use import PredictConfig

DESCRIPTION = (
    "Classifies images and writes the probabilities of the classes, as predictions.csv and "
    "predictions.jsonl, and a contact sheet. First words: the images, as for pretrain. --init takes a "
    "run of finetune, probe or scratch, or a classifier of timm, Hugging Face or the reference."
)


def main(argv: list[str]) -> None:
    """Reads the arguments and prints how many images each class has."""
    words, flags = split_words(argv)
    base = PredictConfig(source=tuple(words))
    config = parse(base, flags, prog="unmask predict IMAGES", description=DESCRIPTION)

    from unmask import api
    from unmask.cli.tables import show_bad, show_notes, show_table
    from unmask.viz.words import escaped, one_line

    done = api.predict(config)
    show_notes(done.notes)
    rows = [(one_line(name, 60), str(count)) for name, count in done.counts.items()]
    show_table(("predicted class", "images"), rows)
    show_bad(done.bad)
    where = escaped(str(done.path))
    print(f"wrote predictions of {done.images} images to {where}, {len(done.bad)} left out")
    if done.sheet:
        print(f"look at {escaped(str(done.sheet))}")
