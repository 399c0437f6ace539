"""What is said when the Hub does not answer."""

import huggingface_hub
import pytest

from voc2vec_jax import errors
from voc2vec_jax.inference import publishing

httpx = pytest.importorskip("httpx")


def test_a_hub_out_of_reach_is_one_sentence_and_other_faults_are_told_as_they_are(tmp_path, monkeypatch):
    def fails(fault):
        def create_repo(*_, **__):
            raise fault

        monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
        publishing.upload(tmp_path, "me/cries")

    with pytest.raises(errors.InputError, match=r"out of reach \(no route\): connect, or write a folder with --output"):
        fails(httpx.ConnectError("no route"))
    with pytest.raises(errors.InputError, match=r"does not take me/cries \(403\): log in"):
        fails(OSError("403"))
    with pytest.raises(TypeError, match="a mistake"):
        fails(TypeError("a mistake"))
