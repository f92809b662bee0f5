"""A prediction as a card, and beside it the paper's own hours."""

import math
from dataclasses import asdict
from typing import Any

from unmask.cost.cards import Card
from unmask.cost.count import TokenizerCost, count, decoder_share_per_token
from unmask.cost.paper import CORES, EPOCHS, TABLE_2
from unmask.cost.predict import DeviceMemory, Prediction
from unmask.units import GIB, data_size

_ON_SHARDING = "unmask's runs are replicated (DDP); the row for FSDP is what full sharding would take"
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


def prediction_cards(p: Prediction) -> list[Card]:
    """The prediction, and the paper's Table 2."""
    return [
        Card(title="A pre-training run, predicted", rows=_rows(p), notes=_notes(p), record=_record(p)),
        Card(
            title=f"The paper's Table 2: {EPOCHS} epochs on {CORES} TPU-v3 cores",
            columns=("", "hours", "faster", "utilisation that our FLOPs imply"),
            rows=[
                (
                    run.name,
                    f"{run.hours}{' (est.)' if run.estimated else ''}",
                    f"{run.speedup}x" if run.speedup else "-",
                    f"{run.utilisation():.0%}",
                )
                for run in TABLE_2
            ],
        ),
    ]


def _rows(p: Prediction) -> list[tuple[str, str]]:
    cost, t = count(p.model), p.plan.training
    activations, checkpointed = p.activation_bytes
    encoder = cost.encoder_flops / cost.flops
    memory = [("memory, DDP", _memory_row(p, p.replicated()))]
    if p.count > 1:
        memory.append(("memory, FSDP", _memory_row(p, p.sharded())))
    return [
        (
            "run",
            f"{t.steps:,} steps of {t.batch} images, {t.steps / t.steps_per_epoch:.4g} epochs of "
            f"{p.plan.facts.training_images:,}",
        ),
        ("devices", f"{p.count} x {p.device.name}, {data_size(p.device.memory_gib * GIB)}"),
        ("peak", f"{scaled(p.peak, 'FLOP/s')} in {t.precision} each ({p.device.source})"),
        (
            "parameters",
            f"{cost.parameters / 1e6:.1f} million: encoder {cost.encoder_parameters / 1e6:.1f}, "
            f"decoder {(cost.parameters - cost.encoder_parameters) / 1e6:.1f}",
        ),
        (
            "forward of an image",
            f"{scaled(cost.flops, 'FLOP')}: encoder {encoder:.0%}, decoder {1 - encoder:.0%}; "
            f"per token the decoder is {decoder_share_per_token(p.model):.0%} of the encoder",
        ),
        *([("tokenizer", _tokenizer_row(p.tokens))] if p.tokens else []),
        (
            "training",
            f"{scaled(cost.training_flops, 'FLOP')} an image, {scaled(p.total_flops, 'FLOP')} in all",
        ),
        (
            "time",
            f"{_number(p.hours)} hours at {p.utilisation:.0%} utilisation, "
            f"{_number(p.images_per_second)} images/s",
        ),
        (
            "loader",
            f"{p.loader_cores:,} cores in all, {p.loader_cores / p.count:.2g} a device, at "
            f"{p.sample_ms:.3g} ms of one core per sample",
        ),
        (
            "activations",
            f"{data_size(activations)} an image, {data_size(checkpointed)} checkpointed",
        ),
        *memory,
    ]


def _tokenizer_row(cost: TokenizerCost) -> str:
    return (
        f"{scaled(cost.encoder_flops, 'FLOP')} more for the tokens of an image, "
        f"{cost.parameters / 1e6:.1f} million parameters"
    )


def _memory_row(p: Prediction, memory: DeviceMemory) -> str:
    return (
        f"{data_size(memory.state)} a device before any image; beside it {memory.images_at_once} of "
        f"its {p.plan.training.process_batch} images fit at once, "
        f"{memory.images_at_once_checkpointed} checkpointed"
    )


def _notes(p: Prediction) -> list[str]:
    return [*_on_memory(p), *([_ON_SHARDING] if p.count > 1 else [])]


def _on_memory(p: Prediction) -> list[str]:
    memory, t = p.replicated(), p.plan.training
    checkpointed = t.activation_checkpointing
    fits = memory.images_at_once_checkpointed if checkpointed else memory.images_at_once
    if not memory.images_at_once_checkpointed:
        return ["under DDP no image fits: take larger devices, or a smaller model"]
    if not fits:
        return ["under DDP no image fits without --run.activation-checkpointing"]
    if fits < t.micro_batch:
        return [f"under DDP add --optim.micro-batch {fits}; the batch stays as it is"]
    return []


def _record(p: Prediction) -> dict[str, Any]:
    cost, t = count(p.model), p.plan.training
    activations, checkpointed = p.activation_bytes
    return {
        "plan": "pretrain",
        "devices": p.count,
        "device": asdict(p.device),
        "precision": t.precision,
        "steps": t.steps,
        "batch": t.batch,
        "parameters": cost.parameters,
        "encoder_parameters": cost.encoder_parameters,
        "forward_flops": cost.flops,
        "encoder_forward_flops": cost.encoder_flops,
        "training_flops": cost.training_flops,
        "tokenizer_forward_flops": p.tokens.encoder_flops if p.tokens else 0,
        "total_flops": p.total_flops,
        "decoder_share_per_token": decoder_share_per_token(p.model),
        "peak_flops_per_second": p.peak,
        "utilisation": p.utilisation,
        "hours": p.hours,
        "images_per_second": p.images_per_second,
        "decode_ms": p.decode_ms,
        "sample_ms": p.sample_ms,
        "loader_cores": p.loader_cores,
        "activation_bytes": activations,
        "activation_bytes_checkpointed": checkpointed,
        "ddp": asdict(p.replicated()),
        "fsdp": asdict(p.sharded()),
        "paper": [{**asdict(run), "utilisation": run.utilisation()} for run in TABLE_2],
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def scaled(value: float, unit: str) -> str:
    """1.2e9 as 1.2 G."""
    power = min(max(0, int(math.log10(max(value, 1))) // 3), len(PREFIXES) - 1)
    return f"{value / 1000**power:.3g} {PREFIXES[power]}{unit}"
