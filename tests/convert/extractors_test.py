"""convert: the feature extractor and the labels of a source are what is used, or a sentence says why not."""

import json

import checkpoints
import numpy as np
import pytest
import tiny_whisper
import torch
import transformers

import voc2vec_jax as v2v
from voc2vec_jax import errors
from voc2vec_jax.convert import extractors, head_labels, reader, torch_files, writer

RATE = 16_000


def processor(folder, name="feature_extractor", **settings):
    """The file of a processor as transformers 5 writes it, around the settings of its extractor."""
    extractor = transformers.Wav2Vec2FeatureExtractor(**settings).to_dict()
    said = {name: extractor, "processor_class": "Wav2Vec2Processor"}
    (folder / "processor_config.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    checkpoints.source(folder, "Wav2Vec2Model large", **checkpoints.LARGE)
    return folder


@pytest.fixture
def folder(tmp_path, plain):
    """A model without a word on its input."""
    for path in plain.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("normalize", [False, True])
def test_features_are_those_of_transformers_with_the_processors_file_alone(folder, normalize):
    processor(folder, do_normalize=normalize)
    audio = (0.01 * np.random.default_rng(0).standard_normal(4000) + 0.1).astype(np.float32)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        given = extractor(audio, sampling_rate=RATE, return_tensors="pt").input_values
        theirs = transformers.AutoModel.from_pretrained(folder).eval()(given).last_hidden_state.mean(1).numpy()
    model = v2v.from_pretrained(folder, dtype="float32")
    np.testing.assert_allclose(model.embed([audio]), theirs, atol=1e-5)
    assert np.abs(model(audio[None], normalize=not normalize).last_hidden_state.mean(1) - theirs).max() > 1e-2
    assert model.checkpoint.normalize is normalize


def test_the_processors_extractor_goes_first_and_a_difference_is_told(folder, capsys):
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    for name in ("feature_extractor", "audio_processor"):
        processor(folder, name, do_normalize=False)
        assert transformers.AutoFeatureExtractor.from_pretrained(folder).do_normalize is False
        assert reader.read(folder).normalize is False
        said = capsys.readouterr().err
        assert "processor_config.json and preprocessor_config.json disagree (do_normalize False and True)" in said
    processor(folder, do_normalize=True)
    assert reader.read(folder).normalize is True and not capsys.readouterr().err
    # Before transformers 5 the processor's file had no extractor in it
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Wav2Vec2Processor"}))
    assert reader.read(folder).normalize is True and not capsys.readouterr().err
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": "Wav2Vec2FeatureExtractor"}))
    checkpoints.assert_refused("feature_extractor is a str where an object is needed", folder)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000, but only 16000 is supported: audio is computed at 16000 Hz"),
        ({"sampling_rate": 48_000}, "sampling_rate is 48000"),
        ({"feature_size": 80}, "feature_size is 80, but only 1 is supported"),
        ({"do_normalize": "false"}, "do_normalize is 'false', but only True or False"),
        ({"do_normalize": None}, "do_normalize is None"),
        ({"return_attention_mask": "no"}, "return_attention_mask is 'no'"),
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor"}, "but only None or 'Wav2Vec2FeatureExtractor'"),
    ],
)
def test_an_extractor_that_is_not_built_here_gives_one_sentence(folder, settings, reason):
    extractor = transformers.Wav2Vec2FeatureExtractor().to_dict() | settings
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    checkpoints.assert_refused(f"preprocessor_config.json: .*{reason}", folder)
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    checkpoints.assert_refused(f"processor_config.json: .*{reason}", folder)


@pytest.mark.parametrize(
    ("settings", "masks"),
    [
        ({}, True),
        ({"do_normalize": True}, False),
        ({"return_attention_mask": True}, True),
        ({"return_attention_mask": False}, False),
    ],
)
def test_without_a_file_there_is_a_mask_and_in_a_file_none_goes_without_saying(settings, masks):
    assert extractors.masks(settings) is masks


def test_a_rate_is_refused_in_every_layout(tmp_path):
    path = checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt"
    tree = torch_files.load(path)
    tree["model"] = {name: tensor.read() for name, tensor in tree["model"].items()}
    tree["cfg"]["task"]["sample_rate"] = 8000
    torch_files.save(tmp_path / "a.pt", tree)
    checkpoints.assert_refused("sample_rate is 8000, but only 16000", tmp_path / "a.pt")
    writer.write_jax(tmp_path / "own", reader.read(path))
    said = json.loads((tmp_path / "own" / "config.json").read_text())
    said["preprocessor"] = {"sampling_rate": 8000, "do_normalize": True}
    (tmp_path / "own" / "config.json").write_text(json.dumps(said))
    checkpoints.assert_refused("preprocessor in .*: sampling_rate is 8000, but only 16000", tmp_path / "own")


def test_whispers_extractor_inside_a_processor_is_checked(tmp_path):
    tiny_whisper.model().save_pretrained(tmp_path)
    extractor = transformers.WhisperFeatureExtractor(hop_length=320).to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    checkpoints.assert_refused("processor_config.json: hop_length is 320, but only 160", tmp_path)


def test_no_extractor_is_written_where_another_would_hide_it(folder, tmp_path):
    weights = reader.read(folder)
    target = tmp_path / "out"
    target.mkdir()
    processor(target, do_normalize=False)
    with pytest.raises(errors.InputError, match="transformers takes instead of the one to be written"):
        writer.write_hf(target, weights)
    assert [path.name for path in target.iterdir()] == ["processor_config.json"]


@pytest.mark.parametrize("settings", [{"padding_side": "left"}, {"padding_value": 0.5}])
def test_legacy_padding_is_zeros_on_the_right(folder, settings):
    transformers.Wav2Vec2FeatureExtractor(**settings).save_pretrained(folder)
    v2v.from_pretrained(folder)
    with pytest.raises(errors.InputError, match=f"has {next(iter(settings))}|{next(iter(settings))} is"):
        v2v.from_pretrained(folder, padding="legacy")


# --- labels ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    checkpoints.source(folder, "Wav2Vec2ForSequenceClassification", num_labels=3)
    return folder


def labelled(tmp_path, classifier, **changes):
    """The classifier with another configuration."""
    said = json.loads((classifier / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "model.safetensors").symlink_to(classifier / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("named", "labels", "told"),
    [
        ({"0": "a", "1": "b", "2": "c"}, ("a", "b", "c"), None),
        ({"2": "c", "0": "a", "1": "b"}, ("a", "b", "c"), None),
        ({"10": "x", "8": "v", "9": "w"}, ("v", "w", "x"), "id2label counts from 8"),
        ({"1": "a", "2": "b", "3": "c"}, ("a", "b", "c"), "id2label counts from 1; its labels are taken for the outp"),
        ({"0": 3, "1": 5, "2": 7.5}, ("3", "5", "7.5"), None),
    ],
)
def test_labels_follow_the_numbers_of_the_outputs(tmp_path, classifier, capsys, named, labels, told):
    got = reader.read(labelled(tmp_path, classifier, id2label=named, label2id=None))
    said = capsys.readouterr().err
    assert got.labels == labels and (told in said if told else not said)


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"0": "a", "1": "b"}, "names 2 labels, but the classifier has 3 outputs"),
        ({"0": "a", "2": "b", "5": "c"}, "the keys of id2label are 0, 2, 5, but the classifier's outputs are 0 to 2"),
        ({"-1": "a", "0": "b", "1": "c"}, "the keys of id2label are -1, 0, 1"),
        ({"0": "a", "00": "b", "1": "c"}, "the keys of id2label are 0, 1"),
        ({"a": 0, "b": 1, "c": 2}, "id2label has the key 'a' where the number of an output is needed"),
        ({"0": "a", "1": None, "2": "c"}, "id2label holds None where a label is needed"),
        ({"0": "a", "1": "", "2": "c"}, "id2label holds '' where a label is needed"),
        ({"0": "a", "1": "a", "2": "c"}, "id2label gives 'a' to several outputs"),
        (["a", "b", "c"], "names 3 labels|id2label is a list"),
    ],
)
def test_labels_that_do_not_fit_the_outputs_give_one_sentence(tmp_path, classifier, named, reason):
    checkpoints.assert_refused(reason, labelled(tmp_path, classifier, id2label=named))


def test_a_classifier_without_outputs_gives_one_sentence():
    with pytest.raises(errors.InputError, match="the classifier has no outputs"):
        head_labels.read({}, 0, "config.json")


def test_label2id_that_says_otherwise_is_told(tmp_path, classifier, capsys):
    names = {"0": "a", "1": "b", "2": "c"}
    got = reader.read(labelled(tmp_path, classifier, id2label=names, label2id={"a": 0, "b": 2, "c": 1}))
    assert got.labels == ("a", "b", "c")
    assert "output 1 is 'b' by id2label, which is taken, and 2 by label2id" in capsys.readouterr().err


def test_the_configuration_says_which_layers_a_classifier_sees(tmp_path, classifier):
    summed = tmp_path / "summed"
    made = checkpoints.model("HubertForSequenceClassification", **checkpoints.SUMMED)
    with torch.no_grad():
        made.classifier.weight.mul_(50)
    made.save_pretrained(summed)
    assert reader.read(summed).head.layer_sum
    said = json.loads((summed / "config.json").read_text()) | {"use_weighted_layer_sum": False}
    (summed / "config.json").write_text(json.dumps(said))
    got = reader.read(summed)
    assert not got.head.layer_sum and "layer_weights" in got.unused
    audio = 0.1 * np.random.default_rng(0).standard_normal(1600, dtype=np.float32)
    given = transformers.Wav2Vec2FeatureExtractor()(audio, sampling_rate=RATE, return_tensors="pt").input_values
    shares = {}
    for summing in (True, False):
        made.config.use_weighted_layer_sum = summing
        with torch.no_grad():
            shares[summing] = torch.softmax(made(given).logits, -1).numpy()
    ours = v2v.from_pretrained(summed, dtype="float32").predict([audio]).probabilities
    np.testing.assert_allclose(ours, shares[False], atol=1e-5)
    assert np.abs(ours - shares[True]).max() > 1e-3
    checkpoints.assert_refused(
        "lacks layer_weights, which use_weighted", labelled(tmp_path, classifier, use_weighted_layer_sum=True)
    )


def test_a_kind_of_answers_that_there_is_not_is_refused(tmp_path, classifier):
    folder = labelled(tmp_path, classifier, problem_type="ranking")
    checkpoints.assert_refused("problem_type 'ranking' is none of single_label_classification", folder)
