"""Recordings and archives in the layouts that publishers give their sets, small enough to prepare in a moment."""

import io
import pathlib
import tarfile
import zipfile

import numpy as np
import soundfile

from voc2vec_jax.datasets.published import cnvve, donateacry, nonverbal_vocalization, vivae

TONE = (0.3 * np.sin(np.arange(900) / 5)).astype(np.float32)


def wav(name: str) -> bytes:
    """A recording in the set's own format: 24-bit stereo at 44.1 kHz, but for flac."""
    file = io.BytesIO()
    kind = "FLAC" if name.endswith("flac") else "WAV"
    soundfile.write(file, np.stack([TONE, TONE], axis=1), 44_100, format=kind, subtype="PCM_24")
    return file.getvalue()


def unpack(folder: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def pack(path: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


# --- the six tasks of the paper ---------------------------------------------------------------------------------------

BABIES = ("actor_50", "actor_150", "actor_200")  # as released: three folders, so three groups


def tasks(folder: pathlib.Path, groups: int) -> pathlib.Path:
    """The six sets, unpacked in one folder as they are published: a clip of every class by each of so many groups.

    ASVP-ESD's babies have their three folders whatever `groups` says.
    """
    return unpack(folder, {path: noise(number) for number, path in enumerate(task_paths(groups))})


def noise(seed: int) -> bytes:
    """A recording of 0.1 s that is like no other."""
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, 1600), 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def task_paths(groups: int) -> list[str]:
    """The recordings of `tasks`."""
    each = range(groups)
    found = [
        f"ASVP-ESD-Update/Audio/actor_{actor}/03-02-{emotion:02d}-01-02-{actor}-02-01-01.wav"
        for actor in each
        for emotion in range(1, 14)
    ]
    found += [
        f"ASVP-ESD-Update/Bonus/{actor}/03-02-{emotion:02d}-01-02-50-04-01-0{take}.wav"
        for actor in BABIES
        for emotion in (1, 2, 3, 4, 6, 17, 11)
        for take in (1, 2)
    ]
    found += [f"CNVVE/{label}/{label}_{speaker}_1.wav" for label in cnvve.LABELS for speaker in each]
    found += [
        f"donateacry_corpus_cleaned_and_updated_data/{reason}/0d1ad73e-4c5e-45f3-85c4-9a3cb71e{app:04x}-1430-1.0-m-04-x.wav"
        for reason in donateacry.LABELS
        for app in each
    ]
    found += [
        f"dataset/{label}/p{speaker}_{number}_1_0_30_0_1_0.wav"
        for number, label in enumerate(nonverbal_vocalization.LABELS)
        for speaker in each
    ]
    found += [f"VIVAE/full_set/S{speaker:02d}_{emotion}_low_01.wav" for emotion in vivae.LABELS for speaker in each]
    return found
