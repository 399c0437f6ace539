"""data2vec-audio is the same function as in transformers."""

import parity
import pytest
import transformers

POSITIONS = {"conv_pos_kernel_size": 7, "num_conv_pos_embeddings": 5, "num_conv_pos_embedding_groups": 4}
EVEN_POSITIONS = {"conv_pos_kernel_size": 6, "num_conv_pos_embeddings": 2, "num_conv_pos_embedding_groups": 7}
CONFIGS = {
    "base": parity.NARROW | parity.STEM | POSITIONS,
    "large": parity.NARROW | parity.SHORT_STEM | POSITIONS | {"num_hidden_layers": 4, "hidden_size": 64},
    "odd sizes": parity.ODD | parity.SHORT_STEM | EVEN_POSITIONS,
    "other strides": parity.NARROW | parity.COARSE_STEM | POSITIONS | {"conv_bias": True},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_same_as_transformers(name, tmp_path):
    parity.assert_same_as_transformers(transformers.Data2VecAudioModel, CONFIGS[name], tmp_path)
