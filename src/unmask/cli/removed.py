"""Flags that are gone, and why: the error says what to write instead."""

VALIDATION = "it measures on validation images: --data.val or --data.val-share says which"
OF_INIT = "--init says what the encoder is"
OF_DECODER = "it has no decoder"
OF_MODEL = "the model says how it sees images: it is in its model.json"
OF_TRAINING = "nothing is trained, so it did nothing"
HEAD_ALONE = "the head alone is trained, so it did nothing; unmask finetune --tune-blocks K trains more"
OF_THE_RUN = "--split train takes the labels that the run was trained on"
OF_RECIPE = "check estimates a recipe's run; unmask pretrain DATA --dry-run takes every flag"
NO_DATA = "plan needs no data, and counts by arithmetic"
NO_RUN = "nothing runs; --devices says where it would"
RUNNING = (
    *("device", "seed", "compile", "keep-checkpoints"),
    *(f"{what}-every" for what in ("log", "evaluate", "sample", "checkpoint")),
)

DECODER = {f"model.decoder-{name}": OF_DECODER for name in ("width", "depth", "heads")}
OTHERS = {"data.held-out": VALIDATION, "data.other": "it draws no reconstructions"}
FROZEN = {
    **dict.fromkeys(("data.channels", "data.mean", "data.std"), OF_MODEL),
    **dict.fromkeys(
        ("data.crop-scale", "data.flip", "data.repeats", "data.resize-on-device"), OF_TRAINING
    ),
    **dict.fromkeys(("data.cache-gib", "data.balance"), OF_TRAINING),
    **OTHERS,
}

REMOVED: dict[str, dict[str, str]] = {
    "finetune": {**OTHERS, "model.": OF_INIT},
    "probe": {
        **OTHERS,
        "model.": OF_INIT,
        **dict.fromkeys(
            ("head.tune-blocks", "head.drop-path", "optim.layer-decay"),
            HEAD_ALONE,
        ),
    },
    "scratch": {
        **OTHERS,
        **DECODER,
        "init": "scratch starts from nothing: write unmask finetune to start from weights",
    },
    "knn": FROZEN,
    "evaluate": {
        **FROZEN,
        **dict.fromkeys(("data.fraction", "data.per-class", "data.subset-seed"), OF_THE_RUN),
    },
    "check": {
        **dict.fromkeys(("model.", "mask.", "target.", "optim.", "probe.", "run."), OF_RECIPE),
        **dict.fromkeys(
            ("data.crop-scale", "data.flip", "data.repeats", "data.resize-on-device"), OF_RECIPE
        ),
        **dict.fromkeys(("data.cache-gib", "data.held-out", "data.other", "init"), OF_RECIPE),
    },
    "tokenizer": {
        "run.activation-checkpointing": "it has no Transformer blocks, so it did nothing",
    },
    "plan": {
        **dict.fromkeys(("data.source", "data.root", "data.download", "init", "out"), NO_DATA),
        **dict.fromkeys(("data.workers", "data.cache-gib", "data.held-out", "data.other"), NO_DATA),
        **dict.fromkeys(("data.crop-scale", "data.flip", "data.resize-on-device"), NO_DATA),
        **dict.fromkeys(("data.mean", "data.std", "data.display"), NO_DATA),
        **dict.fromkeys(("data.max-bad-share", "data.max-megapixels", "probe."), NO_DATA),
        **{f"run.{name}": NO_RUN for name in RUNNING},
    },
}
"""By command; a name that ends in a full stop is a whole section."""
