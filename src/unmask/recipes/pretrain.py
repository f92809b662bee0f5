"""Pre-training recipes."""

from collections.abc import Callable
from dataclasses import replace

from unmask.config.commands import PretrainConfig, PretrainData
from unmask.config.settings import Autoencoder, ModelSize, Optim, Target


def vit_base_800() -> PretrainConfig:
    """ViT-B/16 on ImageNet-1K as in the paper's Table 8, 800 epochs, normalised pixels.

    Claim (the paper's schedule of Tables 1 and 2; not run here).
    Cost: 800 epochs of 1.28 million images at batch 4096; meant for 8 GPUs or more.
    Command: torchrun --nproc-per-node=8 -m unmask pretrain imagenet/train --recipe vit-base-800
    """
    return _paper("vit-base-800", "base", epochs=800)


def vit_base_1600() -> PretrainConfig:
    """ViT-B/16 on ImageNet-1K, 1600 epochs, normalised pixels (Table 3).

    Claim (the paper's, not run here): 83.6 % top-1 after fine-tuning.
    Cost: twice vit-base-800.
    Command: torchrun --nproc-per-node=8 -m unmask pretrain imagenet/train --recipe vit-base-1600
    """
    return _paper("vit-base-1600", "base", epochs=1600)


def vit_large_800() -> PretrainConfig:
    """ViT-L/16 on ImageNet-1K as in the paper's ablations, 800 epochs, normalised pixels.

    Claim (the paper's, not run here): 85.4 % top-1 after fine-tuning (Table 1d).
    Cost (the paper's): 15.4 hours on 128 TPU-v3 cores (Table 2).
    Command: torchrun --nproc-per-node=8 -m unmask pretrain imagenet/train --recipe vit-large-800
    """
    return _paper("vit-large-800", "large", epochs=800)


def vit_large_1600() -> PretrainConfig:
    """ViT-L/16 on ImageNet-1K, 1600 epochs, normalised pixels (Table 3).

    Claim (the paper's, not run here): 85.9 % top-1 after fine-tuning.
    Cost: twice vit-large-800.
    Command: torchrun --nproc-per-node=8 -m unmask pretrain imagenet/train --recipe vit-large-1600
    """
    return _paper("vit-large-1600", "large", epochs=1600)


def vit_huge_800() -> PretrainConfig:
    """ViT-H/14 on ImageNet-1K, 800 epochs, normalised pixels.

    Claim (the schedule of Table 2, whose models predict plain pixels; not run here).
    Cost (the paper's): 34.5 hours on 128 TPU-v3 cores (Table 2).
    Command: torchrun --nproc-per-node=8 -m unmask pretrain imagenet/train --recipe vit-huge-800
    """
    return _paper("vit-huge-800", "huge", epochs=800)


def vit_huge_1600() -> PretrainConfig:
    """ViT-H/14 on ImageNet-1K, 1600 epochs, normalised pixels (Table 3).

    Claim (the paper's, not run here): 86.9 % top-1 after fine-tuning, 87.8 % at 448 pixels.
    Cost: twice vit-huge-800.
    Command: torchrun --nproc-per-node=8 -m unmask pretrain imagenet/train --recipe vit-huge-1600
    """
    return _paper("vit-huge-1600", "huge", epochs=1600)


def small_images() -> PretrainConfig:
    """ViT-tiny with 2-pixel patches for images of 32 pixels, such as CIFAR-10.

    Claim (others' result at this size, not run here): CIFAR-10, 89.8 % after fine-tuning against
    74.1 % from scratch.
    Cost: 2000 epochs of 50,000 images; meant for one GPU.
    Command: unmask pretrain cifar/train --recipe small-images
    """
    return PretrainConfig(
        recipe="small-images",
        data=PretrainData(size=(32,)),
        model=Autoencoder(size="tiny", patch=(2,), decoder_width=192, decoder_depth=4, decoder_heads=3),
        optim=Optim(epochs=2000, warmup_epochs=200, batch=4096),
    )


def laptop() -> PretrainConfig:
    """A small ViT for half an hour on a processor, fitted to any folder of images.

    Image size, patches, mask ratio and steps are what `unmask check` advises; what is below is for
    images that cannot be judged.
    Claim (measured here, benchmarks/reconstruction.md): on ELPV, with what is below, the held-out error
    on masked pixels is 0.25 of harmonic fill's.
    Cost: about half an hour, of the processor that it is started on.
    Command: unmask pretrain FOLDER --recipe laptop
    """
    return PretrainConfig(
        recipe="laptop",
        fit=("size", "patch", "steps"),
        data=PretrainData(size=(96,), crop_scale=(0.6, 1.0)),
        model=Autoencoder(
            size="tiny",
            patch=(8,),
            depth=6,
            decoder_width=96,
            decoder_depth=2,
            decoder_heads=2,
        ),
        target=Target(kind="pixels"),
        optim=Optim(steps=5000, warmup_steps=100, batch=32, base_lr=12e-3),
    )


def tiny_images() -> PretrainConfig:
    """A small ViT with 7-pixel patches for images of 28 pixels, such as Fashion-MNIST, on a processor.

    Claim (measured here, benchmarks/classification.md): on Fashion-MNIST with 600 labels a linear probe
    of the mean over patches reaches 79.6 % and of all patches 82.2 %, a random encoder's 63.3 % and
    78.0 %, raw pixels' 78.0 %; tiny-images-finetune says the rest.
    Cost: 1,792,000 samples whatever the number of images; 25 minutes on two processor cores.
    Command: unmask pretrain fashion-mnist --recipe tiny-images
    """
    return PretrainConfig(
        recipe="tiny-images",
        data=PretrainData(size=(28,), crop_scale=(0.6, 1.0)),
        model=Autoencoder(
            size="tiny",
            patch=(7,),
            width=160,
            depth=3,
            heads=4,
            decoder_width=64,
            decoder_depth=1,
            decoder_heads=2,
        ),
        optim=Optim(steps=14_000, warmup_steps=700, batch=128, base_lr=2.8e-3),
    )


def digits() -> PretrainConfig:
    """tiny-images for handwritten digits: pixels as the target, and no flips, which make other digits.

    Claim (measured here, benchmarks/classification.md): after 1,500 of its steps
    fine-tuning with 100 labels reaches 88.7 %, a linear probe of all patches 83.3 %, of pixels 74.2 %.
    Cost: 384,000 samples; under three minutes on one processor core.
    Command: unmask pretrain digits:train --recipe digits
    """
    tiny = tiny_images()
    return replace(
        tiny,
        recipe="digits",
        data=replace(tiny.data, flip=False),
        target=Target(kind="pixels"),
        optim=replace(tiny.optim, steps=3000, warmup_steps=150),
    )


def quickstart() -> PretrainConfig:
    """The smallest run that reconstructs recognisable solar cells: four minutes on two cores.

    Claim (measured here, benchmarks/reconstruction.md): on ELPV the held-out error on masked pixels
    is 0.58 of harmonic fill's.
    Cost: 35,200 samples.
    Command: unmask quickstart --data elpv
    """
    small = laptop()
    return replace(
        small,
        recipe="quickstart",
        fit=(),
        model=replace(
            small.model, width=128, depth=4, heads=2, decoder_width=64, decoder_depth=2, decoder_heads=1
        ),
        optim=replace(small.optim, steps=2200, warmup_steps=60, batch=16, base_lr=24e-3),
    )


def _paper(name: str, size: ModelSize, epochs: int) -> PretrainConfig:
    return PretrainConfig(
        recipe=name, model=Autoencoder(size=size), optim=Optim(epochs=epochs, warmup_epochs=40)
    )


PRETRAIN: dict[str, Callable[[], PretrainConfig]] = {
    "vit-base-800": vit_base_800,
    "vit-base-1600": vit_base_1600,
    "vit-large-800": vit_large_800,
    "vit-large-1600": vit_large_1600,
    "vit-huge-800": vit_huge_800,
    "vit-huge-1600": vit_huge_1600,
    "small-images": small_images,
    "laptop": laptop,
    "tiny-images": tiny_images,
    "digits": digits,
    "quickstart": quickstart,
}
