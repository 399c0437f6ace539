"""What is installed here: this package's requirements and extras, JAX's devices, and hardware that JAX does not use."""

import dataclasses
import glob
import importlib.util
import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement

from voc2vec_jax import opening
from voc2vec_jax.runs import versions

NAME = "voc2vec_jax"
_SOURCES = pathlib.Path(__file__).parents[2] / "pyproject.toml"
_START_SECONDS = 180  # that JAX may take to find its devices; a TPU that another program holds never comes
# Run apart: a driver that does not fit may end the process, and a device that is taken may never answer.
_ASK_JAX = """
import json
from voc2vec_jax import errors, opening
from voc2vec_jax.runs import runtime
try:
    runtime.start_jax()
    import jax, jax.numpy as jnp
    assert float(jnp.ones((8, 8)).sum()) == 64
    print(json.dumps([[d.platform, d.device_kind] for d in jax.devices()]))
except errors.InputError as error:
    print(json.dumps(str(error)))
"""


@dataclasses.dataclass(frozen=True)
class Needed:
    """A requirement: its package, the version that is there (None: none), and whether it is one that is wanted."""

    package: str
    version: str | None
    wanted: str

    @property
    def fits(self) -> bool:
        """Whether it is installed in a version that is wanted."""
        if self.version is None:
            return False
        return Requirement(f"{self.package}{self.wanted}").specifier.contains(self.version, prereleases=True)

    def __str__(self) -> str:
        if self.version is None:
            return f"{self.package} is missing"
        return f"{self.package} {self.version}" + ("" if self.fits else f" is not {self.wanted}")


def requirements() -> dict[str, list[Requirement]]:
    """What this package needs, by extra; "" is what it always needs."""
    if _SOURCES.is_file():
        project = tomllib.loads(opening.read_text(_SOURCES))["project"]
        found = {"": project["dependencies"], **project["optional-dependencies"]}
        wanted = {extra: map(Requirement, texts) for extra, texts in found.items()}
        return {extra: [each for each in of if _belongs(each, "")] for extra, of in wanted.items()}
    distribution = metadata.distribution(NAME)
    wanted = [Requirement(text) for text in distribution.requires or ()]
    extras = ["", *distribution.metadata.get_all("Provides-Extra", ())]
    return {extra: [each for each in wanted if _belongs(each, extra)] for extra in extras}


def _belongs(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement is one of an extra (of none, if it is empty) and for this platform."""
    of_extra = re.findall(r"extra == ['\"]([\w.-]+)['\"]", str(requirement.marker or ""))
    if of_extra and extra not in of_extra or extra and not of_extra:
        return False
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def needed(wanted: Sequence[Requirement]) -> list[Needed]:
    """How requirements are met. `jax[cuda12]` also needs what that extra of jax does."""
    return list(dict.fromkeys(_needed(wanted)))


def _needed(wanted: Sequence[Requirement]) -> Iterator[Needed]:
    for requirement in wanted:
        if requirement.name.replace("-", "_") == NAME:
            for extra in requirement.extras:
                yield from _needed(requirements()[extra])
            continue
        yield Needed(requirement.name, versions.installed(requirement.name), str(requirement.specifier))
        for extra in sorted(requirement.extras):
            yield from _needed(_of_other(requirement.name, extra))


def _of_other(package: str, extra: str) -> list[Requirement]:
    """What an extra of another package needs; nothing if that package is absent."""
    try:
        texts = metadata.requires(package) or ()
    except metadata.PackageNotFoundError:
        return []
    found = []
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if _belongs(requirement, extra):
            found.append(requirement)
    return found


def devices() -> tuple[list[tuple[str, str]], str]:
    """((platform, kind) of JAX's devices, what is wrong, else ""), asked in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_JAX], capture_output=True, text=True, timeout=_START_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"JAX does not start within {_START_SECONDS} s: another program may hold the device"
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return [], f"JAX does not start: {last}"
    if isinstance(answer, str):
        return [], answer
    return [(kind, name) for kind, name in answer], ""


def nvidia() -> tuple[list[str], str]:
    """(names of the NVIDIA GPUs of this machine, CUDA version of its driver); ([], "") without."""
    if shutil.which("nvidia-smi") is None:
        return [], ""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
        shown = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return [], ""
    names = re.findall(r"^GPU \d+: (.*?) \(UUID", listed.stdout, re.MULTILINE)
    version = re.search(r"CUDA Version: ([\d.]+)", shown.stdout)
    return names, version[1] if version else ""


def tpu_chips() -> int:
    """The TPU chips that this machine's system shows."""
    return len(glob.glob("/dev/accel[0-9]*")) or len(glob.glob("/dev/vfio/[0-9]*"))


def audio_libraries() -> list[str]:
    """The libraries that decode recordings, with their versions."""
    found = []
    if importlib.util.find_spec("soundfile"):
        import soundfile

        found.append(f"libsndfile {soundfile.__libsndfile_version__}")
    if importlib.util.find_spec("av"):
        import av

        found.append(f"FFmpeg {av.ffmpeg_version_info} in PyAV {av.__version__}")
    return found


def machine() -> str:
    """Python, system and processor in a line."""
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
