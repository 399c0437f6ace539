"""A page on this machine: record or drop a sound, and a fine-tuned model answers.

    voc2vec demo RUN                              the model of a run, http://127.0.0.1:7860
    voc2vec demo RUN/fold_03/model --port=8000    the model of a fold

The page shows class probabilities, how they go over time, and the training clips that are nearest. Sounds are computed
here and deleted when the program ends (Ctrl-C).
"""

import contextlib
import functools
import threading

from voc2vec_jax import errors, printable
from voc2vec_jax.demo import answering, neighbours, page
from voc2vec_jax.inference import pretrained
from voc2vec_jax.reports import model_card
from voc2vec_jax.runs import cli, logs

FLAGS = {
    "port": cli.Flag("of the page; 0: a free one", default=7860, kind=int),
    "host": cli.Flag("address to listen at; 0.0.0.0 lets other machines of the network in", default="127.0.0.1"),
    "browser": cli.Flag("open the page in a browser", default=False, kind=bool),
    "data_dir": cli.Flag("folder of prepared sets, if the run's is elsewhere"),
    "neighbours": cli.Flag("training clips to compute features of at the start; 0: none", default=1000, kind=int),
    "window_seconds": cli.Flag("window of the timeline", default=2.0, kind=float),
    "hop_seconds": cli.Flag("from window to window", default=0.5, kind=float),
}
WORDS = cli.Positional("RUN", "a run of fine-tuning or a fine-tuned model", most=1)


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec demo", positional=WORDS, about=__doc__)
    page.module()  # before a model is loaded
    source = arguments.words[0]
    model = pretrained.from_pretrained(source)
    if not model.labels:
        raise errors.InputError(f"{source} has no classes to show: give a fine-tuned model, or a run of fine-tuning")
    found, clips, why = model_card.find(source), None, "it is not asked for"
    try:
        if found is None:
            why = f"{source} is no run, which knows what it was trained on"
        elif arguments.neighbours > 0:
            clips = neighbours.open_clips(model, found, arguments.data_dir, arguments.neighbours)
    except errors.InputError as fault:
        why = str(fault)
        logs.warn(why)
    answerer = answering.Answerer(model, clips, arguments.window_seconds, arguments.hop_seconds)
    build = functools.partial(page.build, answerer, page.heading(found, answerer), why)
    with page.served(build, arguments.host, arguments.port, browser=arguments.browser) as address:
        printable.show(f"the demo is at {address} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return errors.EXIT_DONE
