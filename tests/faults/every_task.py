"""A short run of every training task, for the tests that stop it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import unmask
from tasks.test_detect import tiny_detector
from tasks.test_detect import write_scenes as write_objects
from tasks.test_segment import tiny_segmenter
from tasks.test_segment import write_scenes as write_maps
from unmask.config.commands import FinetuneConfig, PretrainConfig, ProbeConfig, ScratchConfig
from unmask.config.settings import PlainRun
from unmask.config.tokenizer import TokenizerConfig, TokenizerData, TokenizerModel

TASKS = {"pretrain": 40, "tokenizer": 30, "finetune": 20, "partial": 20, "probe": 20, "scratch": 20,
         "detect": 12, "segment": 12}  # fmt: skip
"""The training tasks, and steps that take some seconds; `partial` is finetune with --tune-blocks 1."""


class EveryTask:
    """Configurations with everything random switched on, of runs in micro-batches."""

    def __init__(self, tiny: PretrainConfig, scratch: ScratchConfig, folder: Path):
        """Their data, and the encoder that some start from, are written to `folder`."""
        self.tiny, self.like, self.folder = tiny, scratch, folder

    def run_of(self, task: str, steps: int) -> tuple[Callable[[Any], Path], Any]:
        """What runs a task, and its configuration."""
        config = getattr(self, task)()
        command = getattr(unmask, "finetune" if task == "partial" else task)
        return command, replace(config, optim=replace(config.optim, steps=steps))

    def pretrain(self) -> PretrainConfig:
        return replace(self.tiny, optim=replace(self.tiny.optim, ema=0.9))

    def tokenizer(self) -> TokenizerConfig:
        return TokenizerConfig(
            data=TokenizerData(source=self.tiny.data.source, size=(16, 24), held_out=4),
            model=TokenizerModel(vocabulary=16, downsampling=4, width=8, blocks=1),
            optim=self.pretrain().optim,
            run=PlainRun(precision="fp32", log_every=2, evaluate_every=3, sample_every=7),
        )

    def finetune(self) -> FinetuneConfig:
        return FinetuneConfig(
            init=self.encoder(), head=self.like.head, optim=self.like.optim, **self.labelled()
        )

    def partial(self) -> FinetuneConfig:
        finetune = self.finetune()
        return replace(finetune, head=replace(finetune.head, tune_blocks=1))

    def probe(self) -> ProbeConfig:
        probe = ProbeConfig(init=self.encoder(), **self.labelled())
        return replace(probe, optim=replace(probe.optim, warmup_steps=2, batch=8, micro_batch=6))

    def scratch(self) -> ScratchConfig:
        return self.like

    def detect(self) -> Any:
        return tiny_detector(
            write_objects(self.folder / "objects", {"train": 14, "val": 4}), self.folder
        )

    def segment(self) -> Any:
        return tiny_segmenter(write_maps(self.folder / "maps"), self.folder)

    def encoder(self) -> str:
        return str(unmask.pretrain(replace(self.tiny, out=str(self.folder / "init"))))

    def labelled(self) -> dict[str, Any]:
        return {"data": self.like.data, "augment": self.like.augment, "run": self.like.run}
