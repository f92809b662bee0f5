"""Images divided into patches, and how many of these stay visible: arithmetic without torch."""

Size = tuple[int, int]
"""Height, then width."""


def grid_of(image_size: Size, patch_size: Size) -> Size:
    """Patches down and across an image of `image_size` pixels.

    Raises ValueError if the patch does not divide the image.
    """
    for side, pixels, patch in zip(("height", "width"), image_size, patch_size, strict=True):
        if patch < 1 or pixels < 1 or pixels % patch:
            nearest = max(patch, round(pixels / patch) * patch) if patch > 0 else pixels
            raise ValueError(
                f"a patch of {patch} pixels does not divide an image {side} of {pixels}: "
                f"choose another patch size, or {nearest} as {side}"
            )
    return image_size[0] // patch_size[0], image_size[1] // patch_size[1]


def kept_patches(grid: Size, mask_ratio: float, unit: int = 1) -> int:
    """How many patches stay visible: int(N x (1 - ratio)), counted in mask units.

    The product is truncated in floating point as the official MAE code does: 100 patches at a ratio of
    0.9 keep 9. `unit` is the side of the squares of patches that are masked together.

    Raises ValueError if nothing, or everything, would stay visible.
    """
    h, w = grid
    if unit < 1 or h % unit or w % unit:
        raise ValueError(
            f"mask units of {unit} x {unit} patches do not tile a grid of {h} x {w} patches: "
            f"choose a mask unit that divides both, such as 1"
        )
    units = (h // unit) * (w // unit)
    if units < 2:
        raise ValueError(
            f"a grid of {h} x {w} patches is a single mask unit, and one must stay while another "
            f"goes: choose smaller patches, or a smaller mask unit"
        )
    kept = int(units * (1 - mask_ratio))
    if not 0 < kept < units:
        raise ValueError(
            f"a mask ratio of {mask_ratio} keeps {kept} of {units} mask units visible, and at least "
            f"one must stay and one must go: choose a ratio such as 0.5, or smaller patches"
        )
    return kept * unit * unit
