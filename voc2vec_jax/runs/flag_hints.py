"""What a user may have meant by a flag or word that there is not."""

import difflib
from collections.abc import Iterator

import ml_collections

from voc2vec_jax.runs import configuration, flags, recipes

# What other programs call it: the flags and fields that it may be here, the likeliest first
ELSEWHERE = {
    "lr": ("peak_lr",),
    "learning_rate": ("peak_lr",),
    "batch_size": ("batch_clips", "batch_seconds"),
    "bs": ("batch_clips", "batch_seconds"),
    "num_epochs": ("epochs",),
    "num_train_epochs": ("epochs",),
    "steps": ("total_steps",),
    "max_steps": ("total_steps",),
    "warmup": ("warmup_steps", "warmup_share"),
    "dataset": ("datasets", "sets", "data"),
    "out": ("output", "workdir"),
    "output": ("output", "workdir"),
    "output_dir": ("workdir", "output"),
    "out_dir": ("workdir", "output"),
    "run": ("workdir",),
    "logdir": ("workdir",),
    "checkpoint": ("model", "init_from"),
    "pretrained": ("model", "init_from"),
    "model": ("model", "init_from"),
    "num_workers": ("workers", "threads"),
    "recipe": ("config",),
    "cfg": ("config",),
    "k": ("folds",),
    "num_folds": ("folds",),
    "gpus": ("local_devices",),
}


def of(token: str, line: flags.Line, config: ml_collections.ConfigDict | None) -> str:
    """The rest of a sentence about `--NAME[=VALUE]`: the flag or field that is nearest, else where all are listed."""
    name, equals, value = token.lstrip("-").partition("=")
    name = name.replace("-", "_")
    base, dot, _ = name.partition(".")
    near = _nearest(base if dot else name, line, _fields(line, config))
    if near:
        return f"did you mean --{near}?" if near in line.flags else f"did you mean --{near}{equals}{value}?"
    known = [flag for flag in line.flags if flag not in flags.COMMON]
    if not known:
        return "--help says what there is"
    listed = ", ".join(f"--{flag}" for flag in known)
    return (
        f"the flags are {listed}; --help explains {'them and the fields of the recipe' if line.config_flag else 'them'}"
    )


def of_word(word: str, line: flags.Line) -> str | None:
    """The rest of a sentence about a word that is one too many, where it names a recipe; else None."""
    if line.config_flag and recipes.named(word.partition(":")[0]):
        return f"did you mean --{line.config_flag}={word}?"
    return None


def _fields(line: flags.Line, config: ml_collections.ConfigDict | None) -> list[str]:
    """The dotted fields of the recipe, of the usual one where none is given."""
    if config is None and line.recipes:
        config = configuration.load(line.recipes.shown)
    return [] if config is None else [name for name, _ in configuration.fields(config)]


def _nearest(name: str, line: flags.Line, fields: list[str]) -> str | None:
    """The flag or dotted field that is meant: of the same name, of another program's name, or nearly of the name."""
    leaves = {field.rsplit(".", 1)[-1]: f"{line.config_flag}.{field}" for field in reversed(fields)}
    leaves |= {field: f"{line.config_flag}.{field}" for field in fields}
    known = {**leaves, **{flag: flag for flag in line.flags}}

    def candidates() -> Iterator[str]:
        yield name
        yield from ELSEWHERE.get(name, ())
        yield from difflib.get_close_matches(name, line.flags, n=1)
        yield from difflib.get_close_matches(name, leaves, n=1)

    return next((known[candidate] for candidate in candidates() if candidate in known), None)
