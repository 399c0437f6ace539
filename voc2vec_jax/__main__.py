"""`python -m voc2vec_jax COMMAND`: the program `voc2vec`."""

from voc2vec_jax.programs import main

if __name__ == "__main__":
    main.command()
