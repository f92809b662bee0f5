"""Time and peak memory of one training step of a ViT-B UperNet (the paper's Table 5), one JSON line.

    python benchmarks/segmenter_memory.py
    python benchmarks/segmenter_memory.py --precision fp32

Forward, backward and AdamW's step, on 150 classes; nothing is recomputed to save memory.
"""

import argparse
import json
import resource
import time

import torch

from unmask.core.spec import ViTSpec
from unmask.engine.machine import arithmetic
from unmask.models.segmenter import segmentation_loss
from unmask.models.segmenter_spec import SegmenterSpec

CLASSES, AUXILIARY_WEIGHT = 150, 0.4


def main() -> None:
    """Reads the command line, takes the step and prints what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    given = parser.parse_args()
    torch.manual_seed(0)
    encoder = ViTSpec(
        image_size=(given.side, given.side),
        patch_size=(16, 16),
        channels=3,
        width=768,
        depth=12,
        heads=12,
    )
    model = SegmenterSpec(encoder=encoder, classes=tuple(map(str, range(CLASSES)))).build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    images = torch.randn(given.batch, 3, given.side, given.side)
    labels = torch.randint(CLASSES, (given.batch, given.side, given.side))
    seconds = []
    for _ in range(2):  # the second has the moments
        start = time.perf_counter()
        with arithmetic("cpu", given.precision):
            loss = segmentation_loss(model(images), labels, auxiliary_weight=AUXILIARY_WEIGHT)
        (loss.total / labels.numel()).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(round(time.perf_counter() - start, 1))
    taken = {
        "seconds": seconds,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({**vars(given), **taken}))


if __name__ == "__main__":
    main()
