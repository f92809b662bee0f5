"""A ViT-B/16 pre-training step here and in transformers: forward, backward, AdamW.

Both see the same images and noise in the same precision; rounds alternate. The last line is JSON.

    python benchmarks/step_against_transformers.py --batch 32 --precision fp32 --rounds 5
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from unmask.core import Architecture, MaskedAutoencoder


def steps(batch: int, precision: str) -> dict[str, Callable[[], None]]:
    """One training step of each library, ready to call."""
    torch.manual_seed(0)
    images, noise = torch.randn(batch, 3, 224, 224), torch.rand(batch, 196)
    ours = MaskedAutoencoder(
        Architecture(
            image_size=(224, 224), patch_size=(16, 16), channels=3, width=768, depth=12, heads=12
        )
    )
    theirs = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True, layer_norm_eps=1e-6)).train()

    def step(model: torch.nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = model(images, noise=noise).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return run

    return {"unmask": step(ours), "transformers": step(theirs)}


def main() -> None:
    """Prints the medians and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    runs = steps(asked.batch, asked.precision)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(asked.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["transformers"] / medians["unmask"]
    for name, median in medians.items():
        print(f"{name:<14} {median:.3f} s per step, {asked.batch / median:.2f} images/s")
    print(f"unmask is {ratio:.2f} times as fast")
    print(
        json.dumps(
            {**vars(asked), "threads": torch.get_num_threads(), "seconds": seconds, "ratio": ratio}
        )
    )


if __name__ == "__main__":
    main()
