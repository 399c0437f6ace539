"""The packages of the wheel; all else is in pyproject.toml.

The recipes in configs/ become voc2vec_jax/configs, so that an installed program finds them by name
(`voc2vec_jax.runs.recipes`). In a clone they stay where a reader looks for them.
"""

import setuptools

RECIPES = "voc2vec_jax.configs"
VECTORS = "voc2vec_jax.verification.vectors"  # of emotion2vec's own code, for `voc2vec verify`

setuptools.setup(
    packages=[*setuptools.find_packages(include=["voc2vec_jax*"]), RECIPES, VECTORS],
    package_dir={RECIPES: "configs", VECTORS: "tests/golden/emotion2vec_base"},
)
