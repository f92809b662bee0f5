"""Memory and time of README's lines on many photographs, beside a loop written by hand.

python benchmarks/six_lines.py RUN FOLDER: RUN is a pre-training run; if FOLDER is missing or empty,
2,000 pictures of 500 x 375 are written there. Each part is a process of its own; memory is the peak
above what the process had after its imports, time that of its processor. The last line is JSON.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT, SIZE = 2000, (500, 375)
KIB, GIB = 2**10, 2**30


def make_photographs(folder: Path) -> None:
    """Smooth colours under noise, about 60 KB each as JPEG."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(COUNT):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), dtype=int)
        noisy = smooth + rng.integers(-20, 20, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:04d}.jpg", quality=90)


def readme(run: str, folder: str) -> None:
    """The lines after the training."""
    import unmask

    model = unmask.load(run)
    images, _, _ = unmask.read(folder, model)
    model.features(images, pool="mean").numpy()
    with tempfile.TemporaryDirectory() as out:
        unmask.reconstruct(folder, init=run, out=Path(out) / "pictures")


def by_hand(run: str, folder: str) -> None:
    """The features alone, as one writes it with Pillow and torchvision."""
    import torch
    from PIL import Image
    from torchvision.transforms import (
        CenterCrop,
        Compose,
        InterpolationMode,
        Normalize,
        Resize,
        ToTensor,
    )

    import unmask

    model = unmask.load(run)
    image, paths, features = model.description.image, sorted(Path(folder).iterdir()), []
    resize = Resize(image.size[0], InterpolationMode.BICUBIC)
    seen = Compose([resize, CenterCrop(image.size), ToTensor(), Normalize(image.mean, image.std)])
    with torch.inference_mode():
        for start in range(0, len(paths), 64):
            batch = [seen(Image.open(path).convert("RGB")) for path in paths[start : start + 64]]
            features.append(model.encoder(torch.stack(batch))[:, 1:].mean(dim=1))
    torch.cat(features).numpy()


def measured(part: str, run: str, folder: str) -> dict[str, float]:
    """Seconds of the processor, and GiB above the imports."""
    import torchvision.transforms  # noqa: F401  # so that both parts begin with the same imports

    import unmask.api  # noqa: F401  # as above

    page = resource.getpagesize()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * page
    began = time.process_time()
    {"readme": readme, "by_hand": by_hand}[part](run, folder)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    return {"seconds": round(seconds, 2), "gib": round((peak - before) / GIB, 3)}


def main(words: list[str]) -> None:
    """Each part three times in turn; the middle one of its times, and its largest memory."""
    if len(words) == 3:
        print(json.dumps(measured(*words)))
        return
    run, folder = words
    if not Path(folder).is_dir() or not any(Path(folder).iterdir()):
        make_photographs(Path(folder))
    parts: dict[str, list[dict[str, float]]] = {"readme": [], "by_hand": []}
    for _ in range(3):
        for part, found in parts.items():
            command = [sys.executable, __file__, part, run, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    record = {
        part: {
            "seconds": sorted(one["seconds"] for one in found)[1],
            "gib": max(one["gib"] for one in found),
        }
        for part, found in parts.items()
    }
    ratio = round(record["readme"]["seconds"] / record["by_hand"]["seconds"], 3)
    print(json.dumps({**record, "times_by_hand": ratio}))


if __name__ == "__main__":
    main(sys.argv[1:])
