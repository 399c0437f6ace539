"""What is installed, which devices JAX sees, what is missing, and the command that mends it.

voc2vec doctor
"""

import os
import pathlib

from voc2vec_jax import errors, printable
from voc2vec_jax.runs import cli, extras, installation, recipes, runtime, versions

# What an extra is for; one that is not named here is for those who work on this package
_PURPOSES = {
    "cuda12": "NVIDIA GPUs, drivers for CUDA 12",
    "cuda13": "NVIDIA GPUs, drivers for CUDA 13",
    "tpu": "TPUs",
    "hub": "models by Hub id or name (voc2vec-ls), voc2vec verify and publish",
    "opensmile": "the system opensmile",
    "onnx": "voc2vec export",
    "torch": "voc2vec convert and verify, which compare outputs with transformers",
    "demo": "voc2vec demo",
    "frame": "results as pandas frames",
    "umap": "maps by UMAP",
    "tensorboard": "--config.tensorboard=true",
    "wandb": "--config.wandb=true",
    "plan-tpu": "--dry_run --device of a TPU",
    "plan-cuda": "--dry_run --device of a GPU",
}
_WIDTH = 13


def main(argv: list[str]) -> int:
    """Print what is found; status 1 if something does not work."""
    cli.parse(argv, flags={}, program="voc2vec doctor", about=__doc__)
    remedies: list[str] = []
    for section in (_package, _jax, _extras):
        printable.show("\n".join(section(remedies)) + "\n", flush=True)
    if remedies:
        printable.show("To mend:\n" + "\n".join(f"  {remedy}" for remedy in remedies))
        return errors.EXIT_FAULT
    printable.show("Nothing is broken.")
    return errors.EXIT_DONE


def _row(name: str, text: str) -> str:
    return f"{name:<{_WIDTH}} {text}"


def _package(remedies: list[str]) -> list[str]:
    """This package, its requirements and recipes."""
    needed = installation.needed(installation.requirements()[""])
    bad = [each for each in needed if not each.fits]
    if bad:
        remedies.append(f"{extras.reinstall()}    ({', '.join(map(str, bad))})")
    met = f"{len(needed) - len(bad)} of {len(needed)} packages" + "".join(f"; {each}" for each in bad)
    return [
        _row("voc2vec_jax", f"{versions.own()} in {pathlib.Path(__file__).parents[1]}"),
        _row("Python", installation.machine()),
        _row("needed", met),
        _row("recipes", f"{', '.join(recipes.names())} in {recipes.folder()}"),
        _row("audio", "; ".join(installation.audio_libraries()) or "no decoder"),
    ]


def _jax(remedies: list[str]) -> list[str]:
    """JAX, its devices, and hardware that it does not use."""
    found, fault = installation.devices()
    if fault:
        remedies.append(fault)
    counted = [f"{found.count(each)} x {each[1]} ({each[0]})" for each in dict.fromkeys(found)]
    asked = os.environ.get("JAX_PLATFORMS")
    lines = [
        _row("JAX", f"{versions.installed('jax')}, jaxlib {versions.installed('jaxlib')}"),
        _row("devices", fault or ", ".join(counted) + (f" (JAX_PLATFORMS={asked})" if asked else "")),
        _row("cache", f"{runtime.cache_folder()} (compiled programs)"),
    ]
    platforms = {platform for platform, _ in found}
    gpus, cuda = installation.nvidia()
    if gpus and "gpu" not in platforms and not asked:
        extra = "cuda13" if cuda.startswith("13") else "cuda12"
        remedies.append(f"{extras.command(extra)}    (JAX does not use this machine's GPU)")
    elif installation.tpu_chips() and "tpu" not in platforms and not asked:
        remedies.append(f"{extras.command('tpu')}    (JAX does not use this machine's TPU)")
    driver = f"{', '.join(gpus)}; driver for CUDA {cuda}" if gpus else "no NVIDIA GPU or driver on this machine"
    chips = installation.tpu_chips()
    return [*lines, _row("GPUs", driver), _row("TPUs", f"{chips} chips" if chips else "no TPU on this machine")]


def _extras(remedies: list[str]) -> list[str]:
    """What each extra needs and what it is for."""
    lines = ["Extras, to be installed as you need them:"]
    for extra, wanted in installation.requirements().items():
        if extra not in _PURPOSES:
            continue
        needed = installation.needed(wanted)
        bad = [each for each in needed if not each.fits]
        there = [f"{each.package} {each.version}" for each in needed if each.fits and each.package != "jax"]
        state, more = ("missing", extras.command(extra)) if bad else ("there", ", ".join(there))
        lines.append(f"  {extra:<{_WIDTH - 2}} {state:<8} {_PURPOSES[extra]}: {more}")
    return lines
