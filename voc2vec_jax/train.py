"""Pre-training: `python -m voc2vec_jax.train --config=configs/voc125.py --workdir=RUN`."""

import contextlib
import functools
import json
import math
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.convert import sources
from voc2vec_jax.pretraining import collapse, curves, dry_run, progress
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import (
    agreement,
    checkpoint,
    cli,
    configuration,
    distributed,
    files,
    logs,
    runtime,
    sharding,
    signals,
)
from voc2vec_jax.runs import folder as run_folder

FLAGS = {
    "config": cli.Flag("recipe: PATH or PATH:ARGUMENT", kind=cli.CONFIG, required=True),
    "workdir": cli.Flag("run folder; a rerun with the same one resumes", required=True),
    "dry_run": cli.Flag("print shapes, memory and arithmetic of a step, and write nothing", default=False, kind=bool),
    **distributed.FLAGS,
}
# What may change between a run and its resumption without changing what it computes.
MAY_DIFFER = ("data_dir", "input", "workers", "checkpoint_every_steps", "keep_checkpoints", "keep_every_steps")
MAY_DIFFER += ("tensorboard", "stop_on_collapse", "log_every_steps", "groups_per_device", "remat", "fsdp")
ETA_STEP = 20
FAR_UNDER = 0.5  # of the reference's batch


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    runtime.keep_memory()
    arguments = cli.parse(argv, flags=FLAGS, program="python -m voc2vec_jax.train")
    distributed.join(arguments)
    return train(arguments.config, arguments.workdir, dry=arguments.dry_run)


def train(config: ml_collections.ConfigDict, workdir: str, dry: bool = False) -> int:
    """Run or resume the pre-training that `config` describes, or report what it takes; returns the exit status."""
    pretraining_recipe.check(config)
    runtime.set_up_jax(config)
    family, model = pretraining_recipe.build_model(config)
    mesh = sharding.make_mesh(config.fsdp)
    groups, micros = pretraining_recipe.loss_groups(config, mesh.size)
    if dry:
        planned = Run(config, pathlib.Path(workdir), family, model, mesh, None, None)
        dry_run.report(config, planned, mesh, groups, micros)
        return errors.EXIT_DONE
    agreement.same(dict(configuration.fields(config)))
    data = agreement.first_alone(lambda: pretraining_data.Data(config, mesh, groups, micros, model.min_samples))
    with contextlib.ExitStack() as stack:
        run_folder.claim_for_all(stack, workdir, configuration.as_dict(config), MAY_DIFFER)
        stop = stack.enter_context(distributed.stop_signal())
        saver = stack.enter_context(
            checkpoint.Checkpoints(workdir, config.keep_checkpoints, config.keep_every_steps or None)
        )
        copy = agreement.index() == 0
        folder = pathlib.Path(workdir)
        data.targets = agreement.first_alone(
            lambda: unit_store.targets_for_run(config, model, data.corpus, folder, copy=copy)
        )
        run = Run(config, pathlib.Path(workdir), family, model, mesh, data, saver)
        run.restore_or_start()
        describe(config, run)
        data.upload()
        with logs.Metrics(workdir, run.step, tensorboard=config.tensorboard) as run.metrics:
            return run.loop(stop)


class Run:
    """One pre-training run: its state on the devices, and what is done with it step by step."""

    def __init__(self, config, workdir: pathlib.Path, family, model, mesh, data: pretraining_data.Data | None, saver):
        self.config, self.workdir, self.data, self.saver = config, workdir, data, saver
        self.family, self.model = family, model
        self.optimizer, self.schedule = pretraining_recipe.build_optimizer(config)
        init = functools.partial(training_step.init_state, family, model, self.optimizer, config.seed)
        rules = [(pattern, None if axis < 0 else axis) for pattern, axis in config.sharding_rules]
        self.init, self.abstract = init, jax.eval_shape(init)
        self.shardings = sharding.shard_tree(self.abstract, mesh, rules)
        equal_masks = config.batching == "crop"
        step_fn = training_step.make_update(
            family, model, self.optimizer, self.schedule, seed=config.seed, equal_masks=equal_masks
        )
        everywhere = sharding.replicated(mesh)
        self.update = jax.jit(step_fn, donate_argnums=0, out_shardings=(self.shardings, everywhere))
        evaluate = training_step.make_evaluate(family, model, seed=config.seed, equal_masks=equal_masks)
        self.evaluate = jax.jit(evaluate, out_shardings=everywhere)
        self.summary = jax.jit(family.summary)
        self.view = family.view(model)
        self.watch = collapse.CollapseDetector(functools.partial(family.collapse_signs, model))
        self.metrics: logs.Metrics | None = None
        self.state, self.step, self.best, self.waiting = None, 0, None, None

    def restore_or_start(self) -> None:
        """Take up the newest intact checkpoint, else start from the seed or from `init_from`."""
        target = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), self.abstract, self.shardings
        )
        restored = self.saver.restore(target)
        if restored is not None:
            self.step, self.state, metadata = restored
            if metadata["corpus"] != self.data.corpus.fingerprint:
                raise errors.InputError(
                    f"the prepared sets in {self.config.data_dir} are not those that {self.workdir} was trained on: "
                    "bring the old ones back or give another --workdir"
                )
            if metadata.get("units") != self.metadata()["units"]:
                raise errors.InputError(
                    f"the units {self.config.units} are not those that {self.workdir} was trained on: bring back its "
                    "own units folder or give another --workdir"
                )
            self.best = metadata["best"]
            logs.say(f"resuming {self.workdir} from step {self.step}")
        elif self.config.init_from:
            params = continued_params(self.config, self.family, self.model, self.data.targets)
            self.state = jax.jit(
                functools.partial(training_step.start_state, self.optimizer), out_shardings=self.shardings
            )(params)
        else:
            self.state = jax.jit(self.init, out_shardings=self.shardings)()

    def loop(self, stop: signals.StopSignal) -> int:
        """Update until `total_steps` or a signal; metrics are read one step late, so that the devices stay busy."""
        if self.step >= self.config.total_steps:
            logs.say(f"{self.workdir} is complete: {self.step} steps are done")
            return errors.EXIT_DONE
        with (
            progress.TrainingProgress(self.config.total_steps, self.step, self.view) as self.progress,
            curves.Background(self.workdir / "metrics.jsonl", self.workdir / "curves.png", self.view) as self.curves,
            self.data.train(self.step, self.config.total_steps) as batches,
        ):
            self.clock = time.monotonic()
            if stopping := stop.at(self.step):
                logs.say(f"stopped by {stopping} at step {self.step}; everything is saved")
                return errors.EXIT_STOPPED
            for batch, _ in batches:
                with jax.transfer_guard("disallow"):
                    self.state, row = self.update(self.state, batch)
                self.read_row()
                self.step += 1
                self.waiting = (self.step, row)
                self.saver.check()
                # Read once: a signal that comes later in this step is seen after the next one.
                stopping = stop.at(self.step)
                if stopping or self.due("validate_every_steps") or self.due("checkpoint_every_steps"):
                    self.pause(stopping is not None)
                if stopping:
                    self.saver.wait()
                    logs.say(f"stopped by {stopping} after step {self.step}; everything is saved")
                    return errors.EXIT_STOPPED
        self.saver.wait()
        best = (
            f"best validation loss {self.best['loss']:.4f} at step {self.best['step']}"
            if self.best
            else "no validation"
        )
        logs.say(f"done: {self.step} steps, {best}")
        return errors.EXIT_DONE

    def due(self, field: str) -> bool:
        """Whether the present step is one of `field`'s, or the last."""
        return self.step % self.config[field] == 0 or self.step == self.config.total_steps

    def pause(self, stopping: bool) -> None:
        """Read the last row, validate and save as is due; a step that is not finite is never saved."""
        self.read_row()
        if self.due("validate_every_steps"):
            self.validate()
        if stopping or self.due("checkpoint_every_steps"):
            self.save()
        if agreement.index() == 0 and (stopping or self.due("validate_every_steps")):
            self.curves.draw()
        self.clock = time.monotonic()

    def read_row(self) -> None:
        """Fetch, check, write and show the numbers of the step before."""
        if self.waiting is None:
            return
        (step, row), self.waiting = self.waiting, None
        row = {name: float(x) for name, x in jax.device_get(row).items()}
        now = time.monotonic()
        row["audio_seconds_per_second"] = row.pop("audio_seconds") / (now - self.clock)
        self.clock = now
        if not (row.pop("finite") and math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
            self.refuse(step, row)
        self.metrics.write(step, row)
        self.progress.advance(step)
        if step <= 5 or step % self.config.log_every_steps == 0 or step == self.config.total_steps:
            self.progress.show(step, row)
        if step == ETA_STEP:
            left = logs.duration(self.progress.eta_seconds)
            logs.say(f"expected to end in {left}, at {row['audio_seconds_per_second']:.0f} audio-seconds per second")
        self.look_out(step, row)

    def refuse(self, step: int, row: dict) -> None:
        """Stop at a step that is not finite, and write down which clips it saw, on all hosts."""
        rows = self.data.plan.step(step - 1).rows.tolist()
        row = {name: x if math.isfinite(x) else None for name, x in row.items()}
        report = {"step": step, "row": row, "rows": rows, "ids": [self.data.corpus.ids(i) for i in rows]}
        path = self.workdir / f"nonfinite_step_{step}.json"
        if agreement.index() == 0:
            files.write_atomic(path, json.dumps(report, indent=1).encode())
        raise errors.RunError(
            f"loss, gradient or parameters at step {step} are not finite: its clips are listed in {path}; lower "
            "peak_lr or leave them out"
        )

    def look_out(self, step: int, row: dict) -> None:
        """Warn of collapse, or stop for it when the configuration says so."""
        sign = self.watch.see(row)
        if sign is None:
            return
        if self.config.stop_on_collapse:
            raise errors.RunError(f"stopped at step {step}, {sign}; the last checkpoint is from before")
        logs.warn(f"step {step}: {sign} (set stop_on_collapse to stop here)")

    def validate(self) -> None:
        """Average the objective over the validation share; keep the best parameters apart."""
        if not len(self.data.valid_rows):
            return
        total = None
        with self.data.valid() as batches:
            for batch, _ in batches:
                sums = self.evaluate(self.state["params"], batch)
                total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        row = {name: float(x) for name, x in jax.device_get(self.summary(total)).items()}
        self.metrics.write(self.step, {"split": "validation", **row})
        self.progress.show(self.step, {"split": "validation", **row})
        if math.isfinite(row["loss"]) and (self.best is None or row["loss"] < self.best["loss"]):
            self.best = {"step": self.step, "loss": row["loss"]}
            self.saver.save_best(self.step, self.state, self.metadata())

    def save(self) -> None:
        """Write a checkpoint in the background, after every row up to its step is on the disk."""
        self.metrics.flush()
        self.saver.save(self.step, self.state, self.metadata())

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint holds besides the state."""
        config = configuration.as_dict(self.config)
        corpus, clustering = self.data.corpus.fingerprint, self.data.targets and self.data.targets.clustering
        return {"step": self.step, "best": self.best, "corpus": corpus, "units": clustering, "config": config}


def continued_params(
    config: ml_collections.ConfigDict, family: Any, model: Any, targets: unit_store.FrameTargets | None = None
) -> Any:
    """Parameters of `init_from`, completed by fresh ones (said loudly) where the source has none or other units."""
    source = sources.read(config.init_from)
    if source.family != config.family:
        raise errors.InputError(
            f"{config.init_from} is a {source.family} model and the configuration trains {config.family}: "
            "give weights of the same family"
        )
    of_other_units = targets is not None and unit_store.clustering_of_run(config.init_from) != targets.clustering
    heads = not of_other_units and not any(name.startswith("quantizer") for name in source.missing)
    check_same_architecture(config.init_from, source.config, model, heads)
    if source.normalize:
        logs.warn(f"{config.init_from} was trained on audio of zero mean and unit variance, pre-training here is not")
    fresh = jax.device_get(family.init_params(model, jax.random.key(config.seed)))
    taken, missing = {}, []
    for path, value in jax.tree_util.tree_leaves_with_path(source.params):
        taken[sharding.path_name(path)] = value
    for name in family.OF_UNITS if of_other_units else ():
        taken.pop(name, None)
    names = [sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(fresh)]
    missing = [name for name in names if name not in taken]
    logs.say(f"continuing from {config.init_from}: {len(names) - len(missing)} of {len(names)} parameters taken over")
    if missing:
        why = f"NOT in {config.init_from}" + ", or of other units" * of_other_units
        logs.warn(f"{why}, so freshly initialised: {', '.join(missing)}")
    return jax.tree_util.tree_map_with_path(
        lambda p, x: np.asarray(taken.get(sharding.path_name(p), x), x.dtype), fresh
    )


# Fields that say how a model is trained or computed; weights do not depend on them.
FREE = ("dropout", "attention_dropout", "activation_dropout", "input_dropout", "layerdrop")
FREE += ("dtype", "remat", "attention", "padding")
SHAPES = ("codebook_groups", "codebook_entries", "codebook_width", "target_width")


def check_same_architecture(name: str, source: Any, model: Any, heads: bool) -> None:
    """InputError with the overrides to type when the weights are of another architecture."""
    pairs = {f"encoder.{f}": (getattr(model.encoder, f), x) for f, x in vars(source.encoder).items() if f not in FREE}
    pairs |= {f: (getattr(model, f), getattr(source, f)) for f in SHAPES if heads and hasattr(model, f)}
    differing = {field: found for field, (wanted, found) in pairs.items() if wanted != found}
    if differing:
        overrides = " ".join(f"--config.model.{field}={shown(found)}" for field, found in differing.items())
        raise errors.InputError(f"{name} is of another architecture than the configuration: add {overrides}")


def shown(value: Any) -> str:
    """A value as the command line takes it."""
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else str(value).lower()


def describe(config: ml_collections.ConfigDict, run: Run) -> None:
    """What is about to be trained, on what, and whether the batch is as large as the recipe's."""
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(run.abstract["params"]))
    data, plan = run.data, run.data.plan
    rate = audio.RATE_HZ
    hours = data.corpus.samples[data.train_rows].sum(dtype=np.int64) / rate / 3600
    logs.say(
        f"{config.family}, {count:,} parameters, {config.dtype}, on {jax.device_count()} x "
        f"{jax.devices()[0].device_kind}; {len(data.train_rows)} training clips ({hours:.2f} h), "
        f"{len(data.valid_rows)} for validation, from {', '.join(data.corpus.names)}"
    )
    if len(data.short_rows):
        names = [data.corpus.ids(row) for row in data.short_rows]
        listed = run.workdir / "left_out.txt"
        if agreement.index() == 0:
            files.write_atomic(listed, "".join(f"{name}\n" for name in names).encode())
        logs.warn(
            f"{len(names)} clips are too short to mask (under {run.model.min_samples / rate:.3f} s) and left out, "
            f"such as {names[0]}: {listed} lists them"
        )
    logs.say(
        f"an epoch is {plan.steps_per_epoch} steps; {plan.fill_rows} of its {plan.rows_per_epoch} rows are repeats "
        "that fill the last batch"
    )
    seconds = plan.samples_per_epoch / rate / plan.steps_per_epoch
    reference = pretraining_recipe.SECONDS_OF_REFERENCE_BATCH[config.family]
    if seconds < FAR_UNDER * reference:
        logs.warn(
            f"an update sees about {seconds:.0f} s of audio, far under the recipe's {reference / 3600:.1f} h "
            f"({reference:.0f} s): expect worse representations, or raise batch_seconds"
        )


if __name__ == "__main__":
    sys.exit(distributed.run(main))
