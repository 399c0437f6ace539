"""`voc2vec train`: as `python -m voc2vec_jax.train`."""

from voc2vec_jax.pretraining import status


def main(argv: list[str]) -> int:
    """As `voc2vec_jax.train.main`; `--status` answers before JAX is imported."""
    if status.asked(argv):
        return status.main(argv)
    from voc2vec_jax import train

    return train.main(argv)
