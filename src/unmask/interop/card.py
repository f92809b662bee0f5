"""The model card beside an exported model: what it is, how to load it, what it was not tested for."""

from importlib.metadata import version

from unmask.interop.description import Description, Head

LIBRARIES = {"timm": "timm", "hf": "transformers"}
"""Layouts that are folders for the hub, and the library that its front matter names."""
TAGS = ("masked-autoencoder", "vit", "self-supervised-learning", "unmask")
CLASSIFIER_TAGS = ("image-classification", "vit", "unmask")
NAMED_CLASSES = 10
POOLED = {"class": "the class token", "mean": "the mean of the patches"}
PAPER = "[He et al. 2021](https://arxiv.org/abs/2111.06377)"


def model_card(
    description: Description, *, layout: str, name: str, line: str, measured: str = ""
) -> str:
    """The card as Markdown; with front matter where the layout is a folder for the hub.

    Args:
        description: what the weights are.
        layout: official, safetensors, timm or hf.
        name: the title.
        line: Python that loads the model.
        measured: the last measurement of the run, in a sentence; empty if there is none.
    """
    sections = {
        "Loading": f"```python\n{line}\n```",
        **({"Classes": _classes(description.head)} if description.head else {}),
        "Input": _input(description),
        "Training": _list(_training(description, measured)),
        "Licence": _licence(description),
        "Limits": _list(_limits(description, layout)),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    front = _front_matter(description, LIBRARIES[layout]) if layout in LIBRARIES else ""
    return f"{front}# {name}\n\n{_summary(description)}\n\n{body}\n"


def _front_matter(d: Description, library: str) -> str:
    lines = [
        "---",
        f"library_name: {library}",
        f"license: {'other' if d.licence_note else 'unknown'}",
        f"pipeline_tag: {'image-classification' if d.head else 'image-feature-extraction'}",
        "tags:",
        *(f"- {tag}" for tag in (CLASSIFIER_TAGS if d.head else TAGS)),
        "---",
    ]
    return "\n".join(lines) + "\n\n"


def _summary(d: Description) -> str:
    a = d.architecture
    what = "A masked autoencoder" if d.has_decoder else "The encoder of a masked autoencoder"
    if d.head:
        what = "A linear classifier on the encoder of masked autoencoders"
    summary = (
        f"{what} ({PAPER}), written by unmask {version('unmask')}. The encoder is a Vision Transformer "
        f"of {a.depth} blocks, {a.width} wide, with {a.heads} heads, on patches of "
        f"{_size(a.patch_size)} pixels."
    )
    if d.head:
        norm = " after a BatchNorm" if d.head.batch_norm else ""
        return f"{summary} The head is given {POOLED[d.head.pool]}{norm}."
    if not d.has_decoder:
        return summary
    return (
        f"{summary} The decoder has {a.decoder_depth} blocks, {a.decoder_width} wide, with "
        f"{a.decoder_heads} heads."
    )


def _classes(head: Head) -> str:
    first = "; ".join(" ".join(name.split()) for name in head.classes[:NAMED_CLASSES])
    more = len(head.classes) - NAMED_CLASSES
    return f"{len(head.classes)}: {first}{f'; and {more} more' if more > 0 else ''}."


def _input(d: Description) -> str:
    a = d.architecture
    crop = ""
    if d.head:
        crop = (
            f" Evaluation crops the centre, {d.head.eval_crop:.4g} of the side of the largest part that "
            f"has this shape."
        )
    floats = "" if d.pixel_type == "uint8" else " (floating-point pixels as they are)"
    return (
        f"Images of {_size(a.image_size)} pixels (height x width) and {a.channels} channel(s), on the "
        f"scale 0 to 1{floats}, less the mean {_numbers(d.mean)} and divided by the deviation "
        f"{_numbers(d.std)}.{crop}"
    )


def _training(d: Description, measured: str) -> list[str]:
    a = d.architecture
    masked = f"{a.mask_ratio:.0%} of the patches, in squares of {a.mask_unit} x {a.mask_unit}"
    objective = f"masked: {masked}; target {a.target}; loss on {a.loss_on} patches"
    return [
        f"recipe: {d.recipe or 'not recorded'}",
        f"images: {d.data or 'not recorded'}",
        f"steps: {d.steps or 'not recorded'}",
        f"weights: {d.weights if d.steps else 'not recorded'}",
        *([] if d.head else [objective]),
        f"measured: {measured or 'nothing is recorded'}",
    ]


def _licence(d: Description) -> str:
    if d.licence_note:
        return _sentence(d.licence_note)
    return "Nothing is recorded: look up what the licence of the images allows before you share these."


def _limits(d: Description, layout: str) -> list[str]:
    a = d.architecture
    use = "Pre-training has no labels: features want a probe or fine-tuning before they decide anything."
    if d.head:
        use = "It knows these classes only, and takes every image for one of them."
    limits = [
        f"It has seen {d.data or 'images that are not recorded'} and nothing else; nobody has tested it "
        f"for fairness, safety or any decision about people.",
        use,
    ]
    if d.head and layout == "hf" and d.head.eval_crop != 1:
        limits.append(
            "Transformers' image processor takes whole images, and evaluation here crops them."
        )
    if d.has_decoder and a.target == "normalized-pixels":
        limits.append(
            "The decoder draws patches normalised by their own mean and deviation, which it does not "
            "predict: pictures need them from elsewhere."
        )
    if d.has_decoder and layout == "hf" and a.mask_unit != 1:
        unit = f"{a.mask_unit} x {a.mask_unit}"
        limits.append(f"Transformers masks single patches, and this was trained with squares of {unit}.")
    if d.has_decoder and layout == "hf" and a.loss_on != "masked":
        limits.append("Transformers computes the loss on masked patches only.")
    return [*limits, *map(_sentence, d.notes)]


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
