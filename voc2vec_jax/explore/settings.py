"""What an exploration is asked for."""

import dataclasses
import pathlib

from voc2vec_jax import audio, errors
from voc2vec_jax.explore import mapping
from voc2vec_jax.runs import files

MAPS = tuple(mapping.TITLES)
CACHE = "cache"  # below the output: prepared clips, fingerprints and features


@dataclasses.dataclass(frozen=True)
class ExploreSettings:
    """`clips` is a folder, an archive or a list; `model` what `from_pretrained` takes, or one of openSMILE's sets.

    Of each recording the first `max_seconds` are used. `page_mb` is about the largest size of the page in megabytes,
    which decides how many clips can be heard in it.
    """

    clips: pathlib.Path
    model: str
    output: pathlib.Path
    data_dir: pathlib.Path
    max_seconds: float = 30.0
    folds: int = 10
    seed: int = 0
    map: str = "tsne"
    page_mb: float = 12.0
    how: audio.Reading = audio.DEFAULT

    def check(self) -> None:
        """InputError for the first value that makes no sense."""
        if self.map not in MAPS:
            raise errors.InputError(f"--map={self.map} is none of {', '.join(MAPS)}")
        if not 0 < self.page_mb < float("inf"):
            raise errors.InputError(f"--page_mb={self.page_mb:g} is no size: give megabytes, such as 12")
        if self.folds < 2:
            raise errors.InputError(f"--folds={self.folds} makes no cross-validation: give 2 or more")
        if not self.clips.exists():
            raise errors.InputError(f"there is no {self.clips}: give a folder of recordings, a zip of one, or a list")
        if self.clips.is_file() and self.clips.suffix.lower() in audio.SUFFIXES:
            raise errors.InputError(f"{self.clips} is one recording, and many are explored: give a folder of them")
        for flag, folder in (("output", self.output), ("data_dir", self.data_dir)):
            files.check_folder(f"--{flag}={folder}", folder)
