"""How long the laptop recipe waits for data, on photographs of 12 megapixels that this writes.

    python benchmarks/large_photographs.py FOLDER [IMAGES] [STEPS]

FOLDER needs about 500 MB for 300 images. The last line is JSON; nothing is measured of the first epoch,
which decodes every file. Run it on an idle machine: other programs slow the arithmetic and the reading.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import unmask
from unmask.bench.photograph import photograph

WIDTH, HEIGHT = 4000, 3000
COUNT, EPOCHS = 300, 12
QUALITY = 90


def write_photographs(folder: Path, count: int) -> None:
    """Parts of one picture, moved around and of several shades, so that no two files are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    whole, rng = np.asarray(photograph(WIDTH, HEIGHT)).astype(np.int16), np.random.default_rng(0)
    for i in range(count):
        moved = np.roll(whole, rng.integers((HEIGHT, WIDTH)).tolist(), (0, 1))
        pixels = (moved + rng.integers(-20, 20, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}.jpg", quality=QUALITY)


def waiting(run: Path, epoch: int) -> dict[str, float]:
    """Share of the time in which the loop waited, and its milliseconds an image, after `epoch` steps."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    laps = [r for r in records if "data_wait" in r and r["step"] > epoch]
    seconds = [1 / r["images_per_second"] for r in laps]
    waited = sum(r["data_wait"] * s for r, s in zip(laps, seconds, strict=True))
    return {
        "waiting": round(waited / sum(seconds), 4),
        "ms_an_image": round(1000 * sum(seconds) / len(seconds), 3),
    }


def main(folder: str, count: int = COUNT, steps: int | None = None) -> None:
    """Writes the photographs unless they are there, trains for a few epochs, and prints the shares."""
    photos = Path(folder) / "photographs"
    if not photos.exists():
        write_photographs(photos, count)
    epoch = -(-count // 32)
    run = unmask.pretrain(
        str(photos),
        recipe="laptop",
        fit=(),
        out=str(Path(folder) / "run"),
        steps=steps or EPOCHS * epoch,
        warmup_steps=1,
        log_every=epoch,
        sample_every=10**6,
        checkpoint_every=10**6,
    )
    plan = json.loads((run / "plan.json").read_text())
    facts = {"images": count, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    kept = {"decoded_bytes": plan["facts"]["decoded_bytes"], "kept": plan["loading"]["keep_decoded"]}
    print(json.dumps({**facts, **kept, **waiting(run, epoch)}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
