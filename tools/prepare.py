"""Prepares data sets: decodes what a user downloaded, once, into records that training reads.

    python tools/prepare.py human_voice donateacry --manual_dir=DOWNLOADS --data_dir=DATA
    python tools/prepare.py folder --manual_dir=MY_RECORDINGS --data_dir=DATA --name=mine

Run again it keeps what is there and goes on where it was stopped.
"""

import sys

from voc2vec_jax import cli, datasets, errors
from voc2vec_jax.datasets import records

FLAGS = {
    "manual_dir": cli.Flag("folder with the downloaded archives or unpacked folders; or one archive, folder, manifest"),
    "data_dir": cli.Flag("folder that gets the prepared sets", required=True),
    "workers": cli.Flag("processes that decode, 0 for one per core", default=0, kind=int),
    "name": cli.Flag("name of the prepared set, where it shall differ"),
    "clips": cli.Flag("number of synthetic clips", kind=int),
    "seed": cli.Flag("seed of the synthetic clips", kind=int),
}
SETS = cli.Positional("DATASET", f"any of {', '.join(datasets.CATALOG)}")
SHOWN_UNREADABLE = 100


def main(argv: list[str]) -> int:
    arguments = cli.parse(argv, flags=FLAGS, program="python tools/prepare.py", positional=SETS)
    _check(arguments)
    prepared, faults = [], []
    for name in dict.fromkeys(arguments.words):
        try:
            prepared.append(_prepare(name, arguments))
        except errors.InputError as error:
            faults.append(f"{name}: {error}")
    if prepared:
        print("\n".join([table(prepared), *remarks(prepared)]))
    if faults:
        raise errors.InputError("; ".join(faults))
    return errors.EXIT_DONE


def _check(arguments: cli.Arguments) -> None:
    for name in arguments.words:
        datasets.source(name)
    if arguments.workers < 0:
        raise errors.InputError(f"--workers={arguments.workers} is negative: give 0 for one per core")
    if arguments.name and len(set(arguments.words)) > 1:
        raise errors.InputError(f"--name={arguments.name} names one prepared set, {len(arguments.words)} are asked for")
    for flag in ("clips", "seed"):
        if arguments.values[flag] is not None and "synthetic" not in arguments.words:
            raise errors.InputError(f"--{flag} is for the set synthetic, which is not asked for")


def _prepare(name: str, arguments: cli.Arguments) -> records.PreparedSet:
    options = {flag: arguments.values[flag] for flag in ("clips", "seed") if name == "synthetic"}
    return datasets.prepare(
        name,
        data_dir=arguments.data_dir,
        manual_dir=arguments.manual_dir,
        workers=arguments.workers or None,
        name=arguments.name,
        **{flag: value for flag, value in options.items() if value is not None},
    )


def table(prepared: list[records.PreparedSet]) -> str:
    """Files, hours and mean seconds per set, the paper's numbers beside them where there are any."""
    rows = [("set", "files", "records", "hours", "mean s", "paper files", "paper hours", "clipped", "unreadable")]
    for each in prepared:
        report = each.report
        rows.append(
            (
                each.name,
                f"{report['files']}",
                f"{report['records']}",
                f"{report['hours']:.3f}",
                f"{report['mean_seconds']:.2f}",
                _known(report["paper_samples"]),
                _known(report["paper_hours"]),
                f"{report['clipped_samples']}",
                f"{len(report['unreadable'])}",
            )
        )
    return datasets.format_table(rows)


def remarks(prepared: list[records.PreparedSet]) -> list[str]:
    """Warnings, notes, clipped samples and unreadable files, one line each."""
    lines = []
    for each in prepared:
        report, unreadable = each.report, each.report["unreadable"]
        lines += [f"{each.name}: warning: {text}" for text in report["warnings"]]
        lines += [f"{each.name}: {text}" for text in report["notes"]]
        if report["clipped_samples"]:
            lines.append(
                f"{each.name}: {report['clipped_samples']} samples of {len(report['clipped_files'])} files were clipped"
            )
        lines += [f"{each.name}: left out {bad['path']}: {bad['reason']}" for bad in unreadable[:SHOWN_UNREADABLE]]
        if len(unreadable) > SHOWN_UNREADABLE:
            rest = len(unreadable) - SHOWN_UNREADABLE
            lines.append(f"{each.name}: left out {rest} more, listed in {each.folder / records.REPORT_FILE}")
    return lines


def _known(number: float | None) -> str:
    return "-" if number is None else f"{number}"


if __name__ == "__main__":
    sys.exit(cli.run(main))
