"""Which shard of the work this process computes: from the command line, or from the scheduler that started it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from voc2vec_jax import errors

AUTO = "auto"
COUNT_VARIABLE = "VOC2VEC_SHARDS"  # Kubernetes tells a pod its index, but not the number of pods


class Shard(NamedTuple):
    """The `index`-th of `count` equal shards, counted from 0; `origin` says who assigned it."""

    index: int
    count: int
    origin: str

    def __str__(self) -> str:
        return f"shard {self.index + 1}/{self.count} ({self.origin})"

    def of(self, numbers: Sequence[int]) -> list[int]:
        """The numbers that belong to this shard: every `count`-th."""
        return [number for number in numbers if number % self.count == self.index]


def find(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard that `text` names as i/n (i from 1 to n); "auto" takes the scheduler's, or all of the work without one.

    Schedulers are SLURM (array tasks times step tasks) and indexed Jobs of Kubernetes, including JobSets. InputError
    for text or variables that make no sense.
    """
    if text == AUTO:
        return _slurm(environment) or _kubernetes(environment) or Shard(0, 1, "all of the work")
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise errors.InputError(f"--shard={text} is not i/n with i from 1 to n: give 1/4 to 4/4 to four machines")
    return Shard(index - 1, count, "--shard")


def _slurm(environment: Mapping[str, str]) -> Shard | None:
    """Array tasks, times the tasks of the step if srun started one.

    SLURM_NTASKS would not do: it is set in a batch script too, where only one process runs.
    """
    index, count, names = 0, 1, []
    if "SLURM_ARRAY_TASK_ID" in environment:
        task, first, count = (
            _number(environment, f"SLURM_ARRAY_TASK_{name}", default)
            for name, default in (("ID", None), ("MIN", 0), ("COUNT", None))
        )
        index = (task - first) // max(1, _number(environment, "SLURM_ARRAY_TASK_STEP", 1))
        names.append("SLURM array")
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", 1)
    if tasks > 1 and "SLURM_PROCID" in environment:
        index, count = index * tasks + _number(environment, "SLURM_PROCID", 0), count * tasks
        names.append("SLURM step")
    if not names:
        return None
    if not 0 <= index < count:
        raise errors.InputError(
            f"SLURM's variables make this shard {index + 1} of {count}: list the array's tasks without gaps, or give "
            "--shard=i/n"
        )
    return Shard(index, count, " and ".join(names))


def _kubernetes(environment: Mapping[str, str]) -> Shard | None:
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    if COUNT_VARIABLE not in environment:
        raise errors.InputError(
            f"JOB_COMPLETION_INDEX is set and {COUNT_VARIABLE} is not: set it to the job's completions, or give "
            "--shard=i/n (1/1 for all of the work)"
        )
    index, count = _number(environment, "JOB_COMPLETION_INDEX", 0), _number(environment, COUNT_VARIABLE, 0)
    if not 0 <= index < count:
        raise errors.InputError(
            f"JOB_COMPLETION_INDEX is {index} and {COUNT_VARIABLE} is {count}: the index must be below the count"
        )
    return Shard(index, count, "JOB_COMPLETION_INDEX")


def _number(environment: Mapping[str, str], name: str, default: int | None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise errors.InputError(f"{name} is {text!r} and not a number: give --shard=i/n")
    return int(text)
