"""Proves that published weights compute here what they compute elsewhere: in a table, and in verify.json.

    voc2vec verify                                 the systems of the paper and voc2vec-hubert-ls
    voc2vec verify voc2vec-ls wavlm ./mine         some, Hub ids, folders
    voc2vec verify --lock=verify/verify.json       the same commits, the same bytes

Each is fetched from the Hub (HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE and proxies as the Hub's own programs
take them), hashed, read without executing anything, and run on three synthesised recordings; every hidden state is
compared. A rerun fetches only what is missing. Status 0: something was checked and nothing differs or failed.
"""

import pathlib
from collections.abc import Sequence

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.runs import cli, cpu_tuning, files
from voc2vec_jax.verification import output, pins, rows, stored, systems

FLAGS = {
    "output": cli.Flag("folder of verify.json", default="verify", shown="FOLDER"),
    "against": cli.Flag(
        "what to compare with: transformers, stored numbers of it, numbers that others published, or auto: "
        "transformers where it is installed, else stored numbers",
        default="auto",
        choices=(*systems.AGAINST, "published"),
    ),
    "lock": cli.Flag("an earlier verify.json: take its commits, and refuse other bytes", shown="verify/verify.json"),
    "numbers": cli.Flag("stored numbers of your own instead of the packaged ones", shown="FILE.json"),
    "store": cli.Flag("write transformers' numbers of what is equal to this file", shown="FILE.json"),
    "recordings": cli.Flag("folder of the recordings that published numbers are of", shown="FOLDER"),
}
WORDS = cli.Positional("SYSTEM", "systems of the paper, Hub ids, folders; without any, all systems", least=0)


def main(argv: list[str]) -> int:
    """Check, write, print."""
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec verify", positional=WORDS, about=__doc__)
    files.check_folder(f"--output={arguments.output}", pathlib.Path(arguments.output))
    if arguments.store and arguments.against in ("stored", "published"):
        raise errors.InputError(f"--store keeps transformers' numbers: leave it or --against={arguments.against}")
    if arguments.numbers and arguments.against in ("transformers", "published"):
        raise errors.InputError(f"--numbers is what is compared with: leave it or --against={arguments.against}")
    lock = pins.of_lock(pathlib.Path(arguments.lock)) if arguments.lock else {}
    words = _words(arguments.words, lock, arguments.lock)
    if arguments.against == "published":
        found = _published(words, arguments, lock)
    else:
        found = _compared(words, arguments, lock)
    path = output.write(pathlib.Path(arguments.output), found, arguments.against)
    printable.show(output.table(found))
    printable.show(f"{path}: {output.summary(found)}")
    return output.status(found)


def _words(words: Sequence[str], lock: dict[str, pins.Pin], path: str | None) -> Sequence[str]:
    """What is checked: the words, else what a lock has, else all systems."""
    unknown = [word for word in words if lock and word not in lock]
    if unknown:
        raise errors.InputError(f"{path} has no {unknown[0]}, only {', '.join(lock)}: leave --lock or write a new one")
    if path and not lock:
        raise errors.InputError(f"{path} has no files of any system, so it locks nothing: write it again, online")
    return words or tuple(lock) or tuple(paper_systems.SYSTEMS)


def _compared(words: Sequence[str], arguments: cli.Arguments, lock: dict[str, pins.Pin]) -> list[rows.Row]:
    if arguments.recordings:
        raise errors.InputError("--recordings is for --against=published; other comparisons have their own recordings")
    numbers = stored.read(pathlib.Path(arguments.numbers) if arguments.numbers else stored.PACKAGED)
    how = systems.How(arguments.against, lock, numbers, {} if arguments.store else None)
    if arguments.store:
        target = pathlib.Path(arguments.store)
        if not target.parent.is_dir():
            raise errors.InputError(f"--store={target}: there is no folder {target.parent}; make it")
        files.check_folder(f"--store={target}", target.parent)
        before = stored.read(target) if target.exists() else {}
    found = systems.check(words, how)
    if arguments.store:
        stored.write(target, before | how.keep)
        printable.show(f"{target}: numbers of {', '.join(how.keep) or 'no system'}")
    return found


def _published(words: Sequence[str], arguments: cli.Arguments, lock: dict[str, pins.Pin]) -> list[rows.Row]:
    from voc2vec_jax.verification import published

    return published.rows(words, pathlib.Path(arguments.recordings) if arguments.recordings else None, lock)
