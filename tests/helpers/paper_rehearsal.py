"""The paper's experiment in miniature: its sixteen sets as they are published, and stand-ins for its systems.

`python tests/helpers/paper_rehearsal.py FOLDER` writes FOLDER/downloads and FOLDER/hub, with which
`tools/cluster/paper.sh` runs as it does with the real ones.
"""

import io
import json
import pathlib
import shutil
import sys
import zlib

import miniatures
import numpy as np
import soundfile

from voc2vec_jax.convert import paper_systems

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RATE_HZ = 16_000
SMALL = {"num_hidden_layers": 1, "conv_dim": [16] * 3, "conv_kernel": [10, 8, 8], "conv_stride": [5, 8, 8]}
HASH = "684b88d9cdf4f1f5cc1d6d2e5e6a7b8c"


def write(
    folder: pathlib.Path, groups: int = 10, systems: tuple[str, ...] = tuple(paper_systems.SYSTEMS), only: str = ""
) -> None:
    """`downloads/` with a clip of every class by each of so many groups, and `hub/`, a cache of the Hub.

    Of the recordings those whose path begins with `only`.
    """
    labelled = {path: voice(kind_of(path), number) for number, path in enumerate(miniatures.task_paths(groups))}
    found = {**labelled, **pretraining_sets(clips=8)}
    miniatures.unpack(folder / "downloads", {path: data for path, data in found.items() if path.startswith(only)})
    stand_ins(folder / "hub", systems)


def kind_of(path: str) -> str:
    """What a recording of `miniatures.task_paths` is of, to its set: the words of its name without its speaker."""
    parts = pathlib.PurePath(path).parts
    if parts[0].startswith("ASVP"):
        return parts[-1].split("-")[2]
    return parts[-1].split("_")[1] if parts[0] == "VIVAE" else parts[1]


def voice(kind: str, seed: int) -> bytes:
    """A wav of 0.3 to 1 s: noise through a resonance that tells its kind, and one that does not."""
    rng = np.random.default_rng(seed)
    samples = int(rng.uniform(0.3, 1.0) * RATE_HZ)
    place = zlib.crc32(kind.encode()) % 97 / 97
    hertz = 200 * 20 ** (place + rng.normal(0, 0.03)), rng.uniform(200, 4000)
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequencies = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    shape = sum(np.exp(-0.5 * ((frequencies - centre) / (0.15 * centre)) ** 2) for centre in hertz)
    wave = np.fft.irfft(spectrum * shape, samples)
    file = io.BytesIO()
    soundfile.write(file, 0.3 * wave / np.abs(wave).max(), RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def pretraining_sets(clips: int) -> dict[str, bytes]:
    """The ten sets of table I, with so many recordings each, by their paths below the folder of downloads."""
    tut = "tut/data/mixture_data/devtrain"
    names = [f"{number:011d}" for number in range(clips)]
    rows = "".join(f'{name}, 0.000, 10.000, "/m/01j3sz"\n' for name in names)
    segments = f"# Segments\n# YTID, start_seconds, end_seconds, positive_labels\n{rows}"
    layouts = {
        "audioset_vocalization/clips/{:011d}.wav": "laughter",
        "freesound_babies/{:03d}.wav": "baby",
        "human-voice-dataset-master/data/voices/anna/notes/exports/mono/{:03d}.wav": "note",
        "nnime/dyad01/{:03d}.wav": "talk",
        "nonspeech7k/train/{:03d}.wav": "cough",
        "recanvo/{:03d}.wav": "delight",
        "singing_database/monophonic/western/{:03d}.wav": "song",
        f"{tut}/{HASH}/audio/mixture_devtrain_babycry_{{:03d}}_{HASH}.wav": "babycry",
        "vocalsketch/vocal_imitations/included/Dog barking - {:03d}.wav": "bark",
        "vocalsound/audio_16k/f{:04d}_0_cough.wav": "cough",
    }
    found = {
        path.format(number): voice(kind, 10_000 + 100 * row + number)
        for row, (path, kind) in enumerate(layouts.items())
        for number in range(clips)
    }
    seven = "Filename,File ID,Duration in ms,Class ID,Classname,augmentation  id,Augmentation  type,source\n"
    seven += "".join(f"{number:03d}.wav,{number},900,2,crying,0,Orignal,youtube\n" for number in range(clips))
    canvo = "Filename,Participant,Label\n" + "".join(f"{number:03d}.wav,P01,delight\n" for number in range(clips))
    sketches = (
        "id,filename,stimulus_type,included,draft,training,participant_id,satisfaction,sound_label,sound_label_id\n"
    )
    sketches += "".join(f"{n},Dog barking - {n:03d}.wav,s,1,0,0,7,5,Dog barking,3\n" for n in range(clips))
    events = "".join(f"mixture_devtrain_babycry_{n:03d}_{HASH}.wav\t0.1\t0.2\tbabycry\n" for n in range(clips))
    tables = {
        "audioset_vocalization/balanced_train_segments.csv": segments,
        "nonspeech7k/metadata of train set.csv": seven,
        "recanvo/dataset_file_directory.csv": canvo,
        "vocalsketch/vocal_imitations.csv": sketches,
        f"{tut}/{HASH}/meta/event_list_devtrain_babycry.csv": events,
    }
    return {**found, **{path: text.encode() for path, text in tables.items()}}


def stand_ins(cache: pathlib.Path, systems: tuple[str, ...]) -> None:
    """A cache of the Hub (HF_HUB_CACHE) that holds a small model of random weights under the id of each system."""
    import checkpoints  # imports torch and transformers, which the recordings do without
    import torch

    for number, name in enumerate(systems):
        system = paper_systems.SYSTEMS[name]
        if system.family == "opensmile":
            continue
        repository = cache / f"models--{system.source.replace('/', '--')}"
        snapshot = repository / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        if system.family == "emotion2vec":
            shutil.copy(checkpoints.BUNDLED / "emotion2vec_base" / "checkpoint.pt", snapshot / "emotion2vec_base.pt")
            continue
        classes = {"wav2vec2": "Wav2Vec2ForPreTraining", "hubert": "HubertModel", "wavlm": "WavLMModel"}
        model = checkpoints.model(classes.get(system.family, "Data2VecAudioModel"), **SMALL)
        noise = torch.Generator().manual_seed(number)
        for parameter in model.parameters():  # so that no two systems are the same
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=noise)
        model.save_pretrained(snapshot)
        if name.startswith("voc2vec"):  # as these are published
            (snapshot / "model.safetensors").unlink()
            torch.save(model.state_dict(), snapshot / "pytorch_model.bin")
        about = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": RATE_HZ}
        about |= {"feature_size": 1, "padding_value": 0.0, "return_attention_mask": system.family == "data2vec"}
        (snapshot / "preprocessor_config.json").write_text(json.dumps(about))


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
