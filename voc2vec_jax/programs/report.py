"""Writes a report of fine-tuning runs: one page, and its tables and pictures as files.

    voc2vec report RUN... --output=report.html [--audio=FOLDER] [--embed_audio] [--formats=png,pdf] [--others]

RUN is a run folder of voc2vec_jax.finetune, or a folder of such folders. Beside report.html it writes the tables that
have rows as Markdown and LaTeX (report_scores.md, ...), every picture in report_figures/, predictions and configuration
of each run in report_runs/, and the clips that the page plays in report_audio/. Above 20 MB of pictures the page shows
those of report_figures/. Send these along, or give --embed_audio and send report.html alone.
"""

import sys

from voc2vec_jax import errors, printable
from voc2vec_jax.reports import build
from voc2vec_jax.runs import cli

FLAGS = {
    "output": cli.Flag("the page to write; tables and pictures go beside it", required=True, shown="report.html"),
    "audio": cli.Flag("folder of the recordings, if they have moved since the runs read them", shown="FOLDER"),
    "embed_audio": cli.Flag("put all clips and pictures into the page, to send it alone", default=False, kind=bool),
    "formats": cli.Flag("formats of the picture files: png, pdf, svg", default="png,pdf"),
    "others": cli.Flag("columns with what others published on the paper's tasks", default=False, kind=bool),
}
WORDS = cli.Positional("RUN", "run folder of fine-tuning, or a folder of run folders")


def main(argv: list[str]) -> int:
    """Writes the report and lists the runs that are incomplete."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec report", positional=WORDS, about=__doc__)
    formats = [kind for kind in arguments.formats.split(",") if kind]
    found = build.write(
        arguments.words,
        arguments.output,
        audio=arguments.audio,
        embed_audio=arguments.embed_audio,
        formats=formats,
        others=arguments.others,
        say=lambda text: printable.show(text, file=sys.stderr, flush=True),
    )
    for text in found.warnings:
        printable.show(f"incomplete: {text}")
    sets = len({run.dataset for run in found.runs})
    runs = f"{len(found.runs)} run{'s' * (len(found.runs) != 1)} on {sets} data set{'s' * (sets != 1)}"
    size = found.page.stat().st_size / 1e6
    printable.show(f"{found.page}: {runs}, {size:.1f} MB, {len(found.files) - 1} files beside it")
    return errors.EXIT_DONE
