"""Where a pre-training run stands, from its folder alone: `voc2vec train --status --workdir=RUN`.

Nothing here imports JAX or writes to the folder, so that the answer comes at once and while the run goes on.
"""

import csv
import fcntl
import json
import pathlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from voc2vec_jax import errors, opening, printable
from voc2vec_jax.runs import cli, csv_files, durations, manifest, rows

FLAGS = {
    "workdir": cli.Flag("run folder", required=True),
    "status": cli.Flag("say where a run stands, in words or by --json, and do nothing else", default=False, kind=bool),
    "json": cli.Flag("print one line of JSON and nothing else", default=False, kind=bool),
}
TAIL_BYTES = 200_000  # of metrics.jsonl: some 300 rows
SPEED_ROWS = 100  # training rows that speed and time to go are taken from


def asked(argv: Sequence[str]) -> bool:
    """Whether a command line asks for this, known before anything else is parsed."""
    return any(token.lower() in ("--status", "--status=true") for token in argv)


def main(argv: Sequence[str]) -> int:
    """Print where the run of a command line stands; what it says of a configuration is passed over."""
    arguments = cli.parse(_without_config(argv), flags=FLAGS, program="voc2vec train --status")
    found = read(arguments.workdir)
    printable.show(json.dumps(found) if arguments.json else text(found))
    return errors.EXIT_DONE


def _without_config(argv: Sequence[str]) -> list[str]:
    """The tokens that are not about a configuration, so that `--status` can be added to the command that trains."""
    kept, value_follows = [], False
    for token in argv:
        if re.match(r"--(config|resume_with)\b", token):
            value_follows = "=" not in token
        elif value_follows and not token.startswith("--"):
            value_follows = False
        else:
            value_follows = False  # the field is a flag
            kept.append(token)
    return kept


def read(workdir: str | pathlib.Path) -> dict[str, Any]:
    """Where the run in a folder stands. Times are in seconds; None is unknown or not there yet.

    InputError when there is no such folder or no pre-training run in it.
    """
    folder = pathlib.Path(workdir)
    config = _config(folder)
    metrics = folder / "metrics.jsonl"
    tail = rows.tail(metrics, TAIL_BYTES) if metrics.is_file() else []
    train = [row for row in tail if "split" not in row]
    valid = [row for row in tail if row.get("split") == "validation"]
    step, total = (train[-1]["step"] if train else 0), config["total_steps"]
    checkpoints = _checkpoints(folder / "checkpoints")
    newest = max(checkpoints["complete"], default=0)
    return {
        "workdir": str(folder),
        "family": config.get("family"),
        "sets": config.get("sets"),
        "data_dir": config.get("data_dir"),
        "held_by": _holder(folder / ".lock"),
        "complete": newest == total,
        "step": step,
        "total_steps": total,
        "last_row_age": time.time() - metrics.stat().st_mtime if tail else None,
        "last_row": train[-1] if train else None,
        **_speed(train, total - step),
        "last_validation": valid[-1] if valid else None,
        "best": _best(folder, newest),
        "checkpoints": checkpoints,
        "best_checkpoints": _checkpoints(folder / "best"),
        "bad_updates": _bad_updates(folder / "bad_clips.csv"),
        "changes": config.get("history", []),
    }


def _config(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not folder.is_dir():
        raise errors.InputError(f"--workdir={folder} is not there: give the folder of a run")
    try:
        config = opening.read_json(path)
    except FileNotFoundError:
        raise errors.InputError(f"--workdir={folder} holds no run: give a folder with a config.json") from None
    except (OSError, ValueError) as error:
        raise errors.InputError(f"{path} cannot be read ({error}): restore it") from None
    if "total_steps" not in config:
        raise errors.InputError(f"--workdir={folder} holds a run, but none of pre-training: give another folder")
    return config


def _holder(lock: pathlib.Path) -> str | None:
    """The live process that holds a run folder, in its words."""
    try:
        with opening.regular(lock) as file:
            # A shared lock is refused while a run holds its own, and is given back at once
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return opening.read_text(lock, errors="replace").strip() or "a process"
    except OSError:  # no lock, or a file system without locks
        return None
    return None


def _speed(train: Sequence[Mapping[str, Any]], steps_to_go: int) -> dict[str, float | None]:
    """Mean speed over the last rows, and the time to go at that speed."""
    timed = [row for row in train if row.get("step_seconds") and row.get("audio_seconds_per_second")]
    timed = timed[-SPEED_ROWS:]
    if not timed:
        return {"step_seconds": None, "audio_seconds_per_second": None, "seconds_to_go": None}
    seconds = sum(row["step_seconds"] for row in timed)
    audio = sum(row["step_seconds"] * row["audio_seconds_per_second"] for row in timed)
    mean = seconds / len(timed)
    return {
        "step_seconds": mean,
        "audio_seconds_per_second": audio / seconds,
        "seconds_to_go": mean * steps_to_go,
    }


def _checkpoints(folder: pathlib.Path) -> dict[str, list]:
    """Steps of the complete checkpoints, and the names of those that are not. Their bytes are not checked."""
    names = sorted((path.name for path in folder.iterdir()) if folder.is_dir() else (), key=lambda x: (len(x), x))
    complete = [int(name) for name in names if name.isdecimal() and manifest.exists(folder / name)]
    return {
        "complete": complete,
        "half_written": [name for name in names if name.isdecimal() and int(name) not in complete],
        "set_aside": [name for name in names if re.match(r"\d+\.(corrupt|partial)", name)],
    }


def _best(folder: pathlib.Path, newest: int) -> dict[str, Any] | None:
    """Step and loss of the best validation, as the later of the newest checkpoint and the best says it."""
    # Not the lower one: other clips may validate since a change of the run.
    places = [folder / "checkpoints" / str(newest) / "metadata.json", *folder.glob("best/*/metadata.json")]
    found = {}
    for place in places:
        try:
            content = opening.read_json(place)
            found[content["step"]] = content["best"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found[max(found)] if found else None


def _bad_updates(listed: pathlib.Path) -> dict[str, int | None]:
    try:
        with opening.regular(listed, "r", encoding="utf-8", newline="") as file:
            steps = {int(row["step"]) for row in csv_files.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        steps = set()
    return {"count": len(steps), "last_step": max(steps, default=None)}


def text(found: Mapping[str, Any]) -> str:
    """What `read` found, in lines for people."""
    row, best, valid, bad = found["last_row"], found["best"], found["last_validation"], found["bad_updates"]
    last = "no training step yet"
    if row:
        last = f"loss {_number(row.get('loss'))}, learning rate {_number(row.get('lr'), '.3g')}, {_age(found)}"
    validations = f"best loss {best['loss']:.4f} at step {best['step']:,}" if best else "none yet"
    if valid:
        validations += f"; last {_number(valid.get('loss'))} at step {valid['step']:,}"
    lines = {
        "run": f"{found['workdir']}: {_state(found)}",
        "step": f"{found['step']:,} of {found['total_steps']:,} ({found['step'] / found['total_steps']:.1%})",
        "last row": last,
        "speed": _speed_words(found),
        "validation": validations,
        "checkpoints": _checkpoint_words(found["checkpoints"]),
        "best": _checkpoint_words(found["best_checkpoints"]),
        "bad updates": f"{bad['count']}, the last at step {bad['last_step']:,}" if bad["count"] else "none",
        "data": f"{', '.join(found['sets'] or ())} in {found['data_dir']}",
    }
    changes = [("changed", f"at step {entry['step']:,}: {_change_words(entry)}") for entry in found["changes"]]
    return "\n".join(f"{name:<12} {what}" for name, what in [*lines.items(), *changes])


def _state(found: Mapping[str, Any]) -> str:
    if found["held_by"]:
        return f"running, {found['held_by']}"
    if found["complete"]:
        return "complete"
    newest = max(found["checkpoints"]["complete"], default=0)
    return f"not running; the command that began it goes on from step {newest:,}"


def _age(found: Mapping[str, Any]) -> str:
    return f"{durations.words(found['last_row_age'])} ago"


def _speed_words(found: Mapping[str, Any]) -> str:
    if found["step_seconds"] is None:
        return "-"
    words = f"{found['audio_seconds_per_second']:,.0f} audio-seconds per second, {found['step_seconds']:.3g} s a step"
    return words if found["complete"] else f"{words}; {durations.words(found['seconds_to_go'])} to go"


def _checkpoint_words(found: Mapping[str, Sequence]) -> str:
    words = [_listed("complete", found["complete"])]
    words += [_listed("without a manifest", found["half_written"])] if found["half_written"] else []
    words += [_listed("set aside", found["set_aside"])] if found["set_aside"] else []
    return "; ".join(words)


def _listed(what: str, names: Iterable[Any]) -> str:
    return f"{what}: {', '.join(map(str, names)) or 'none'}"


def _change_words(entry: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} from {json.dumps(old)} to {json.dumps(new)}" for name, (old, new) in entry["changed"].items()
    )


def _number(value: float | int | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)
