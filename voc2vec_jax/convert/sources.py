"""What `from_pretrained` may be given: a folder, a checkpoint file, a run of ours, or a model on the Hub."""

import dataclasses
import difflib
import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import errors, opening, printable
from voc2vec_jax.convert import adapters, configs, fields, funasr, paper_systems, reader, run_models, weight_files
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.runs import extras, files, logs

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_BESIDE = ("*.json", funasr.CONFIG, funasr.TOKENS)
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.pt")  # we fetch the first of these that a repository has


def read(source: str | Path, *, allow_nonfinite: bool = False) -> reader.ModelWeights:
    """Reads the model that `source` names: a folder or a file that `reader.read` takes, a run folder of pre-training
    (its best step, else its newest), a system of the paper (`voc2vec-ls`; a folder or file of that name wins), a name
    on the Hub (`owner/model`, `owner/model@revision`), adapters beside their source, or a run folder of fine-tuning
    that holds one model.

    Raises InputError, in one sentence, if it names none, and for parameters with NaN or infinity unless
    `allow_nonfinite`.
    """
    weights = _read(source, ())
    if not allow_nonfinite:
        convert_names.check_finite(convert_names.flatten(weights.params), str(source))
    return weights


def _read(source: str | Path, above: tuple[str, ...]) -> reader.ModelWeights:
    """As `read`; `above` are the folders of adapters whose source this is."""
    if not os.fspath(source):
        raise errors.InputError(
            f"{source!r} names no model: give a folder, a file, a Hub id (owner/model) or a system (voc2vec-ls)"
        )
    path = Path(source)
    try:
        is_here = path.exists()
    except OSError as fault:
        raise errors.InputError(f"{printable.name(str(source))} cannot be read: {fault.strerror}") from fault
    if is_here:
        opening.checked(path)
    if not is_here:
        path = _fetch(_of_system(str(source)))
    elif str(source) in paper_systems.SYSTEMS:
        hub = paper_systems.SYSTEMS[str(source)].source
        logs.say(f"{source} is taken as the {'folder' if path.is_dir() else 'file'} here; the system is {hub}")
    if os.path.isfile(opening.checked(path)):
        return reader.read(path)
    if not (path / "config.json").exists():
        return _read(path / "model", above) if run_models.is_fold(path) else reader.read(_only_file(path))
    raw = weight_files.read_json(path / "config.json")  # refuses a pipe of that name
    if raw.get("format") == adapters.FORMAT:
        below = (*above, os.path.realpath(path))
        if len(set(below)) < len(below) or len(below) > _MOST_ADAPTERS:
            raise errors.InputError(f"adapters that name themselves as source, or {len(below)} one upon another")
        return adapters.read(path, raw, lambda name: _read(name, below))
    if "format" not in raw and "folds" in raw and "datasets" in raw:
        return _read(run_models.of_folds(path), above)
    is_run = "format" not in raw and "model_type" not in raw and isinstance(raw.get("model"), dict)
    return _read_run(path, raw) if is_run else reader.read(path)


_MOST_ADAPTERS = 8  # one upon another


def warn_of_feature_masks(source: str, weights: reader.ModelWeights) -> None:
    """Say that training from `source` leaves out the masks over channels that its own training has."""
    if weights.feature_mask_share:
        logs.warn(
            f"{source} was trained with masks over channels (share {weights.feature_mask_share:g}), which training "
            "here does not have: frames alone are masked"
        )


def _only_file(folder: Path) -> Path:
    """The one checkpoint of torch.save in a folder without config.json."""
    if (folder / "adapter_config.json").is_file():
        raise errors.InputError(
            f"{folder} holds adapters of PEFT and not the model that they belong to: merge them (merge_and_unload), "
            "and save the whole"
        )
    found = sorted(path for kind in ("pt", "pth", "ckpt") for path in folder.glob(f"*.{kind}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise errors.InputError(f"{folder} holds {len(found)} checkpoints; give one of them, such as {found[0]}")
    raise errors.InputError(
        f"{folder} has no config.json and no .pt file, so it is no model; {run_models.below(folder)}"
    )


@dataclasses.dataclass(frozen=True)
class _Stored:
    """An array that looks like a stored tensor."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self) -> np.ndarray:
        return self.array


def _read_run(folder: Path, raw: dict[str, Any]) -> reader.ModelWeights:
    """The best parameters of a pre-training run, else the newest; their moving average where the run keeps one."""
    from voc2vec_jax.runs import checkpoint  # here, because importing Orbax takes a second

    origin, family = str(folder / "config.json"), raw.get("family")
    if family not in convert_names.FAMILIES:
        family = printable.value(family)
        raise errors.InputError(f"{origin}: family {family} is none of {', '.join(convert_names.FAMILIES)}")
    known = {"auto": None, **reader.NORMALIZE_EPS}
    normalize = raw.get("normalize", "none")  # version 0.1.0 normalised nothing
    if not isinstance(normalize, str) or normalize not in known:
        choices = ", ".join(known)
        raise errors.InputError(f"{origin}: normalize is {printable.value(normalize)}, which is none of {choices}")
    config = configs.from_dict(family, raw["model"], origin)
    steps = {name: checkpoint.steps(folder / name) for name in ("best", "checkpoints")}
    kind = "best" if steps["best"] else "checkpoints"
    if not steps[kind]:
        raise errors.InputError(f"{folder} is a run without a complete checkpoint; let it train until its first")
    chosen = folder / kind / str(steps[kind][-1])
    # The checkpoint's own configuration: a run may begin its average later
    saved = fields.Raw(weight_files.read_json(chosen / "metadata.json"), str(chosen / "metadata.json"))
    decay = fields.Raw(saved.take("config", fields.OBJECT, {}), saved.origin).take("ema_decay", fields.NUMBER, 0.0)
    params, _ = checkpoint.read(chosen, "ema" if decay else "params")
    if decay:
        logs.say(f"{chosen}: taken are the moving averages of its parameters (ema_decay {decay:g})")
    flat = convert_names.flatten(params) if isinstance(params, dict) else {}
    stored = {name.replace("/", "."): _Stored(array) for name, array in flat.items() if isinstance(array, np.ndarray)}
    entries = [entry.own() for entry in convert_names.table(family, config)]
    filled, missing, used = convert_names.fill(entries, stored, "own", "", str(chosen))
    if unknown := sorted(stored.keys() - used):
        unknown = printable.name(unknown[0])
        raise errors.InputError(f"{chosen}: the parameter {unknown} has no place in a {family} model of {origin}")
    eps = known[normalize]
    return reader.ModelWeights(
        family,
        config,
        convert_names.unflatten(filled),
        tuple(missing),
        normalize=eps is not None,
        normalize_eps=eps,
        mapped=len(used),
    )


def _of_system(name: str) -> str:
    """The Hub id of a system of the paper; any other name as it is. InputError for openSMILE, which has no weights."""
    system = paper_systems.SYSTEMS.get(name)
    if system is None:
        return name
    if system.family == "opensmile":
        raise errors.InputError(
            "opensmile has no weights to load: voc2vec finetune --config.model=opensmile compares it, and the package "
            "opensmile itself computes its features"
        )
    return system.source


def wanted(names: Sequence[str]) -> list[str]:
    """Which of a repository's files `_fetch` fetches: those beside the weights, and the first kind of weights."""
    names = [name for name in names if "/" not in name]
    weights = next((kind for kind in WEIGHTS if fnmatch.filter(names, kind)), "")
    return [name for name in names if any(fnmatch.fnmatchcase(name, kind) for kind in (*_BESIDE, weights))]


def _fetch(name: str) -> Path:
    """The folder of a model on the Hub: its JSON files and one kind of weights; HF_HUB_OFFLINE is honoured."""
    if not _HUB_NAME.fullmatch(name) or (Path(name).parent.is_dir() and Path(name).parent != Path(".")):
        here = [] if os.sep in name else os.listdir()
        near = difflib.get_close_matches(name, [*paper_systems.SYSTEMS, *here], 1)
        hint = f" (did you mean {near[0]}?)" if near else files.similar(Path(name))
        raise errors.InputError(
            f"{name} does not exist{hint}; give a folder, a file, a Hub id (owner/model) or a system (voc2vec-ls)"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise errors.InputError(
            f"{name} is not here, and fetching it from the Hub needs huggingface_hub: {extras.command('hub')}"
        ) from None
    repository, _, revision = name.partition("@")
    absent = None
    for weights in WEIGHTS:
        try:
            folder = huggingface_hub.snapshot_download(
                repository, revision=revision or None, allow_patterns=[*_BESIDE, weights], ignore_patterns=["*/*"]
            )
        except huggingface_hub.errors.LocalEntryNotFoundError as fault:
            absent = fault  # offline; perhaps the cache has another kind of weights
        except (OSError, ValueError) as fault:
            raise errors.InputError(f"{name} is not here, and the Hub does not give it: {_reason(fault)}") from fault
        else:
            if any(Path(folder).glob(weights)):
                return Path(folder)
    if absent is None:
        raise errors.InputError(f"{name} on the Hub holds none of {', '.join(WEIGHTS)}")
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    why = "HF_HUB_OFFLINE is set; unset it" if offline else "the Hub is out of reach; connect"
    raise errors.InputError(f"{name} is neither here nor in the cache of the Hub, and {why} or give a folder")


def _reason(fault: Exception) -> str:
    kind = type(fault).__name__
    if kind == "RepositoryNotFoundError":
        return "no such model there (or it is private: log in with `hf auth login`)"
    return f"{kind}: {(str(fault).strip().splitlines() or [''])[0]}".rstrip(": ")
