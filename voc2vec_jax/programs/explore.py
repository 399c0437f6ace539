"""A folder of recordings, looked at: vectors, a map, a linear probe, copies, and a page to send to a colleague.

    voc2vec explore CLIPS                                   by the best model of the paper, into CLIPS_explored
    voc2vec explore CLIPS --model=runs/quickstart --output=explored
    voc2vec explore list.csv --model=voc2vec-ls --map=umap  a list: path,label[,group,start,end]

Folders are classes. The output holds explore.html (one file, with the clips that can be heard inside), vectors.parquet,
vectors.csv and copies.csv. Run again with the same output, it computes only what has changed.
"""

import pathlib

import ml_collections

from voc2vec_jax import errors, printable
from voc2vec_jax.datasets import audio_flags
from voc2vec_jax.explore import run as exploration
from voc2vec_jax.explore import settings as explore_settings
from voc2vec_jax.runs import cli, cpu_tuning, program, runtime

FLAGS = {
    "model": cli.Flag(
        "a system of the paper, a Hub id, a folder, a file or a run folder; opensmile", default="voc2vec-hubert-ls"
    ),
    "output": cli.Flag("folder for the results; by default the name of the clips with _explored"),
    "data_dir": cli.Flag("folder of prepared sets and features; by default `cache` in the output"),
    "max_seconds": cli.Flag("of each recording, from its start", default=30.0, kind=float),
    "folds": cli.Flag("of the linear probe", default=10, kind=int),
    "seed": cli.Flag("of the folds and the map", default=0, kind=int),
    "map": cli.Flag("how the map is drawn", default="tsne", choices=explore_settings.MAPS),
    "page_mb": cli.Flag("about the largest size of the page, by which clips get players", default=12.0, kind=float),
    **audio_flags.FLAGS,
}
WORDS = cli.Positional("CLIPS", "a folder of recordings with a folder for each class, a zip of one, or a list", most=1)


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    cpu_tuning.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec explore", positional=WORDS, about=__doc__)
    settings = settings_of(arguments)
    cpu_tuning.one_device_a_core()
    runtime.set_up_jax(ml_collections.ConfigDict({"deterministic": False, "matmul_precision": "highest"}))
    program.can_resume()
    printable.show(exploration.run(settings))
    return errors.EXIT_DONE


def settings_of(arguments: cli.Arguments) -> explore_settings.ExploreSettings:
    """What the command line asks for; InputError for a value that makes no sense."""
    clips = pathlib.Path(arguments.words[0])
    named = clips.resolve()
    output = pathlib.Path(arguments.output or f"{named.name if clips.is_dir() else named.stem}_explored")
    names = ("model", "max_seconds", "folds", "seed", "map", "page_mb")
    settings = explore_settings.ExploreSettings(
        clips=clips,
        output=output,
        data_dir=pathlib.Path(arguments.data_dir or output / explore_settings.CACHE),
        how=audio_flags.reading_of(arguments),
        **{name: getattr(arguments, name) for name in names},
    )
    settings.check()
    return settings
