"""The training loop: update, read the numbers one step late, validate, save, stop."""

import functools
import math
import pathlib
import time
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.pretraining import bad_updates, collapse, curves, efficiency, progress
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import start as training_start
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import agreement, checkpoint, durations, files, logs, signals

ALWAYS_SHOWN_STEPS = 5  # the first lines come at once, so that a bad start is seen
ETA_AFTER_STEPS = 20  # late enough for a fair mean of the time per step


class StepLog:
    """The numbers of the steps. Each is read one step late, while the devices compute the next one.

        step        k                   k+1
        devices     [ update k        ] [ update k+1      ]
        host        dispatch k, read k-1  dispatch k+1, read k

    Reading k at once would leave the devices idle while the host dispatches k+1.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        functions: training_step.TrainingFunctions,
        metrics: logs.Metrics,
        shown: progress.TrainingProgress,
        bad: bad_updates.BadUpdates,
        plan_offset: int,
    ):
        self._config, self._plan_offset = config, plan_offset
        self._metrics, self._progress, self._bad = metrics, shown, bad
        signs_of = functools.partial(functions.family.collapse_signs, functions.model)
        self._collapse = collapse.CollapseDetector(signs_of)
        self._efficiency = efficiency.Efficiency(config.dtype, config.matmul_precision)
        self._waiting: tuple[int, dict] | None = None
        self._rows = 0  # that were shown or not since the start of this process
        self._clock = time.monotonic()

    def put(self, step: int, row: dict[str, jax.Array]) -> None:
        """Take a step's numbers, which may still be computed."""
        self._waiting = (step, row)

    def timed(self, batches: Iterable[dict[str, jax.Array]]) -> Iterable[dict[str, jax.Array]]:
        """The batches; how long the devices wait for them is counted."""
        return self._efficiency.batches(batches, self._idle)

    def _idle(self) -> bool:
        """Whether the devices have nothing to do: the last update that was dispatched is done."""
        return self._waiting is None or self._waiting[1]["loss"].is_ready()

    def restart_clock(self) -> None:
        """The time until now belongs to no step: validation, or a save."""
        self._efficiency.restart()
        self._clock = time.monotonic()

    def read(self) -> int:
        """Fetch, write and show the numbers that wait; returns how many updates in a row were skipped until then."""
        if self._waiting is None:
            return 0
        (step, row), self._waiting = self._waiting, None
        row = jax.device_get(row)
        bad_groups = row.pop("bad_groups")
        row = {name: float(x) for name, x in row.items()}
        # Behind device_get, which waits for the step: earlier, the clock would measure how fast steps are dispatched.
        now = time.monotonic()
        seconds = now - self._clock
        row["audio_seconds_per_second"] = row.pop("audio_seconds") / seconds
        row |= self._efficiency.of_step(row.pop("flops"), seconds)
        self._clock = now
        if row["bad_in_row"]:
            clips = self._bad.clips(step - 1 + self._plan_offset, bad_groups)
            self._bad.add(step, row, clips)
            in_row = int(row.pop("bad_in_row"))
            self._metrics.write(step, {"bad": True, **row, "bad_in_row": in_row, "clips": clips})
            self._show(step, row)
            return in_row
        del row["bad_in_row"]
        self._metrics.write(step, row)
        self._show(step, row)
        self._warn_of_collapse(step, row)
        return 0

    def validation(self, step: int, row: dict[str, float]) -> None:
        """Write and show the row of a validation."""
        row = {"split": "validation", **row}
        self._metrics.write(step, row)
        self._progress.show(step, row, self._efficiency.summary)

    def flush(self) -> None:
        """Make every row written so far survive a power cut."""
        self._metrics.flush()

    def _show(self, step: int, row: dict[str, float]) -> None:
        self._progress.advance(step)
        due = step % self._config.log_every_steps == 0
        if step <= ALWAYS_SHOWN_STEPS or due or step == self._config.total_steps:
            self._progress.show(step, row, self._efficiency.summary)
        self._rows += 1
        if self._rows == ETA_AFTER_STEPS:
            left = durations.words(self._progress.eta_seconds)
            logs.say(f"expected to end in {left}, at {row['audio_seconds_per_second']:.0f} audio-seconds per second")

    def _warn_of_collapse(self, step: int, row: dict[str, float]) -> None:
        sign = self._collapse.see(row)
        if sign is None:
            return
        if self._config.stop_on_collapse:
            raise errors.RunError(f"stopped at step {step}, {sign}; the last checkpoint is from before")
        logs.warn(f"step {step}: {sign} (set stop_on_collapse to stop here)")


class PreTrainingRun:
    """The state of a run on the devices, and what is done with it step by step."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        functions: training_step.TrainingFunctions,
        batches: pretraining_data.DeviceBatches,
        saver: checkpoint.Checkpoints,
        log: StepLog,
        picture: curves.Background,
        bad: bad_updates.BadUpdates,
        identity: dict[str, Any],
        start: training_start.Start,
    ):
        self._config, self._functions, self._batches = config, functions, batches
        self._saver, self._log, self._picture, self._identity = saver, log, picture, identity
        self._bad, self._start = bad, start
        self.step, self.best = start.step, start.best
        self._state = start.state

    def loop(self, batches: Iterable[dict[str, jax.Array]], stop: signals.StopSignal) -> str | None:
        """Update with every batch; returns the signal that ended this early, once everything is saved."""
        for batch in self._log.timed(batches):
            # Whatever goes to or from the devices in here would stall them: all transfers are explicit.
            with jax.transfer_guard("disallow"):
                self._state, row = self._functions.update(self._state, batch)
            # The update is only dispatched so far: the numbers of the step before are read while it runs.
            self._read()
            self.step += 1
            self._log.put(self.step, row)
            self._saver.check()
            # Asked once: a signal that comes later in this step is seen after the next one.
            stopping = stop.at(self.step)
            if stopping or self._due("validate_every_steps") or self._due("checkpoint_every_steps"):
                self._pause(stopping is not None)
            if stopping:
                # The process ends after this: a save in the background would be lost with it.
                self._saver.wait()
                return stopping
        return None

    def _read(self) -> None:
        """Read the row that waits. RunError after too many bad updates, once the state before them is saved."""
        in_row = self._log.read()
        if in_row < self._config.max_bad_updates:
            return
        # Later updates were dispatched, but changed nothing: the state is that of before the first bad one. The row is
        # of `self.step`: nothing is counted between an update and the reading of the one before it.
        before = self.step - in_row
        self._saver.wait()
        newest = agreement.decided_by_first(lambda: max(checkpoint.steps(self._saver.folder), default=None))
        if before > max(newest or 0, self._start.step):
            state = {**self._state, "bad_in_row": jnp.zeros_like(self._state["bad_in_row"])}
            self._log.flush()
            self._saver.save(before, state, self._metadata(before))
            self._saver.wait()
            newest = before
        raise self._bad.give_up(self.step, in_row, newest)

    def _due(self, field: str) -> bool:
        """Whether the present step is one of `field`'s, or the last."""
        return self.step % self._config[field] == 0 or self.step == self._config.total_steps

    def _pause(self, stopping: bool) -> None:
        """Read the last row, validate and save as is due."""
        self._read()
        improved = self._due("validate_every_steps") and self._validate()
        keep = stopping or self._due("checkpoint_every_steps")
        if improved or keep:
            self._save(improved, keep)
        if agreement.process_index() == 0 and (stopping or self._due("validate_every_steps")):
            self._picture.draw()
        self._log.restart_clock()

    def _validate(self) -> bool:
        """Average the objective over the validation rows; whether it is the best so far."""
        if not len(self._batches.examples.valid_rows):
            return False
        # Summed over batches and divided once: batches mask different numbers of frames, so that a mean of their means
        # would weight frames unequally. The sums stay on the devices, and no batch waits for the host.
        total, params = None, training_step.averaged(self._state)
        with self._batches.valid() as batches:
            for batch in batches:
                sums = self._functions.evaluate(params, batch)
                total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        row = {name: float(x) for name, x in jax.device_get(self._functions.summary(total)).items()}
        self._log.validation(self.step, row)
        # A NaN as the first best would stay, since no loss is less than NaN.
        improved = math.isfinite(row["loss"]) and (self.best is None or row["loss"] < self.best["loss"])
        if improved:
            self.best = {"step": self.step, "loss": row["loss"]}
        return improved

    def _save(self, best: bool, keep: bool) -> None:
        """Write a checkpoint in the background: as the best, to be kept as one to resume from, or as both at once."""
        # Rows first: a rerun drops the rows after its checkpoint, but could not make up for rows that are lost.
        self._log.flush()
        self._saver.save(self.step, self._state, self._metadata(), best=best, keep=keep)

    def _metadata(self, step: int | None = None) -> dict[str, Any]:
        step = self.step if step is None else step
        place = training_start.place_in_plan(self._batches.examples.plan, step + self._start.plan_offset)
        return {"step": step, "best": self.best, **place, **self._identity}


def pretrain(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    functions: training_step.TrainingFunctions,
    batches: pretraining_data.DeviceBatches,
    saver: checkpoint.Checkpoints,
    metrics: logs.Metrics,
    identity: dict[str, Any],
    start: training_start.Start,
    stop: signals.StopSignal,
) -> int:
    """Update from `start` to `total_steps` or to a signal; returns the exit status."""
    if start.step >= config.total_steps:
        logs.say(f"{workdir} is complete: {start.step} steps are done")
        return errors.EXIT_DONE
    display = functions.family.view(functions.model)
    with (
        # They end in reverse: no batch is read any more, then the last picture is drawn, then the bar closes.
        progress.TrainingProgress(config.total_steps, start.step, display) as shown,
        curves.Background(metrics.recorder, workdir / "curves.png", display) as picture,
        batches.train(*(k + start.plan_offset for k in (start.step, config.total_steps))) as training_batches,
    ):
        bad = bad_updates.BadUpdates(workdir, batches.examples, start.step)
        log = StepLog(config, functions, metrics, shown, bad, start.plan_offset)
        run = PreTrainingRun(config, functions, batches, saver, log, picture, bad, identity, start)
        # Asked before the first step too, because all processes must ask equally often.
        if stopping := stop.at(start.step):
            logs.say(f"stopped by {stopping} at step {start.step}; everything is saved")
            return errors.EXIT_STOPPED
        if stopping := run.loop(training_batches, stop):
            logs.say(f"stopped by {stopping} after step {run.step}; everything is saved")
            return errors.EXIT_STOPPED
    saver.wait()
    best = f"best validation loss {run.best['loss']:.4f} at step {run.best['step']}" if run.best else "no validation"
    logs.say(f"done: {run.step} steps, {best}")
    return errors.EXIT_DONE


def describe(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    functions: training_step.TrainingFunctions,
    examples: pretraining_data.Examples,
    plan_offset: int,
    chosen: str,
) -> None:
    """Say what is about to be trained, on what and how often, and what of it the paper does not state."""
    # Shapes of whole parameters: under fsdp each is counted once, however many devices share it.
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(functions.state["params"]))
    plan, corpus = examples.plan, examples.corpus
    hours = corpus.samples[examples.train_rows].sum(dtype=np.int64) / audio.RATE_HZ / 3600
    how = ", ".join(filter(None, (config.dtype, f"on {jax.device_count()} x {jax.devices()[0].device_kind}", chosen)))
    logs.say(
        f"{config.family}, {count:,} parameters, {how}; {len(examples.train_rows)} training clips ({hours:.2f} h), "
        f"{len(examples.valid_rows)} for validation, from {', '.join(corpus.names)}"
    )
    _list_left_out(workdir, examples, functions.model.min_samples)
    logs.say(
        f"an epoch is {plan.steps_per_epoch} steps; {plan.fill_rows} of its {plan.rows_per_epoch} rows are repeats "
        "that fill the last batch"
    )
    seconds = plan.samples_per_epoch / audio.RATE_HZ / plan.steps_per_epoch
    reference = pretraining_recipe.REFERENCE_BATCH.get(config.family)
    known = f"; the paper states no batch, {reference}" if reference else ""
    passes = (config.total_steps + plan_offset) / plan.steps_per_epoch
    passes = f"{passes:,.0f}" if passes >= 100 else f"{passes:.1f}"
    logs.say(
        f"{config.total_steps:,} updates, here of about {seconds:,.0f} s of audio: {passes} passes over the clips by "
        f"the end{known}"
    )


def _list_left_out(workdir: pathlib.Path, examples: pretraining_data.Examples, min_samples: int) -> None:
    """Name the clips that are too short to train on, in a warning and in a file."""
    if not len(examples.short_rows):
        return
    names = [examples.corpus.ids(row) for row in examples.short_rows]
    listed = workdir / "left_out.txt"
    if agreement.process_index() == 0:
        files.write_atomic(listed, "".join(f"{name}\n" for name in names).encode())
    logs.warn(
        f"left out, {errors.counted(len(names), 'clip')} too short to mask (under {min_samples / audio.RATE_HZ:.3f} "
        f"s), such as {names[0]}: {listed} lists them"
    )
