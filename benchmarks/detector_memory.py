"""Time and peak memory of one training step of a ViT-B Mask R-CNN on a square image, one JSON line.

    python benchmarks/detector_memory.py --window 16
    python benchmarks/detector_memory.py --window 0 --kind vitdet

Activations are checkpointed. The FLOPs are those of the forward up to the proposals, counted on the meta
device. Window 0 is global attention in all blocks.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from unmask.core.blocks import checkpoint_activations
from unmask.core.spec import ViTSpec
from unmask.models.detector import Detector
from unmask.models.detector_spec import DetectorSpec

VITDET = {"pyramid": "simple", "relative_position": "decomposed", "head_norm": "layer"}
CLASSES, OBJECTS = 80, 10


def new_detector(side: int, window: int, kind: str) -> Detector:
    """ViT-B with patches of 16."""
    encoder = ViTSpec(
        image_size=(side, side), patch_size=(16, 16), channels=3, width=768, depth=12, heads=12
    )
    classes = tuple(f"class {i}" for i in range(CLASSES))
    options = VITDET if kind == "vitdet" else {}
    spec = DetectorSpec(encoder=encoder, classes=classes, window=window or None, **options)
    return spec.build()


def flops(side: int, window: int, kind: str) -> int:
    """Of encoder, pyramid and the proposals' convolutions, forward, counted without computing."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = new_detector(side, window, kind)
        levels, _ = model.levels(torch.zeros(1, 3, side, side), [(side, side)])
        model.proposals.head(levels)
    return counter.get_total_flops()


def targets(side: int) -> list[dict[str, torch.Tensor]]:
    """One image's objects, of any places and sizes."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(OBJECTS, 2, generator=generator) * 0.7 * side
    extent = (0.03 + 0.25 * torch.rand(OBJECTS, 2, generator=generator)) * side
    boxes = torch.cat([corner, corner + extent], dim=1)
    masks = torch.zeros(OBJECTS, side, side, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.long().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return [{"boxes": boxes, "labels": torch.arange(OBJECTS), "masks": masks}]


def main() -> None:
    """Reads the command line, takes the step and prints what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--kind", choices=("paper", "vitdet"), default="paper")
    parser.add_argument("--side", type=int, default=1024)
    given = parser.parse_args()
    torch.manual_seed(0)
    model = new_detector(given.side, given.window, given.kind)
    checkpoint_activations(model)
    images, size = torch.randn(1, 3, given.side, given.side), (given.side, given.side)
    start = time.perf_counter()
    losses = model(images, [size], targets(given.side), [np.random.default_rng(0)])
    middle = time.perf_counter()
    sum(losses.values()).mean().backward()
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    taken = {
        "forward_seconds": round(middle - start, 1),
        "backward_seconds": round(end - middle, 1),
        "peak_gib": round(peak, 2),
        "forward_gflops": round(flops(given.side, given.window, given.kind) / 1e9),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({**vars(given), **taken}))


if __name__ == "__main__":
    main()
