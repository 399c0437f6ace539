"""Converts a checkpoint between PyTorch's layouts and ours.

    voc2vec convert SRC DST [--to={jax,hf,fairseq}] [--verify=false] [--allow_nonfinite]

SRC is a folder or file of weights of transformers, Lightning, fairseq, s3prl or FunASR, a run folder, a name on the Hub
or a system of the paper. DST is a new folder, or a new .pt file for fairseq.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import reader, sources, verify, writer
from voc2vec_jax.runs import cli

WRITERS = {"jax": writer.write_jax, "hf": writer.write_hf, "fairseq": writer.write_fairseq}
FLAGS = {
    "to": cli.Flag("layout of DST (default: fairseq if DST ends in .pt, else jax)", choices=tuple(WRITERS)),
    "allow_nonfinite": cli.Flag("take weights with NaN or infinity, to look at them", default=False, kind=bool),
    "verify": cli.Flag("check in a separate process that SRC and DST compute the same", default=True, kind=bool),
}
WORDS = cli.Positional("SRC DST", "the model to convert; the folder or file to write", least=2, most=2)


def main(argv: list[str]) -> int:
    """Converts, prints a summary, verifies."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec convert", positional=WORDS, about=__doc__)
    source, target = (Path(word) for word in arguments.words)
    layout = arguments.to or ("fairseq" if target.suffix == ".pt" else "jax")
    check_target(target)
    weights = sources.read(source, allow_nonfinite=arguments.allow_nonfinite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        dropped = WRITERS[layout](target, weights)
    except OSError as fault:
        raise errors.InputError(f"{target} cannot be written: {fault.strerror or fault}") from fault
    printable.show("\n".join(map(printable.line, summary(weights, source, target, layout, dropped))))
    if arguments.verify and not arguments.allow_nonfinite:  # NaN equals nothing
        printable.show(verdict(verify.in_own_process(source, target), target))
    return errors.EXIT_DONE


def check_target(target: Path) -> None:
    """Raises InputError rather than overwrite anything."""
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise errors.InputError(f"{target} already exists; remove it or choose another name")


def summary(
    weights: reader.ModelWeights, source: Path, target: Path, layout: str, dropped: Mapping[str, str]
) -> list[str]:
    """What was converted and what was not, one fact per line."""
    silent = "the source does not say; yes, transformers' default"
    normalize = {True: "yes", False: "no", None: silent}[weights.normalize]
    return [
        f"{source} ({weights.source_format}) -> {target} ({layout})",
        f"family       {weights.family}",
        f"parameters   {weights.parameters:,} from {weights.mapped} tensors",
        f"normalised   {normalize}",
        *([f"labels       {printable.name(', '.join(weights.labels), 300)}"] if weights.labels else []),
        *listed("unused", grouped(weights.unused)),
        *listed("missing", [f"{name}: initialised anew where needed" for name in weights.missing]),
        *listed("left out", grouped(dropped)),
    ]


def listed(title: str, facts: Sequence[str]) -> list[str]:
    """One title with its facts below each other."""
    return [f"{title if at == 0 else '':<12} {fact}" for at, fact in enumerate(facts or ["nothing"])]


def grouped(reasons: Mapping[str, str]) -> list[str]:
    """One line per reason, with its first three names."""
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    shown = {
        reason: ", ".join(map(printable.name, names[:3])) + ", ..." * (len(names) > 3)
        for reason, names in groups.items()
    }
    return [f"{len(groups[reason])} ({names}): {reason}" for reason, names in shown.items()]


def verdict(report: Mapping[str, object], target: Path) -> str:
    """One line on the verification. Raises RunError if the target is not equal to the source."""
    if report["differ"]:
        raise errors.RunError(f"{target} differs from its source in {', '.join(report['differ'][:3])}; do not use it")
    line = f"verified     {report['same']} parameters read back equal to the bit"
    if "unverified" in report:
        return f"{line}; outputs not compared: {report['unverified']}"
    if not verify.within(report["difference"], report["largest"]):
        raise errors.RunError(
            f"{target} does not compute what transformers computes: hidden states differ by "
            f"{report['difference']:.1e}; do not use it"
        )
    return f"{line}; outputs within {report['difference']:.1e} of transformers' (values up to {report['largest']:.1f})"
