"""What reports say of every model: its input and its encoder, in words."""

from unmask.config.plan import Plan
from unmask.units import counted


def input_facts(plan: Plan) -> list[tuple[str, str]]:
    """Pixels, patches and blocks."""
    encoder, (height, width) = plan.model.encoder, plan.image.size
    return [
        ("Input", f"{height} x {width} pixels, {counted(plan.image.channels, 'channel')}"),
        ("Patches", f"{encoder.patch_size[0]} x {encoder.patch_size[1]} pixels"),
        ("Encoder", transformer(encoder.depth, encoder.width, encoder.heads)),
    ]


def transformer(depth: int, width: int, heads: int) -> str:
    """The dimensions of a Transformer."""
    return f"{counted(depth, 'block')}, width {width}, {counted(heads, 'head')}"
