"""The flags of what is made of a timeline, and what they ask for."""

from voc2vec_jax import errors
from voc2vec_jax.inference.timelines import drawing, events
from voc2vec_jax.runs import cli

FLAGS = {
    "threshold": cli.Flag("timelines: probability at which an event begins", default=0.5, kind=float),
    "release": cli.Flag("timelines: probability below which it ends; 0: 0.7 thresholds", default=0.0, kind=float),
    "least_seconds": cli.Flag("timelines: shorter events are left out", default=0.0, kind=float),
    "gap_seconds": cli.Flag("timelines: events of a class this far apart are one", default=0.0, kind=float),
    "background": cli.Flag("timelines: classes that are no events, separated by commas", default=""),
    "pages": cli.Flag("timelines: recordings that get a page and label files", default=50, kind=int),
    "sound_minutes": cli.Flag("timelines: longest whose page holds the sound", default=10.0, kind=float),
}


def read(arguments: cli.Arguments, timeline: bool = True) -> tuple[events.Rules, drawing.Wanted]:
    """What the flags say; InputError for one that is given without `timeline`."""
    values = {name: getattr(arguments, name) for name in FLAGS}
    if given := [name for name, flag in FLAGS.items() if values[name] != flag.default and not timeline]:
        raise errors.InputError(f"--{given[0]}={values[given[0]]} is for timelines: add --timeline")
    values["background"] = tuple(name.strip() for name in values["background"].split(",") if name.strip())
    rules = events.Rules(**{name: values[name] for name in events.Rules._fields})
    return rules, drawing.Wanted(**{name: values[name] for name in drawing.Wanted._fields})
