"""All jobs of a configuration in turn: a job's fault is written down, the others go on, and the status tells."""

import contextlib
import itertools
import pathlib
import sys

import ml_collections
import tqdm

from voc2vec_jax import errors, printable
from voc2vec_jax.finetuning import cross_validation, faults, jobs, seeds, tasks
from voc2vec_jax.runs import agreement, logs, signals
from voc2vec_jax.runs import folder as run_folder


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path, stop: signals.StopSignal) -> int:
    """Run or resume every job that `config` describes; returns the exit status.

    0: all are done. 2: some failed, all by faults of the input. 1: some failed otherwise. 75: a signal stopped the
    run. A fault of the only job is raised. InputError, before any work, for what concerns every job.
    """
    for dataset in config.datasets:
        tasks.check_name(dataset, config.data_dir)
    planned = list(jobs.plan_jobs(config, workdir))
    failed: list[tuple[jobs.CrossValidationJob, Exception]] = []
    at = 0
    for folder, several in itertools.groupby(planned, key=lambda job: job.seeds_of):
        for job in several:
            at += 1
            where = f"[{at}/{len(planned)}] {described(job)}"
            if len(planned) > 1:
                logs.say(f"{where}: {job.workdir}")
            try:
                # Where there are several jobs, the report shows the fault that is in the folder.
                alone = run_folder.first_attempt(job.workdir) if len(planned) == 1 else contextlib.nullcontext()
                with alone:
                    stopped = not cross_validation.run(job, stop)
            except Exception as fault:
                if len(planned) == 1 or not _noted(fault):
                    raise
                failed.append((job, fault))
                tell(f"error: {where}: {faults.sentence(fault)}")
                stopped = agreement.decided_by_first(lambda: bool(stop.requested))
            if stopped:
                return errors.EXIT_STOPPED
        if folder is not None:
            try:
                agreement.decided_by_first(lambda folder=folder: seeds.combine(folder))
            except (errors.InputError, errors.RunError) as fault:
                failed.append((job, fault))
                tell(f"error: {faults.sentence(fault)}")
    return status(failed, len(planned))


def _noted(fault: Exception) -> bool:
    """Whether the other jobs can go on. Of several processes all must have met the fault, as `agreement` ensures."""
    return isinstance(fault, (errors.InputError, errors.RunError)) or agreement.process_count() == 1


def described(job: jobs.CrossValidationJob) -> str:
    """A job in a line: its data set, its system and its seed where there are several."""
    seed = "" if job.seeds_of is None else f", seed {job.config.seed}"
    return f"{job.dataset}, {job.title}{seed}"


def tell(text: str) -> None:
    """Print a line on stderr in process 0, without breaking a progress bar."""
    if logs.speaks():
        tqdm.tqdm.write(printable.line(text), file=sys.stderr)


def status(failed: list[tuple[jobs.CrossValidationJob, Exception]], planned: int) -> int:
    """Say which jobs failed; the exit status."""
    if not failed:
        return errors.EXIT_DONE
    names = tasks.shown([described(job) for job, _ in failed], "; ")
    tell(
        f"error: {len(failed)} of {planned} jobs failed ({names}): the lines above say why; run the same command again "
        "to try them again"
    )
    of_input = all(isinstance(fault, errors.InputError) for _, fault in failed)
    return errors.EXIT_INPUT if of_input else errors.EXIT_FAULT
