"""Pre-trains a model, or says where a run stands.

voc2vec train --config=quickstart --workdir=runs/quickstart          a first run, minutes on a CPU
voc2vec train --config=voc125 --workdir=runs/voc2vec                 the paper's recipe
voc2vec train --config=voc125:tiny --config.sets=mine --workdir=RUN  a tiny model on your prepared set
voc2vec train --config=voc125 --workdir=RUN --dry_run                what it would take
voc2vec train --status --workdir=RUN                                 where it stands
"""

from voc2vec_jax.pretraining import status


def main(argv: list[str]) -> int:
    """As `voc2vec_jax.train.main`; `--status` answers before JAX is imported."""
    if status.asked(argv):
        return status.main(argv)
    from voc2vec_jax import train

    return train.main(argv)
