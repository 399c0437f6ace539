"""Small random models in the place of the published ones, in the layouts that the Hub has."""

import json
import pathlib
import shutil

import checkpoints
import torch

from voc2vec_jax.convert import paper_systems

EXTRACTOR = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 16000,
}
# How each lies on the Hub: transformers' class, layout, the extractor's do_normalize (None: no preprocessor_config)
LAYOUTS = {
    "data2vec": ("Data2VecAudioModel", "bin", True),
    "wavlm": ("WavLMModel", "bin", False),
    "wavlm-plus": ("WavLMModel", "bin shards", False),
    "wav2vec2-ls": ("Wav2Vec2ForPreTraining", "bin", True),
    "wav2vec2-as": ("Wav2Vec2ForPreTraining", "bin", None),
    "hubert-ls": ("HubertModel", "bin", True),
    "hubert-as": ("HubertModel", "safetensors", True),
    "voc2vec": ("Wav2Vec2ForPreTraining", "safetensors", True),
    "voc2vec-as": ("Wav2Vec2ForPreTraining", "safetensors shards", True),
    "voc2vec-ls": ("Wav2Vec2ForPreTraining", "safetensors", None),
    "voc2vec-hubert-ls": ("HubertModel", "safetensors", True),
}
_SHARD = "30KB"


def source(system: str) -> str:
    """Its Hub id."""
    return paper_systems.SYSTEMS[system].source


def write(folder: pathlib.Path, system: str) -> pathlib.Path:
    """A stand-in's folder; no two systems have the same weights."""
    folder.mkdir(parents=True)
    if system == "emotion2vec":
        shutil.copy(checkpoints.BUNDLED / "emotion2vec_base" / "checkpoint.pt", folder / "emotion2vec_base.pt")
        return folder
    kind, layout, normalize = LAYOUTS[system]
    made = checkpoints.model(kind)
    with torch.no_grad():
        torch.manual_seed(sum(system.encode()))
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if layout.startswith("safetensors"):
        made.save_pretrained(folder, **({"max_shard_size": _SHARD} if "shards" in layout else {}))
    else:
        made.config.save_pretrained(folder)
        _write_bin(folder, made, "shards" in layout)
    if normalize is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR | {"do_normalize": normalize}))
    return folder


def _write_bin(folder: pathlib.Path, made: torch.nn.Module, shards: bool) -> None:
    """As torch.save wrote them before safetensors, with the weight norm's names of that time."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = made.state_dict()
    for new, old in names.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    if not shards:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    files = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    placed = {name: files[number % 2] for number, name in enumerate(tensors)}
    for file in files:
        torch.save({name: tensors[name] for name, where in placed.items() if where == file}, folder / file)
    index = {"metadata": {}, "weight_map": placed}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
