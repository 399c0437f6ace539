"""Prepares data sets: decodes downloaded recordings once, into the records that training reads.

    voc2vec prepare voc125 tasks --manual_dir=DOWNLOADS --data_dir=DATA
    voc2vec prepare folder --manual_dir=MY_RECORDINGS --data_dir=DATA --name=mine
    voc2vec prepare vocalsound --manual_dir=DOWNLOADS --data_dir=DATA --shard=1/4    (and 2/4, 3/4, 4/4)
    voc2vec prepare stats --data_dir=DATA                   tables I and II: the paper's numbers and ours
    voc2vec prepare duplicates [SET...] --data_dir=DATA     sounds that occur twice

`voc125` stands for the ten pre-training sets, `tasks` for the six tasks. A rerun keeps finished sets and resumes the
others. A set that is not in --manual_dir is downloaded if it has a plain public link. voc2vec_jax/datasets/README.md
lists the sets and the folders that they need.
"""

import pathlib
import re

from voc2vec_jax import audio, datasets, errors, printable
from voc2vec_jax.datasets import audio_flags, catalog, duplicates, listings, records, stats
from voc2vec_jax.runs import cli, program

FLAGS = {
    "manual_dir": cli.Flag("folder of archives or unpacked folders; or one archive, folder, manifest or label file"),
    "data_dir": cli.Flag("folder for the prepared sets", required=True, shown="FOLDER"),
    "workers": cli.Flag("decoding processes; 0: one per core", default=0, kind=int),
    "shard": cli.Flag("i/n: make the i-th of n parts, on n machines that share --data_dir"),
    "download": cli.Flag("download missing sets that have a plain public link", default=True, kind=bool),
    "name": cli.Flag("name of the prepared set, if not the usual one"),
    "renew": cli.Flag("a set that is there of other recordings, or of files that changed, is prepared anew", kind=bool),
    **audio_flags.FLAGS,
    "clips": cli.Flag("number of synthetic clips", kind=int),
    "seed": cli.Flag("seed of the synthetic clips", kind=int),
    "audioset_labels": cli.Flag("AudioSet labels to take instead of the usual ones: ids or names, separated by ;"),
    "audioset_borderline": cli.Flag("also take AudioSet's borderline vocalizations", kind=bool),
    "output": cli.Flag("csv file for the pairs of duplicates (default: duplicates.csv in --data_dir)"),
}
ALIASES = {"voc125": catalog.PRETRAINING, "tasks": catalog.TASKS}
COMMANDS = ("stats", "duplicates")
SETS = cli.Positional("DATASET", f"any of {', '.join((*ALIASES, *COMMANDS, *datasets.CATALOG))}")
OF_SET = {"clips": "synthetic", "seed": "synthetic"}
OF_SET.update(audioset_labels="audioset_vocalization", audioset_borderline="audioset_vocalization")
SHOWN_UNREADABLE = 100
SHOWN_PAIRS = 20


def main(argv: list[str]) -> int:
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec prepare", positional=SETS, about=__doc__)
    command, names = arguments.words[0], _names(arguments.words)
    _check(arguments, names)
    if command == "stats":
        show_stats(arguments.data_dir)
    elif command == "duplicates":
        show_duplicates(arguments, names)
    else:
        program.can_resume()
        _prepare_all(names, arguments)
    return errors.EXIT_DONE


def _names(words: tuple[str, ...]) -> list[str]:
    """The named sets, each once, with aliases expanded."""
    sets = words[1:] if words[0] in COMMANDS else words
    return list(dict.fromkeys(name for word in sets for name in ALIASES.get(word, (word,))))


def _check(arguments: cli.Arguments, names: list[str]) -> None:
    if arguments.words[0] != "duplicates":
        for name in names:
            datasets.source(name)
    if arguments.words[0] == "stats" and names:
        raise errors.InputError(f"stats shows every set of --data_dir: drop {', '.join(names)}")
    if arguments.workers < 0:
        raise errors.InputError(f"--workers={arguments.workers} is negative: give 0 for one per core")
    if arguments.name and len(names) > 1:
        raise errors.InputError(f"--name={arguments.name} names one prepared set, {len(names)} are asked for")
    for flag, name in OF_SET.items():
        if arguments.values[flag] is not None and name not in names:
            raise errors.InputError(f"--{flag} is for the set {name}, which is not asked for")
    if _part(arguments.shard) and arguments.renew:
        raise errors.InputError("--renew prepares a whole set anew: leave --shard out, or choose another --name")


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch("([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise errors.InputError(f"--shard={text} is not i/n with i from 1 to n: give 1/4 to 4/4 to four machines")
    return int(match[1]), int(match[2])


def _prepare_all(names: list[str], arguments: cli.Arguments) -> None:
    """Prepares the sets that are there; then one `errors.InputError` for the others."""
    prepared, faults, unfinished = [], {}, []
    for name in names:
        try:
            made = _prepare(name, arguments)
        except errors.InputError as error:
            faults[name] = str(error)
        else:
            (prepared.append(made) if made else unfinished.append(name))
    if prepared:
        printable.show("\n".join([table(prepared), *map(printable.line, remarks(prepared))]))
    for name in unfinished:
        printable.show(f"{name}: part {arguments.shard} is made; the machine that makes the last part finishes the set")
    if len(faults) > 1:
        printable.show("\n".join(printable.line(f"{name}: {fault}") for name, fault in faults.items()))
        raise errors.InputError(f"{len(faults)} of {len(names)} sets are not prepared: {', '.join(faults)}")
    for name, fault in faults.items():
        raise errors.InputError(f"{name}: {fault}")


def _prepare(name: str, arguments: cli.Arguments) -> records.PreparedSet | None:
    options = {flag.removeprefix("audioset_"): arguments.values[flag] for flag, of in OF_SET.items() if of == name}
    if options.get("labels") is not None:
        options["labels"] = [label.strip() for label in options["labels"].split(";")]
    return datasets.prepare(
        name,
        data_dir=arguments.data_dir,
        manual_dir=arguments.manual_dir,
        download=arguments.download,
        workers=arguments.workers or None,
        how=audio_flags.reading_of(arguments),
        name=arguments.name,
        replace=bool(arguments.renew),
        part=_part(arguments.shard),
        **{option: value for option, value in options.items() if value is not None},
    )


def show_stats(data_dir: str) -> None:
    """Prints tables I and II, then what is known of each difference."""
    for title, rows in stats.tables(data_dir):
        printable.show(f"{title}\n{datasets.format_table(rows)}\n")
    printable.show("\n".join(stats.differences(data_dir)))


def show_duplicates(arguments: cli.Arguments, names: list[str]) -> None:
    """Prints the number of pairs for each two sets and the first pairs, and writes all pairs to a csv file."""
    names = names or records.list_sets(arguments.data_dir)
    if not names:
        raise errors.InputError(f"{arguments.data_dir} holds no prepared set: prepare one first")
    output = pathlib.Path(arguments.output or pathlib.Path(arguments.data_dir, "duplicates.csv"))
    found = duplicates.find(arguments.data_dir, names, arguments.workers or None)
    duplicates.write(found, output)
    printable.show(datasets.format_table(duplicates.summary(found)))
    for pair in found[:SHOWN_PAIRS]:
        where = f"{pair.first_set} {pair.first} = {pair.second_set} {pair.second}"
        printable.show(f"{pair.kind} {pair.similarity:.3f}: {where}")
    printable.show(f"{len(found)} pairs in {', '.join(names)}: {output}")


def table(prepared: list[records.PreparedSet]) -> str:
    """Files, hours and mean seconds of each set, beside the paper's numbers where there are any."""
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
                f"{each.name}: clipped, {errors.counted(report['clipped_samples'], 'sample')} of "
                f"{errors.counted(len(report['clipped_files']), 'file')}"
            )
        odd = ((listings.shown(said["path"]), said["kind"], said["text"]) for said in report.get("remarks", ()))
        lines += [f"{each.name}: {text}" for text in audio.summary(odd)]
        for bad in unreadable[:SHOWN_UNREADABLE]:
            lines.append(f"{each.name}: left out {listings.shown(bad['path'])}: {bad['reason']}")
        if len(unreadable) > SHOWN_UNREADABLE:
            rest = len(unreadable) - SHOWN_UNREADABLE
            lines.append(f"{each.name}: left out {rest} more, listed in {each.folder / records.REPORT_FILE}")
    return lines


def _known(number: float | None) -> str:
    return "-" if number is None else f"{number}"
