"""Makes units, the targets of HuBERT's pre-training: the cluster of every frame of prepared records.

    voc2vec units mfcc100 --data_dir=DATA --sets=voc125                          first iteration
    voc2vec units layer6_500 --data_dir=DATA --sets=voc125 --model=RUN --layer=6 --clusters=500      second
    voc2vec units mfcc100 --data_dir=DATA --sets=nonverbal_vocalization         the same clusters, another set

A rerun keeps what is finished and goes on where it was stopped. At the end it prints how good the units are (cluster
use, and what they tell about labels where a set has some); report.json and report.png are in DATA/units/NAME.
"""

import os

from voc2vec_jax import datasets, errors, printable
from voc2vec_jax.datasets import catalog, records
from voc2vec_jax.pretraining.units import making as unit_making
from voc2vec_jax.pretraining.units import report as unit_report
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import cli, logs, program

FLAGS = {
    "data_dir": cli.Flag("folder of the prepared sets", required=True, shown="FOLDER"),
    "sets": cli.Flag(
        "prepared sets, separated by commas; voc125 stands for the ten of pre-training", required=True, shown="SET,SET"
    ),
    "model": cli.Flag("cluster a layer of this model (run, folder, file or Hub id) instead of MFCCs"),
    "layer": cli.Flag("layer of --model; 6 is the output of the sixth block", default=6, kind=int),
    "clusters": cli.Flag("number of clusters", default=100, kind=int),
    "share": cli.Flag("share of the records to cluster; all records get units", default=0.1, kind=float),
    "seed": cli.Flag("seed of the sample and of k-means", default=0, kind=int),
    "workers": cli.Flag("processes that compute MFCCs; 0: one per core", default=0, kind=int),
    "batch_seconds": cli.Flag("seconds of audio that --model computes at once; 0: what suits the machine", 0.0, float),
}
NAME = cli.Positional("NAME", "name of the units, such as mfcc100", most=1)


def main(argv: list[str]) -> int:
    """Cluster, assign, report."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec units", positional=NAME, about=__doc__)
    (name,) = arguments.words
    sets = _sets(arguments)
    if not 0 <= arguments.seed < 2**32 or arguments.workers < 0 or arguments.batch_seconds < 0:
        raise errors.InputError("--seed, --workers and --batch_seconds are 0 or more, --seed under 2**32")
    workers = arguments.workers or len(os.sched_getaffinity(0))
    features = _features(arguments)
    program.can_resume()
    clustering = unit_making.make_clustering(
        name,
        arguments.data_dir,
        sets,
        features,
        clusters=arguments.clusters,
        share=arguments.share,
        seed=arguments.seed,
        workers=workers,
        say=logs.say,
    )
    pairs = []
    for prepared in [records.open_set(arguments.data_dir, each) for each in sets]:
        made = unit_making.make_units(name, prepared, clustering, features, workers=workers, say=logs.say)
        pairs.append((prepared, made))
    rows = [unit_report.quality(*pair) for pair in pairs]
    folder = unit_store.clustering_folder(arguments.data_dir, name)
    unit_store.save_json(folder / "report.json", {"units": name, "sets": rows})
    unit_report.draw(folder / "report.png", name, pairs)
    printable.show(datasets.format_table(unit_report.table(rows)))
    printable.show(
        f"{name}: {len(clustering.centroids)} clusters at {clustering.rate_hz:g} Hz; report.json and .png in {folder}"
    )
    return errors.EXIT_DONE


def _sets(arguments: cli.Arguments) -> list[str]:
    words = [word for word in arguments.sets.split(",") if word]
    return list(
        dict.fromkeys(name for word in words for name in (catalog.PRETRAINING if word == "voc125" else (word,)))
    )


def _features(arguments: cli.Arguments) -> unit_making.Features:
    if not arguments.model:
        return unit_making.Mfcc()
    # Imported here, because the processes that compute MFCCs import this file and need no JAX.
    from voc2vec_jax.pretraining.units import layers as unit_layers

    return unit_layers.Layer(arguments.model, arguments.layer, arguments.batch_seconds or None)
