"""What reports say of every model: its input and its encoder, in words."""

from unmask.config.plan import Plan


def input_facts(plan: Plan) -> list[tuple[str, str]]:
    """Pixels, patches and blocks."""
    encoder, (height, width) = plan.model.encoder, plan.image.size
    return [
        ("Input", f"{height} x {width} pixels, {plan.image.channels} channel(s)"),
        ("Patches", f"{encoder.patch_size[0]} x {encoder.patch_size[1]} pixels"),
        ("Encoder", transformer(encoder.depth, encoder.width, encoder.heads)),
    ]


def transformer(depth: int, width: int, heads: int) -> str:
    """The dimensions of a Transformer."""
    return f"{counted(depth, 'block')}, {width} wide, {counted(heads, 'head')}"


def counted(number: float, what: str) -> str:
    """As in 1 block, 2 blocks."""
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"
