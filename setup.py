"""The packages of the wheel; all else is in pyproject.toml.

The recipes in configs/ become voc2vec_jax/configs, so that an installed program finds them by name
(`voc2vec_jax.runs.recipes`). In a clone they stay where a reader looks for them.
"""

import setuptools

RECIPES = "voc2vec_jax.configs"

setuptools.setup(
    packages=[*setuptools.find_packages(include=["voc2vec_jax*"]), RECIPES],
    package_dir={RECIPES: "configs"},
)
