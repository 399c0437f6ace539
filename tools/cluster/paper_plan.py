"""What the paper's experiment takes, before it starts: jobs, hours and gigabytes.

    python tools/cluster/paper_plan.py --config=finetune:tasks --device=h100:8 [--compile] [--config.dtype=bfloat16]

Everything is counted from shapes and nothing is run. Hours are what the matrix products take at the chip's best rate, a
floor that no run reaches. With --compile, XLA compiles an epoch of each family and a pre-training update for one such
device, and the slowest of arithmetic, memory traffic and cycles counts: a higher floor, after some minutes. Lengths are
those of the prepared sets in --config.data_dir, else those of table II. `bash tools/cluster/paper.sh plan` calls this.
"""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from voc2vec_jax import audio, errors, models
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import paper_systems, reader
from voc2vec_jax.datasets import catalog, records
from voc2vec_jax.finetuning import dry_run, jobs, tasks
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.models import flops
from voc2vec_jax.planning import chips, compiling, devices, report, roofline
from voc2vec_jax.pretraining import capacity
from voc2vec_jax.pretraining import dry_run as pretraining_dry_run
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import cli, configuration, program

FLAGS = {
    "config": cli.Flag(
        "recipe of fine-tuning",
        kind=cli.CONFIG,
        required=True,
        shown="finetune:tasks",
        recipes=finetuning_recipe.RECIPES,
    ),
    "device": cli.Flag(f"the machine: {devices.EXAMPLES}", default="h100"),
    "compile": cli.Flag("count compiled programs too, which takes some minutes", default=False, kind=bool),
    "systems": cli.Flag("systems, separated by commas", default=",".join(paper_systems.PAPER_SYSTEMS)),
    "protocols": cli.Flag("protocols, separated by commas", default="strict,paper"),
    "batch": cli.Flag("batch of the pre-trainings: one_gpu, two_gpus, or nothing for 5,120 s", default="two_gpus"),
}
FEWEST_EPOCHS = 6  # of a fold: the first is the best, and five more do not improve on it
BYTES_AN_HOUR = 3600 * audio.RATE_HZ * 2  # of int16
STATE_COPIES = 3  # parameters and Adam's two moments
GPUS = (1, 2, 8)  # of a node, to pre-train on
FORWARD = 1 / 3  # of the products of a training step
COMPILED_CLIPS, COMPILED_CLASSES = 40, 4  # of the task that is compiled for


class TaskSize(NamedTuple):
    """The clips of a task, cut to the recipe's length; `groups` is 0 where it is not known."""

    name: str
    clips: int
    seconds: float
    groups: int
    prepared: bool


class Cost(NamedTuple):
    """Device-seconds for each second of audio that is trained on, and what they rest on."""

    seconds: float
    basis: str


# --- what there is to do ----------------------------------------------------------------------------------------------


def task_size(name: str, data_dir: str, max_seconds: float) -> TaskSize:
    """Of the prepared set, else of table II of the paper."""
    if name in records.list_sets(data_dir):
        found = records.open_set(data_dir, name)
        lengths = np.bincount(found.recording, found.samples) / audio.RATE_HZ
        heard = float(np.minimum(lengths, max_seconds).sum())
        return TaskSize(name, len(lengths), heard, len(found.groups), True)
    if name not in catalog.CATALOG:
        raise errors.InputError(f"{data_dir} has no set {name}, and the paper has none: prepare it, or leave it out")
    source = catalog.CATALOG[name]
    return TaskSize(
        name, source.paper_samples, source.paper_samples * min(source.paper_mean_seconds, max_seconds), 0, False
    )


def folds(size: TaskSize, protocol: str, config: ml_collections.ConfigDict) -> int:
    """As many as asked for, and under `strict` no more than there are groups."""
    return min(config.folds, size.groups) if protocol == "strict" and size.groups else config.folds


def heard_an_epoch(size: TaskSize, protocol: str, config: ml_collections.ConfigDict) -> float:
    """Seconds of audio that the folds of a task train on in an epoch each; a second of validation counts a third."""
    count = folds(size, protocol, config)
    if protocol == "paper":  # every clip is padded; the tested fold validates
        every = size.clips * config.max_seconds
        return every * (count - 1) + every * FORWARD
    kept = size.seconds * (count - 1)
    return kept * (1 - config.validation_share) + kept * config.validation_share * FORWARD


def system_of(name: str) -> tuple[str, str]:
    """(how it is used, its family); a model that is none of the paper's counts as wav2vec 2.0 base."""
    system, _ = paper_systems.resolve(name)
    return (system.kind, system.family) if system else ("finetune", "wav2vec2")


def base(family: str) -> Any:
    """The configuration of a family's base model."""
    return models.FAMILIES[family].Config()


def parameters(family: str) -> int:
    """Of the base model's encoder."""
    entries = convert_names.table(family, base(family))
    return sum(math.prod(entry.full_shape) for entry in entries if entry.ours.startswith("encoder/"))


# --- what it costs ----------------------------------------------------------------------------------------------------


def by_arithmetic(family: str, seconds: float, chip: chips.Chip, dtype: str, precision: str) -> Cost:
    """Products alone, of clips of so many seconds."""
    each = sum(flops.training(base(family), round(seconds * audio.RATE_HZ)).values()) / seconds
    return Cost(each / chip.flops(dtype, precision), "arithmetic")


def by_program(family: str, config: ml_collections.ConfigDict, machine: devices.Machine) -> tuple[Cost, str]:
    """The slowest part of a compiled epoch of ten folds, and the words of its plan. Clips have the recipe's length."""
    own = ml_collections.ConfigDict(configuration.as_dict(config))
    own.datasets, own.model, own.systems, own.protocol, own.leaks = ("vivae",), family, (), "paper", False
    job = jobs.CrossValidationJob("vivae", family, family, "finetune", None, pathlib.Path("."), own)
    found = dry_run.plan_of(job, report.Request(machine), _weights(family), _task(config.max_seconds))
    return _slowest(found), f"{found.title}; {report.in_words(found.needed_bytes)} of a device"


def _slowest(found: report.Plan) -> Cost:
    """Device-seconds for a second of audio, by the part that binds."""
    if found.compiled.text is None:
        raise errors.RunError(f"{found.title}: the program does not fit, so its time is not known: {found.size}")
    counted = report.count(found.machine, found.compiled)
    parts = roofline.seconds(found.machine.chip, found.count, found.work, counted)
    binds = roofline.binding(parts)
    return Cost(parts[binds] * found.count / found.work.audio_seconds, binds)


def _weights(family: str) -> reader.ModelWeights:
    """A base model whose weights are all 0: a plan looks at shapes alone."""
    entries = convert_names.table(family, base(family))
    flat = {
        entry.ours: np.zeros(entry.full_shape, np.float32) for entry in entries if entry.ours.startswith("encoder/")
    }
    return reader.ModelWeights(family, base(family), convert_names.unflatten(flat), normalize=True)


@dataclasses.dataclass(frozen=True)
class _Silence:
    """In the place of a prepared set."""

    samples: int

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        return [np.zeros(self.samples, np.int16) for _ in rows]


def _task(seconds: float) -> tasks.Task:
    """Clips of silence, all of one length: a plan looks at their number and lengths alone."""
    n, samples = COMPILED_CLIPS, round(seconds * audio.RATE_HZ)
    names = np.array([f"{row}.wav" for row in range(n)])
    return tasks.Task(
        name="vivae",
        title="a task",
        labels=tuple(map(str, range(COMPILED_CLASSES))),
        label=np.arange(n) % COMPILED_CLASSES,
        group=np.full(n, -1),
        groups=(),
        ids=names,
        paths=names,
        start_seconds=np.zeros(n),
        samples=np.full(n, samples, np.int32),
        audio_root=None,
        fingerprint="",
        dropped=(),
        prepared=_Silence(samples),
        segments=tuple((row,) for row in range(n)),
    )


def pretraining(batch: str, chip: chips.Chip, machine: devices.Machine | None) -> tuple[float, Cost]:
    """Seconds of audio of a pre-training, and what each costs a device."""
    config = configuration.load(f"voc125:{batch}" if batch else "voc125")
    heard = config.total_steps * config.batch_seconds
    config.dtype = "bfloat16" if config.dtype == "auto" else config.dtype
    if machine is None:
        _, model = pretraining_recipe.build_model(config)
        each = sum(flops.training(model, config.crop_samples).values()) * audio.RATE_HZ / config.crop_samples
        return heard, Cost(each / chip.flops(config.dtype, config.matmul_precision), "arithmetic")
    chosen = capacity.settle(config, machine.devices, machine.free_bytes)
    return heard, _slowest(pretraining_dry_run.plan(config, machine, chosen and chosen.compiled))


# --- in words ---------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        first, *rest = (
            text.ljust(width) if at == 0 else text.rjust(width) for at, (text, width) in enumerate(zip(row, widths))
        )
        yield "  ".join([first, *rest]).rstrip()


def job_lines(sizes: Sequence[TaskSize], protocols: Sequence[str], config: ml_collections.ConfigDict) -> Iterator[str]:
    """The tasks, and the hours of audio that an epoch of all their folds trains on."""
    heard = {(size, protocol): heard_an_epoch(size, protocol, config) for size in sizes for protocol in protocols}
    yield from table(
        [
            ("task", "clips", "clips' hours", *(f"{name}: h an epoch" for name in protocols), "lengths"),
            *(
                (
                    size.name,
                    f"{size.clips:,}",
                    f"{size.seconds / 3600:.2f}",
                    *(f"{heard[size, protocol] / 3600:.1f}" for protocol in protocols),
                    "prepared" if size.prepared else "table II",
                )
                for size in sizes
            ),
        ]
    )


def hour_lines(
    sizes: Sequence[TaskSize],
    words: Sequence[str],
    protocols: Sequence[str],
    config: ml_collections.ConfigDict,
    costs: Mapping[tuple[str, str], Cost],
    count: int,
) -> Iterator[str]:
    """Hours of each system for the fewest and the most epochs, on `count` devices that share the jobs out evenly."""
    rows, sums = [("system", "binds", f"h, {FEWEST_EPOCHS} epochs", f"h, {config.epochs} epochs")], [0.0, 0.0]
    for name in words:
        kind, family = system_of(name)
        if kind == "features":
            once = "on CPUs" if family == "opensmile" else "computed once"
            rows.append((name, f"features, {once}", "not counted", "not counted"))
            continue
        hours = sum(
            heard_an_epoch(size, protocol, config) * costs[family, protocol].seconds / 3600 / count
            for size in sizes
            for protocol in protocols
        )
        found = [hours * epochs for epochs in (FEWEST_EPOCHS, config.epochs)]
        sums = [total + one for total, one in zip(sums, found)]
        rows.append((name, costs[family, protocols[-1]].basis, *map(hours_in_words, found)))
    yield from table([*rows, ("all", "", *map(hours_in_words, sums))])


def hours_in_words(hours: float) -> str:
    """Hours, with a decimal where there are few."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}"


def byte_lines(
    sizes: Sequence[TaskSize], words: Sequence[str], job_count: int, trained: int, keep: int
) -> Iterator[str]:
    """Gigabytes on disk."""
    families = [system_of(name) for name in words]
    each = 4 * parameters("wav2vec2")
    weights = sum(4 * parameters(family) for _, family in families if family != "opensmile")
    hours = sum(size.seconds for size in sizes) / 3600
    rows = [
        ("prepared tasks, each clip up to the cut", report.in_words(hours * BYTES_AN_HOUR)),
        ("prepared pre-training sets (table I)", report.in_words(catalog.VOC125[0] * BYTES_AN_HOUR)),
        ("weights of the systems, at least", report.in_words(weights)),
        (f"the best fold's model of {trained} jobs (save_models=none: nothing)", report.in_words(trained * each)),
        ("for a while, ten folds of a job in progress", report.in_words(2 * 10 * STATE_COPIES * each)),
        ("each pre-training", report.in_words((keep * STATE_COPIES + 1) * each)),
    ]
    yield from table(rows)
    yield f"publishers' archives, and the vectors and predictions of {job_count} jobs, are not counted"


def lines(arguments: cli.Arguments) -> Iterator[str]:
    """The whole estimate."""
    config = arguments.config
    words, protocols = _list(arguments.systems), _list(arguments.protocols)
    kind, grid, slices = devices.parse(arguments.device)
    chip, count = chips.CHIPS[kind], math.prod(grid) * slices * chips.CHIPS[kind].devices
    config.dtype = "bfloat16" if config.dtype == "auto" else config.dtype
    sizes = [task_size(name, config.data_dir, config.max_seconds) for name in config.datasets]
    trained = sum(system_of(name)[0] == "finetune" for name in words) * len(sizes) * len(protocols)
    job_count = len(words) * len(sizes) * len(protocols)
    yield (
        f"{len(words)} systems x {len(sizes)} tasks x {len(protocols)} protocols: {job_count} jobs of up to "
        f"{config.folds} folds"
    )
    yield from job_lines(sizes, protocols, config)
    machine = devices.machine(kind) if arguments.compile else None
    families = dict.fromkeys(family for how, family in map(system_of, words) if how == "finetune")
    costs, titles = {}, []
    for family in families:
        if machine is None:
            for protocol in protocols:
                mean = sum(size.seconds for size in sizes) / sum(size.clips for size in sizes)
                length = config.max_seconds if protocol == "paper" else mean
                costs[family, protocol] = by_arithmetic(family, length, chip, config.dtype, config.matmul_precision)
        else:
            cost, title = by_program(family, config, machine)
            costs |= {(family, protocol): cost for protocol in protocols}
            titles.append(f"{family}: {title}")
    heard, each = pretraining(arguments.batch, chip, machine)
    from_what = "compiled programs" if arguments.compile else "matrix products alone, without memory traffic"
    yield f"\nFine-tuning on {count} x {chip.title}, {config.dtype} at {config.matmul_precision}: hours at least,"
    yield f"from {from_what}"
    yield from titles
    yield from hour_lines(sizes, words, protocols, config, costs, count)
    batch = arguments.batch or "5,120 s an update"
    yield f"\nEach of the three pre-trainings, {heard / 3600:,.0f} h of audio ({batch}), by {each.basis}: at least"
    yield "; ".join(
        f"{gpus} device{'s' * (gpus > 1)} {hours_in_words(heard * each.seconds / 3600 / gpus)} h" for gpus in GPUS
    )
    yield "\nOn disk"
    yield from byte_lines(sizes, words, job_count, trained, configuration.load("voc125").keep_checkpoints)
    yield "Counted, not measured: no run reaches these rates. What is done already counts as if it were not."


def _list(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def main(argv: list[str]) -> int:
    """Print the estimate."""
    arguments = cli.parse(argv, flags=FLAGS, program="paper_plan.py", about=__doc__)
    for name in _list(arguments.protocols):
        if name not in ("strict", "paper"):
            raise errors.InputError(f"--protocols={arguments.protocols}: {name} is neither strict nor paper")
    if not (_list(arguments.systems) and _list(arguments.protocols)):
        raise errors.InputError("there is nothing to do: name at least one system and one protocol")
    if arguments.compile:
        compiling.leave_cache()
    for line in lines(arguments):
        print(line, flush=True)
    return errors.EXIT_DONE


if __name__ == "__main__":
    program.leave(program.run(main))
