"""wav2vec 2.0 is the same function as in transformers."""

import parity
import pytest
import transformers


@pytest.mark.parametrize("name", parity.CONFIGS)
def test_same_as_transformers(name, tmp_path):
    parity.assert_same_as_transformers(transformers.Wav2Vec2Model, parity.CONFIGS[name], tmp_path)
