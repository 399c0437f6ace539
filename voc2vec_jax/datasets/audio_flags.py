"""The flags of programs that read recordings."""

from voc2vec_jax import audio
from voc2vec_jax.runs import cli

FLAGS = {
    "channel": cli.Flag(
        "what several channels become: their mean, the first, or the one with the most energy",
        default=audio.DEFAULT.channel,
        choices=audio.CHANNELS,
    ),
    "on_truncated": cli.Flag(
        "a recording that ends early is used as far as it goes (warn), or refused",
        default=audio.DEFAULT.on_truncated,
        choices=audio.ON_TRUNCATED,
    ),
    "rescale_float": cli.Flag(
        "divide floats in the scale of whole numbers by it, which are refused otherwise",
        default=audio.DEFAULT.rescale_float,
        kind=bool,
    ),
}


def reading_of(arguments: cli.Arguments) -> audio.Reading:
    """How recordings are read, by the command line."""
    return audio.Reading(*(arguments.values[name] for name in audio.Reading._fields))
