"""Reference numbers in a file: what transformers computed for known weights, to compare with where it is not installed.

Of every hidden state of every recording the file has the root mean square, the largest value, and values at equal
distances. `reference.json` beside this module is the packaged one; `voc2vec verify --store=FILE` writes another.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from voc2vec_jax import errors
from voc2vec_jax.convert import weight_files
from voc2vec_jax.runs import files
from voc2vec_jax.verification import recordings, rows, states

PACKAGED = Path(__file__).with_name("reference.json")
FORMAT = "voc2vec_jax reference 1"
_VALUES = 16  # of each state
_DIGITS = 8  # float32 has seven and a half


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Of one system: the SHA-256 of its weights, who computed, and [rms, largest, values...] by recording and state."""

    weights: str
    program: str
    states: tuple[tuple[tuple[float, ...], ...], ...]


def read(path: Path) -> dict[str, Numbers]:
    """The numbers by system. InputError for another file, or numbers of other recordings."""
    if not path.exists():
        raise errors.InputError(f"there is no {path}{files.similar(path)}; voc2vec verify --store=FILE writes one")
    raw = weight_files.read_json(path)
    if raw.get("format") != FORMAT or raw.get("recordings") != recordings.DIGESTS:
        raise errors.InputError(
            f"{path} holds no reference numbers of these recordings ({FORMAT}); write it again with voc2vec verify "
            "--store=FILE"
        )
    try:
        return {
            str(name): Numbers(
                str(system["weights"]),
                str(system["program"]),
                tuple(tuple(tuple(map(float, state)) for state in recording) for recording in system["states"]),
            )
            for name, system in raw["systems"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise errors.InputError(f"{path} is damaged ({type(fault).__name__}: {fault}); write it again") from fault


def write(path: Path, systems: Mapping[str, Numbers]) -> None:
    """Replaces the file."""
    raw = {
        "format": FORMAT,
        "recordings": recordings.DIGESTS,
        "systems": {name: dataclasses.asdict(numbers) for name, numbers in systems.items()},
    }
    files.write_atomic(path, f"{json.dumps(raw, separators=(',', ':'))}\n".encode())


def of(found: states.States, weights: str, program: str) -> Numbers:
    """The numbers of hidden states."""
    return Numbers(weights, program, tuple(tuple(map(_numbers, recording)) for recording in found))


def compare(mine: states.States, numbers: Numbers) -> states.Difference:
    """The worst of all states. RunError if there are other states than stored ones."""
    shapes = [len(recording) for recording in mine], [len(recording) for recording in numbers.states]
    if shapes[0] != shapes[1]:
        raise errors.RunError(f"{shapes[0]} states of the recordings here, and {shapes[1]} are stored")
    return states.worst([_difference(a, b) for x, y in zip(mine, numbers.states) for a, b in zip(x, y)])


def _numbers(state: np.ndarray) -> tuple[float, ...]:
    flat = np.asarray(state, np.float64).ravel()
    some = flat[np.linspace(0, flat.size - 1, _VALUES).astype(int)]
    found = (np.sqrt(np.mean(flat**2)), np.abs(flat).max(), *some)
    return tuple(float(f"{value:.{_DIGITS}g}") for value in found)


def _difference(state: np.ndarray, stored: Sequence[float]) -> tuple[float, float]:
    """(difference, largest stored value)."""
    own = _numbers(state)
    if len(own) != len(stored):
        return float("nan"), stored[1] if len(stored) > 1 else float("nan")
    return float(np.abs(np.array(own) - np.array(stored)).max()), stored[1]


def weights_of(found: Sequence[rows.File]) -> str:
    """The SHA-256 that stands for a system's weights: of its files of weights, in order of name."""
    kinds = (".safetensors", ".bin", ".pt")
    return "+".join(file.sha256 for file in sorted(found, key=lambda file: file.name) if file.name.endswith(kinds))
