"""JAX does not survive a fork: its threads stay behind, and the first computation of the child waits for ever."""

import os

from voc2vec_jax import errors

_using_jax: set[int] = set()  # processes with a model, this one and its ancestors by fork


def used() -> None:
    """To be called where this process is about to compute. RunError in a fork of one that did so before."""
    if _using_jax - {os.getpid()}:
        raise errors.RunError(
            "this process was forked from one that had loaded a model, and JAX cannot compute after a fork: start "
            "workers with spawn (DataLoader(..., multiprocessing_context='spawn')), or compute in the main process"
        )
    _using_jax.add(os.getpid())
