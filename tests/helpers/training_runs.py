"""Pre-training as a user starts it, in a process of its own, and what its run folder holds."""

import json
import os
import pathlib
import subprocess
import sys

import hosts
import jax
import numpy as np

from voc2vec_jax.pretraining import efficiency
from voc2vec_jax.runs import checkpoint
from voc2vec_jax.runs import rows as metrics_rows

ROOT = pathlib.Path(__file__).parents[2]
TINY = "tests/helpers/tiny_config.py"
STEPS = 24
TIMED = ("audio_seconds_per_second", *efficiency.FIELDS)  # fields of a row that differ between runs


def start(cache, *arguments, flags=hosts.XLA, module="voc2vec_jax.train"):
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'helpers'}"
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(cache, data_dir, workdir, *overrides, config=TINY, **options):
    given = f"--config={config}", f"--workdir={workdir}", f"--config.data_dir={data_dir}", *overrides
    return start(cache, *given, **options)


def finish(process):
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def params_of(workdir, step=STEPS):
    return checkpoint.read(workdir / "checkpoints" / str(step))[0]


def identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def rows_of(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def last_step(workdir):
    """The step of the last row that is written, 0 if there is none."""
    path = workdir / "metrics.jsonl"
    return max((row["step"] for row in metrics_rows.read(path)), default=0) if path.exists() else 0
