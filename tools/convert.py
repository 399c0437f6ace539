"""Converts a checkpoint between PyTorch's layouts and ours.

    python tools/convert.py SRC DST [--to={jax,hf,fairseq}] [--verify=false]

SRC is a folder of transformers (safetensors or pytorch_model.bin), a fairseq .pt or a folder that this program wrote.
DST is a folder, or a .pt file for fairseq.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from voc2vec_jax import errors
from voc2vec_jax.convert import reader, verify, writer
from voc2vec_jax.runs import cli, program

WRITERS = {"jax": writer.write_jax, "hf": writer.write_hf, "fairseq": writer.write_fairseq}
FLAGS = {
    "to": cli.Flag("layout of DST; without it fairseq for a .pt file, else jax", choices=tuple(WRITERS)),
    "verify": cli.Flag("compare what SRC and DST compute, in a process of its own", default=True, kind=bool),
}
WORDS = cli.Positional("SRC DST", "what to convert, and the folder or file to write", least=2, most=2)


def main(argv: list[str]) -> int:
    """Converts, prints a summary, verifies."""
    arguments = cli.parse(argv, flags=FLAGS, program="python tools/convert.py", positional=WORDS)
    source, target = (Path(word) for word in arguments.words)
    layout = arguments.to or ("fairseq" if target.suffix == ".pt" else "jax")
    check_target(target)
    checkpoint = reader.read(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        dropped = WRITERS[layout](target, checkpoint)
    except OSError as fault:
        raise errors.InputError(f"{target} cannot be written: {fault.strerror or fault}") from fault
    print("\n".join(summary(checkpoint, source, target, layout, dropped)))
    if arguments.verify:
        print(verdict(verify.in_own_process(source, target), target))
    return errors.EXIT_DONE


def check_target(target: Path) -> None:
    """Nothing that is there already is written over."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise errors.InputError(f"{target} is there already; remove it or give another name")


def summary(
    checkpoint: reader.ModelWeights, source: Path, target: Path, layout: str, dropped: Mapping[str, str]
) -> list[str]:
    """What was converted and what was not, one fact a line."""
    silent = "the source is silent; yes, as transformers does by default"
    normalize = {True: "yes", False: "no", None: silent}[checkpoint.normalize]
    return [
        f"{source} ({checkpoint.source_format}) -> {target} ({layout})",
        f"family       {checkpoint.family}",
        f"parameters   {checkpoint.parameters:,} from {checkpoint.mapped} tensors",
        f"normalised   {normalize}",
        *([f"labels       {', '.join(checkpoint.labels)}"] if checkpoint.labels else []),
        *listed("unused", grouped(checkpoint.unused)),
        *listed("missing", [f"{name}: initialised afresh where it is needed" for name in checkpoint.missing]),
        *listed("left out", grouped(dropped)),
    ]


def listed(title: str, facts: Sequence[str]) -> list[str]:
    """Facts below each other beside one title."""
    return [f"{title if at == 0 else '':<12} {fact}" for at, fact in enumerate(facts or ["nothing"])]


def grouped(reasons: Mapping[str, str]) -> list[str]:
    """Names by reason, the first three of each."""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    shown = {reason: ", ".join(names[:3]) + ", ..." * (len(names) > 3) for reason, names in groups.items()}
    return [f"{len(groups[reason])} ({names}): {reason}" for reason, names in shown.items()]


def verdict(report: Mapping[str, object], target: Path) -> str:
    """One line of the verification. Raises RunError when the target is not the source's equal."""
    if report["differ"]:
        raise errors.RunError(f"{target} differs from its source in {', '.join(report['differ'][:3])}; do not use it")
    line = f"verified     {report['same']} parameters read back equal to the bit"
    if "unverified" in report:
        return f"{line}; outputs not compared: {report['unverified']}"
    if not report["difference"] <= verify.TOLERANCE * max(1.0, report["largest"]):
        raise errors.RunError(
            f"{target} computes something else than transformers: its hidden states differ by "
            f"{report['difference']:.1e}; do not use it"
        )
    return f"{line}; outputs within {report['difference']:.1e} of transformers' (values up to {report['largest']:.1f})"


if __name__ == "__main__":
    sys.exit(program.run(main))
