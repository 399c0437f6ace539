"""Every scheduler's numbering gives shares that are counted from 0 and together are the whole."""

import pytest

from voc2vec_jax import errors
from voc2vec_jax.inference.evaluation import shard_assignment, worker


def find(text=shard_assignment.AUTO, **environment):
    return shard_assignment.find(text, environment)


def test_the_command_line_counts_from_one_and_wins():
    assert find("1/3", SLURM_ARRAY_TASK_ID="5")[:2] == (0, 3)
    assert find("3/3")[:2] == (2, 3)
    assert str(find("2/8")) == "shard 2/8 (--shard)"


def test_without_a_scheduler_there_is_one_share():
    assert find()[:2] == (0, 1)
    assert find(SLURM_PROCID="0", SLURM_NTASKS="8")[:2] == (0, 1)  # a batch script: nobody else runs


@pytest.mark.parametrize(("first", "step"), [(0, 1), (1, 1), (3, 4)])
def test_an_array_of_slurm_with_steps_of_several_tasks(first, step):
    found = [
        find(
            SLURM_ARRAY_TASK_ID=str(first + step * task),
            SLURM_ARRAY_TASK_MIN=str(first),
            SLURM_ARRAY_TASK_STEP=str(step),
            SLURM_ARRAY_TASK_COUNT="3",
            SLURM_STEP_NUM_TASKS="2",
            SLURM_PROCID=str(process),
        )
        for task in range(3)
        for process in range(2)
    ]
    assert [share[:2] for share in found] == [(k, 6) for k in range(6)]
    assert found[0].origin == "SLURM array and SLURM step"


def test_tasks_of_a_step_alone():
    assert find(SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="3") == (3, 4, "SLURM step")
    assert find(SLURM_STEP_NUM_TASKS="1", SLURM_PROCID="0")[:2] == (0, 1)


def test_an_indexed_job_of_kubernetes():
    assert find(JOB_COMPLETION_INDEX="2", VOC2VEC_SHARDS="5")[:2] == (2, 5)


@pytest.mark.parametrize(
    ("text", "environment", "sentence"),
    [
        ("3/2", {}, "--shard=3/2 is not i/n with i from 1 to n"),
        ("0/2", {}, "--shard=0/2 is not i/n"),
        ("half", {}, "--shard=half is not i/n"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2"}, "shard 8 of 2: list the array's tasks"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "2"}, "SLURM_ARRAY_TASK_ID is 'x'"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is ''"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "VOC2VEC_SHARDS is not: set it to the job's completions"),
        ("auto", {"JOB_COMPLETION_INDEX": "5", "VOC2VEC_SHARDS": "5"}, "the index must be below the count"),
    ],
)
def test_what_makes_no_sense_is_refused(text, environment, sentence):
    with pytest.raises(errors.InputError, match=sentence):
        shard_assignment.find(text, environment)


@pytest.mark.parametrize(
    ("items", "pooled", "framed"),
    [
        (1, 64, 64),
        (64 * 64, 64, 64),
        (64 * 64 + 1, 65, 65),
        (64 * 512, 512, 512),
        (64 * 513, 513, 512),
        (64 * 4096, 4096, 512),
        (10**9, 4096, 512),
    ],
)
def test_a_part_is_a_64th_of_the_list_and_no_larger_than_its_rows_allow(items, pooled, framed):
    assert worker.part_files(items, framed=False) == pooled
    assert worker.part_files(items, framed=True) == framed
