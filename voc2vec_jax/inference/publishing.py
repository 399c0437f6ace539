"""Puts a model on the Hub: a folder that holds nothing of this machine, and its upload."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from voc2vec_jax import errors, opening
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.runs import extras, files, logs

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PATH = re.compile(r"(~|\.{1,2}|[A-Za-z]:)?[/\\].+|.*[/\\].*[/\\].*", re.DOTALL)  # one slash is a name on the Hub
_LABELS = ("id2label", "labels")  # AudioSet's are written like paths


def write_folder(folder: Path, weights: reader.ModelWeights, card: Callable[[str], str] | None = None) -> str:
    """Writes what is uploaded; returns the layout: "hf" where transformers computes the same of a clip, else "jax".

    `card` makes the README.md of a layout, by default the writer's is kept. Paths that a source's own configuration
    holds are left out. InputError for a folder that holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise errors.InputError(f"{folder} already exists; remove it or choose another name")
    try:
        found = _written(folder, weights)
        for path in folder.glob("*.json"):
            writer.write_json(path, _without_paths(opening.read_json(path)))
        if card is not None:
            files.write_atomic(folder / "README.md", card(found).encode())
    except OSError as fault:
        raise errors.InputError(f"{folder} cannot be written: {fault.strerror or fault}") from fault
    return found


def _written(folder: Path, weights: reader.ModelWeights) -> str:
    try:
        dropped = writer.write_hf(folder, weights)
    except errors.InputError:
        dropped = None  # transformers has no such model
    if dropped is not None and "encoder/context" not in dropped:
        return "hf"
    for path in folder.glob("*"):
        path.unlink()
    writer.write_jax(folder, weights)
    return "jax"


def _without_paths(value: Any) -> Any:
    """A JSON value without the texts in it that name a place on a disk."""
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if key != "_name_or_path" and not _is_path(each)}
        return {key: each if key in _LABELS else _without_paths(each) for key, each in kept.items()}
    return [_without_paths(each) for each in value if not _is_path(each)] if isinstance(value, list) else value


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and _PATH.fullmatch(value) is not None


def check_name(repository: str) -> None:
    """InputError for what is no `owner/name`."""
    if not _NAME.fullmatch(repository):
        raise errors.InputError(f"{repository!r} is no name on the Hub: give owner/name, such as me/cries")


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Makes the repository where there is none, and a commit with all files of `folder`; returns its address.

    It logs in as `hf auth login` or HF_TOKEN says, and HF_ENDPOINT is honoured. InputError in one sentence where the
    Hub is out of reach or refuses.
    """
    check_name(repository)
    try:
        import huggingface_hub
    except ImportError:
        raise errors.InputError(f"publishing {repository} needs huggingface_hub: {extras.command('hub')}") from None
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="A model by voc2vec_jax")
    except (OSError, ValueError) as fault:
        first = (str(fault).strip().splitlines() or [type(fault).__name__])[0]
        raise errors.InputError(
            f"the Hub does not take {repository} ({first}): log in with `hf auth login` as one who may write there"
        ) from fault
    except Exception as fault:  # the Hub's client is httpx or requests, by its version
        if type(fault).__module__.partition(".")[0] != "httpx":
            raise
        raise errors.InputError(
            f"{repository} is not published, for {hub.endpoint} is out of reach ({fault}): connect, or write a folder "
            "with --output=FOLDER"
        ) from fault
    address = f"{hub.endpoint}/{repository}"
    logs.say(f"{repository} is at {address}{' (private)' if private else ''}")
    return address


def push(weights: reader.ModelWeights, repository: str, card: Callable[[str], str] | None, private: bool) -> str:
    """`write_folder` and `upload`."""
    check_name(repository)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_folder(folder, weights, card)
        return upload(folder, repository, private=private)
