"""The model card beside an exported model: what it is, how to load it, what it was not tested for."""

from importlib.metadata import version

from unmask.interop.description import Description
from unmask.models.classifier_spec import ClassifierSpec
from unmask.units import counted

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
    """The card as Markdown; with front matter if the layout is a folder for the hub.

    Args:
        description: what the weights are.
        layout: official, safetensors, timm or hf.
        name: the title.
        line: Python that loads the model.
        measured: the last measurement of the run, in a sentence; empty if there is none.
    """
    sections = {
        "Loading": f"```python\n{line}\n```",
        **({"Use": use} if (use := _use(description, layout, name)) else {}),
        **({"Classes": _classes(head)} if (head := description.classifier) else {}),
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
        f"pipeline_tag: {'image-classification' if d.classifier else 'image-feature-extraction'}",
        "tags:",
        *(f"- {tag}" for tag in (CLASSIFIER_TAGS if d.classifier else TAGS)),
        "---",
    ]
    return "\n".join(lines) + "\n\n"


def _summary(d: Description) -> str:
    e, head, mae = d.encoder, d.classifier, d.autoencoder
    what = "A masked autoencoder" if mae else "The encoder of a masked autoencoder"
    if head:
        what = "A linear classifier on the encoder of masked autoencoders"
    summary = (
        f"{what} ({PAPER}), written by unmask {version('unmask')}. The encoder is a Vision Transformer "
        f"of {e.depth} blocks, width {e.width}, with {e.heads} heads, on patches of "
        f"{_size(e.patch_size)} pixels."
    )
    if head:
        norm = " after a BatchNorm" if head.batch_norm else ""
        return f"{summary} The head is given {POOLED[head.pool]}{norm}."
    if not mae:
        return summary
    decoder = mae.decoder
    return (
        f"{summary} The decoder has {decoder.depth} blocks, width {decoder.width}, with "
        f"{decoder.heads} heads."
    )


def _use(d: Description, layout: str, name: str) -> str:
    """Lines of Python that go from a picture to scores or features; empty if there are none."""
    if layout not in LIBRARIES:
        return ""
    if d.classifier:
        pipeline = f'transformers.pipeline("image-classification", model="{name}")'
        what = "Classification of image files" + (
            ", which timm's own transform gives too" * (layout == "timm")
        )
        return f'{what}:\n\n```python\n{pipeline}("picture.jpg")\n```'
    if layout != "hf":
        return ""
    load = f'encoder = transformers.ViTModel.from_pretrained("{name}", add_pooling_layer=False)'
    call, why = "encoder(**images)", "Features of images"
    if d.autoencoder:
        load = f'encoder = transformers.ViTMAEModel.from_pretrained("{name}", mask_ratio=0.0)'
        call = "encoder(**images, noise=order)"
        why = (
            "Features of images. ViTMAE masks at random and shuffles patches in evaluation, too: a "
            "mask ratio of 0 and rising noise give the same features every time"
        )
    order = f"order = torch.arange({d.encoder.patches}.0).expand(len(images.pixel_values), -1)"
    lines = [
        f'processor = transformers.AutoImageProcessor.from_pretrained("{name}")',
        load,
        'images = processor(pictures, return_tensors="pt")',
        *([order] if d.autoencoder else []),
        f"patches = {call}.last_hidden_state[:, 1:]",
        "features = patches.mean(dim=1)",
    ]
    return "\n".join([f"{why}:", "", "```python", *lines, "```"])


def _classes(head: ClassifierSpec) -> str:
    if not head.named:
        return f"{len(head.classes)}, whose names are not recorded."
    first = "; ".join(" ".join(name.split()) for name in head.classes[:NAMED_CLASSES])
    more = len(head.classes) - NAMED_CLASSES
    return f"{len(head.classes)}: {first}{f'; and {more} more' if more > 0 else ''}."


def _input(d: Description) -> str:
    image, crop = d.image, ""
    if d.classifier:
        crop = (
            f" Evaluation crops the centre, {image.eval_crop:.4g} of the side of the largest part that "
            f"has this shape."
        )
    floats = "" if image.dtype == "uint8" else " (floating-point pixels as they are)"
    return (
        f"Images of {_size(image.size)} pixels (height x width) and "
        f"{counted(image.channels, 'channel')}, on the scale 0 to 1{floats}, less the mean "
        f"{_numbers(image.mean)}, divided by the standard deviation {_numbers(image.std)}.{crop}"
    )


def _training(d: Description, measured: str) -> list[str]:
    objective = []
    if mae := d.autoencoder:
        unit = f"{mae.mask.unit} x {mae.mask.unit}"
        how = (
            f"in squares of {unit}" if mae.mask.strategy == "random" else f"strategy {mae.mask.strategy}"
        )
        objective = [
            f"masked: {mae.mask.ratio:.0%} of the patches, {how}; target "
            f"{mae.target.kind}; loss on {mae.target.loss_on} patches"
        ]
    return [
        f"recipe: {d.recipe or 'not recorded'}",
        f"images: {d.data or 'not recorded'}",
        f"steps: {d.steps or 'not recorded'}",
        f"weights: {d.weights if d.steps else 'not recorded'}",
        *objective,
        f"measured: {measured or 'nothing is recorded'}",
    ]


def _licence(d: Description) -> str:
    if d.licence_note:
        return _sentence(d.licence_note)
    return "Nothing is recorded: look up what the licence of the images allows before you share these."


def _limits(d: Description, layout: str) -> list[str]:
    mae = d.autoencoder
    use = "Pre-training has no labels: features need a probe or fine-tuning before they decide anything."
    if d.classifier:
        use = "It knows these classes only, and assigns every image to one of them."
    limits = [
        f"It has seen {d.data or 'images that are not recorded'} and nothing else; nobody has tested it "
        f"for fairness, safety or any decision about people.",
        use,
    ]
    if layout == "hf" and d.image.size[0] != d.image.size[1]:
        limits.append(
            "Transformers' image processor squeezes whole images into the input's shape, and evaluation "
            "here crops the centre."
        )
    if mae and mae.target.kind == "normalized-pixels":
        limits.append(
            "The decoder draws patches normalised by their own mean and standard deviation, which it "
            "does not predict: pictures need them from elsewhere."
        )
    if mae and layout == "hf" and mae.mask.unit != 1:
        unit = f"{mae.mask.unit} x {mae.mask.unit}"
        limits.append(f"Transformers masks single patches, and this was trained with squares of {unit}.")
    if mae and layout == "hf" and mae.target.loss_on != "masked":
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
