"""What a benchmark is asked for."""

from dataclasses import dataclass

from unmask.config.fields import setting
from unmask.config.settings import Device, Precision


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure, and how."""

    model: tuple[str, ...] = ()
    """Recipes' names, sizes (tiny, small, base, large, huge) or small-step. Default: by benchmark."""
    batch: int | None = setting(None, least=1)
    """Images per step. Default: 64 of small-step, else 32."""
    precision: Precision = "auto"
    """Arithmetic of the matrix multiplications; auto takes bf16 if the processor has it."""
    device: Device = "auto"
    """Where to compute. Default: a GPU if there is one."""
    threads: int | None = setting(None, least=1)
    """Threads of the processor. Default: torch's choice."""
    compile: bool = False
    """Compile the models with torch.compile."""
    rounds: int = setting(5, least=1)
    """Each variant is measured once a round, one after another; medians are shown."""
    images: tuple[str, ...] = ()
    """Folders of your own images to read in the data benchmark, instead of those that it makes."""
