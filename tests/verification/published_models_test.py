"""Published numbers of stand-ins: what transformers computes of random weights is found again here, and a change is."""

import dataclasses

import numpy as np
import parity
import pytest
import soundfile
import torch
import transformers
from transformers.models.wav2vec2 import modeling_wav2vec2

from voc2vec_jax.convert import paper_systems, sources
from voc2vec_jax.verification import pins, published, published_numbers

pytestmark = pytest.mark.slow
TINY = parity.NARROW | parity.STEM | parity.POSITIONS
WRONG = 1.0  # at most added to a parameter


def numbers_of(monkeypatch, **changed):
    for name, value in changed.items():
        monkeypatch.setattr(published_numbers, name, value)


def recorded(folder, clips):
    """Noise under the names and of the lengths of the suite's recordings."""
    rng = np.random.default_rng(0)
    found = []
    for clip in clips:
        samples = (0.1 * rng.standard_normal(round(16000 * clip.seconds))).astype(np.float32)
        soundfile.write(folder / f"{clip.stem}.wav", samples, 16000, subtype="FLOAT")
        found.append(samples)
    return found


def extracted(folder, clips, masked):
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masked)
    extractor.save_pretrained(folder)
    return extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")


def broken(monkeypatch, name):
    """From here on, one parameter is read otherwise than it is stored."""
    read = sources.read

    def change(where):
        weights = read(where)
        changed = dataclasses.replace(weights, params=copied(weights.params))
        leaf = changed.params
        *path, last = name.split("/")
        for part in path:
            leaf = leaf[part]
        leaf[last] = leaf[last] + np.linspace(-WRONG, WRONG, leaf[last].size, dtype=np.float32).reshape(
            leaf[last].shape
        )
        return changed

    monkeypatch.setattr(sources, "read", change)


def copied(tree):
    return {name: copied(value) if hasattr(value, "items") else value for name, value in tree.items()}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, tmp_path):
    """Each system is the model in this folder, whatever its files are."""
    for name, row in paper_systems.SYSTEMS.items():
        monkeypatch.setitem(paper_systems.SYSTEMS, name, row._replace(source=str(tmp_path / "model")))
    monkeypatch.setattr(pins, "PINS", {})


def verdicts(system, folder):
    return [row.verdict for row in published.rows([system], folder)]


def test_objective_of_wav2vec2(monkeypatch, tmp_path):
    config = transformers.Wav2Vec2Config(**TINY, mask_time_prob=0.05, feat_quantizer_dropout=0.0, layerdrop=0.0)
    for name in ("attention_dropout", "hidden_dropout", "feat_proj_dropout", "activation_dropout"):
        setattr(config, name, 0.0)
    model = parity.random_model(transformers.Wav2Vec2ForPreTraining, config)
    model.save_pretrained(tmp_path / "model")
    clips = recorded(tmp_path, published_numbers.SPEECH)

    def draw(audio, seed):
        shape = (2, int(model._get_feat_extract_output_lengths(audio.shape[1])))
        np.random.seed(seed)  # noqa: NPY002  (transformers draws from it)
        masks = modeling_wav2vec2._compute_mask_indices(shape, 0.05, 10, min_masks=2)
        return shape, masks

    audio = extracted(tmp_path / "model", clips, True).input_values
    shape, masks = draw(audio, published_numbers.LOSS_SEED)
    negatives = modeling_wav2vec2._sample_negative_indices(shape, config.num_negatives, masks)
    torch.manual_seed(published_numbers.LOSS_SEED)
    with torch.no_grad():
        out = model.train()(
            audio, mask_time_indices=torch.from_numpy(masks), sampled_negative_indices=torch.from_numpy(negatives)
        )
    entries = config.num_codevectors_per_group * config.num_codevector_groups
    diversity = (entries - float(out.codevector_perplexity)) / entries
    numbers_of(monkeypatch, LOSS=float(out.loss), DIVERSITY=diversity)

    audio = extracted(tmp_path / "model", clips, False).input_values
    masks = torch.from_numpy(draw(audio, published_numbers.COSINES_SEED)[1])
    with torch.no_grad():
        out = model.eval()(audio, mask_time_indices=masks)
    cosines = torch.cosine_similarity(out.projected_states, out.projected_quantized_states, dim=-1)[masks].numpy()
    assert cosines.shape == published_numbers.COSINES.shape
    numbers_of(monkeypatch, COSINES=cosines)

    assert verdicts("wav2vec2-ls", tmp_path) == ["equal"] * 3
    with monkeypatch.context() as patch:
        broken(patch, "encoder/norm/bias")
        assert verdicts("wav2vec2-ls", tmp_path) == ["differs", "equal", "differs"]
    broken(monkeypatch, "quantizer/logits/bias")
    assert verdicts("wav2vec2-ls", tmp_path) == ["differs"] * 3


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # transformers' WavLM
def test_frames_of_wavlm(monkeypatch, tmp_path):
    model = parity.random_model(transformers.WavLMModel, transformers.WavLMConfig(**TINY))
    model.save_pretrained(tmp_path / "model")
    clips = recorded(tmp_path, published_numbers.SPEECH)
    given = extracted(tmp_path / "model", clips, True)
    with torch.no_grad():
        states = model(given.input_values, attention_mask=given.attention_mask).last_hidden_state
    extracted(tmp_path / "model", clips, False)  # as published: the suite asks for the mask that the file denies
    numbers_of(monkeypatch, WAVLM_SLICE=states[:, -2:, -2:].numpy(), WAVLM_TOLERANCE=1e-5)
    assert verdicts("wavlm-plus", tmp_path) == ["equal"]
    broken(monkeypatch, "encoder/norm/bias")
    assert verdicts("wavlm-plus", tmp_path) == ["differs"]


def test_features_and_units_of_hubert(monkeypatch, tmp_path):
    model = parity.random_model(transformers.HubertModel, transformers.HubertConfig(**TINY))
    model.save_pretrained(tmp_path / "model")
    (clip,) = recorded(tmp_path, [published_numbers.PLUMBING])
    extracted(tmp_path / "model", [clip], False)  # normalises, which the suite does not
    with torch.no_grad():
        states = model(torch.from_numpy(clip)[None], output_hidden_states=True).hidden_states[1][0].numpy()
    centroids = np.random.default_rng(0).standard_normal((7, 32)).astype(np.float32)
    units = ((states[:, None].astype(np.float64) - centroids) ** 2).sum(-1).argmin(1)
    np.save(tmp_path / published_numbers.HUBERT_FILE, states)
    numbers_of(
        monkeypatch,
        HUBERT_LAYER=1,
        HUBERT_SHAPE=states.shape,
        HUBERT_UNITS=units,
        CENTROIDS_SHAPE=centroids.shape,
        HUBERT_FEATURES=states[list(published_numbers.HUBERT_FRAMES), :8].round(4),
    )
    assert verdicts("hubert-ls", tmp_path) == ["equal", "not checked"]
    np.save(tmp_path / published_numbers.CENTROIDS_FILE, centroids)
    assert verdicts("hubert-ls", tmp_path) == ["equal", "equal"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / published_numbers.HUBERT_FILE).unlink()
    row = published.rows(["hubert-ls"], tmp_path)[0]
    assert (row.verdict, row.why[:26]) == ("equal", "compared are 40 of 19,072 ")
    broken(monkeypatch, "encoder/norm/bias")
    assert verdicts("hubert-ls", tmp_path) == ["differs", "differs"]
