"""The fault that a job ended with, as RUN/fault.json: the report shows it where the scores would stand.

It goes when the job is begun again, so that a folder without it has no fault or has not ended.
"""

import json
import pathlib
import traceback
from typing import Any

from voc2vec_jax import datasets, errors
from voc2vec_jax.finetuning import jobs, own_data
from voc2vec_jax.runs import agreement, files, program

FILE = "fault.json"


def clear(workdir: pathlib.Path) -> None:
    """Forget the fault of an earlier run."""
    if agreement.process_index() == 0:
        (workdir / FILE).unlink(missing_ok=True)


def write(job: jobs.CrossValidationJob, fault: Exception) -> None:
    """Write down what ended a job. A disk that is full or gone is not a second fault."""
    if agreement.process_index():
        return
    entry = datasets.CATALOG.get(job.dataset)
    found: dict[str, Any] = {
        "dataset": job.dataset,
        "title": own_data.title(job.config.data) if job.config.data else entry.title if entry else job.dataset,
        "model": job.source,
        "system": job.title,
        "protocol": job.config.protocol,
        "of_input": isinstance(fault, errors.InputError),
        "reason": sentence(fault),
    }
    if job.seeds_of is not None:
        found["seed"] = job.config.seed
    if not isinstance(fault, (errors.InputError, errors.RunError)):  # nobody foresaw it, so its place is asked for
        found["traceback"] = "".join(traceback.format_exception(fault))
    try:
        files.write_atomic(job.workdir / FILE, (json.dumps(found, indent=1) + "\n").encode())
    except OSError:
        return


def sentence(fault: Exception) -> str:
    """What a program would print for it, without "error:"."""
    return program.explain(fault)[1].removeprefix("error: ")
