"""Converts weights of timm's networks for this package, and back.

    python -m plankton_jax.convert --model swin_s3_base_224 --out swin.safetensors \\
        --checkpoint timm/swin_s3_base_224.ms_in1k
    python -m plankton_jax.convert --model deit_tiny_patch16_224 --checkpoint trained.pth \\
        --out deit.safetensors
    python -m plankton_jax.convert --model deit_tiny_patch16_224 --checkpoint deit.safetensors \\
        --out for_timm.safetensors --to timm

A checkpoint is a .safetensors file in timm's names or converted before, a PyTorch file (needs
torch), a repository on the Hugging Face hub, or NAME.TAG of public weights. The output is a
safetensors file with the weights' provenance and licence in its metadata.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

from plankton_jax.command import command_parser, run_command
from plankton_jax.config import ModelConfig
from plankton_jax.errors import UserError, near_miss, raise_all
from plankton_jax.names import BACKBONES
from plankton_jax.pretrained import PRETRAINED


def main(arguments: list[str]) -> int:
    """Reads the arguments, converts, and says what was written and under which licence."""
    parser = command_parser("plankton_jax.convert", __doc__ or "")
    parser.add_argument("--model", required=True, help="a name of plankton_jax.models")
    parser.add_argument("--checkpoint", required=True, help="FILE, OWNER/NAME on the hub, NAME.TAG")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="X.safetensors")
    parser.add_argument(
        "--to",
        default="plankton_jax",
        choices=("plankton_jax", "timm"),
        help="whose names the output has; timm's load with strict=True",
    )
    parser.add_argument("--tag", default="", help="the public weights that FILE holds: NAME.TAG")
    parser.add_argument("--without-head", action="store_true", help="leave the head out")
    parser.add_argument("--image-size", type=int, help="side of the input; default: the source's")
    parser.add_argument(
        "--in-channels", type=int, choices=(1, 3), help="default: the source's; 1 adds up three"
    )
    parser.add_argument(
        "--cache", default=ModelConfig().weights_cache, help="folder of downloaded weights"
    )
    options = parser.parse_args(arguments)
    raise_all(_problems(options))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed
    from plankton_jax import models, weights

    def notify(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    architecture = models.get_info(options.model)
    source = weights.open_source(
        options.checkpoint,
        options.cache,
        architecture=architecture,
        tag=options.tag,
        notify=notify,
    )
    with _naming_arguments():
        converted = weights.convert(
            source,
            architecture,
            with_head=not options.without_head,
            image_size=options.image_size,
            in_channels=options.in_channels,
            notify=notify,
        )
    weights.save(options.out, converted, to=options.to)
    info = converted.info
    head = f"{info.num_classes} classes" if info.num_classes else "no head"
    print(
        f"wrote {options.out}: {info.model}, {head}, {info.image_size} pixels, "
        f"{info.in_channels} channels, names of {options.to}"
    )
    print(f"from {info.provenance.source} (sha256 {info.provenance.sha256})")
    print(info.provenance.licence_sentence)
    return 0


@contextlib.contextmanager
def _naming_arguments() -> Iterator[None]:
    """Messages about a run's settings are about this command's arguments."""
    try:
        yield
    except UserError as error:
        setting = "config.data.image_size:"
        told = [problem.replace(setting, "--image-size:") for problem in error.problems]
        raise UserError(*told) from error


def _problems(options) -> list[str]:
    """What is wrong with the arguments taken alone."""
    problems = []
    if options.model not in BACKBONES:
        problems.append(f'--model: found "{options.model}". {near_miss(options.model, BACKBONES)}')
    if not options.checkpoint:
        problems.append(
            "--checkpoint: found nothing; allowed: a file, OWNER/NAME on the hub, or NAME.TAG."
        )
    if options.tag and options.tag not in PRETRAINED:
        problems.append(f'--tag: found "{options.tag}". {near_miss(options.tag, PRETRAINED)}')
    if options.out.suffix != ".safetensors" or options.out.is_dir():
        problems.append(f"--out: found {options.out}; allowed: a file that ends in .safetensors.")
    if options.out.exists() and options.out.resolve() == pathlib.Path(options.checkpoint).resolve():
        problems.append(f"--out: found {options.out}, which is the source; allowed: another file.")
    if options.image_size is not None and options.image_size < 1:
        problems.append(f"--image-size: found {options.image_size}; allowed: 1 or more.")
    return problems


if __name__ == "__main__":
    run_command(main)
