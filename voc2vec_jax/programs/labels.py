"""Label files of Audacity, Praat, Raven or RTTM as one csv list, to be looked at, corrected and trained on.

    voc2vec labels 'NIGHTS/*.TextGrid' --output=labels.csv                      path,start,end,label
    voc2vec labels 'NIGHTS/*.txt' --output=labels.csv --rest=background         with clips of what has no label

A model that is to find events in long recordings needs a class for everything else: --rest makes its clips.
"""

import collections
import pathlib

from voc2vec_jax import errors
from voc2vec_jax.datasets import label_tables, lists, manifest_listings
from voc2vec_jax.runs import cli, logs

FLAGS = {
    "output": cli.Flag("the csv list to write", required=True),
    "rest": cli.Flag("class of clips of what has no label; none are made without it"),
    "rest_seconds": cli.Flag("longest of these clips", default=10.0, kind=float),
    "rest_clips": cli.Flag("most of these clips, evenly spread; 0: as many as there are labels", default=0, kind=int),
}
WORDS = cli.Positional("LABELS", "a label file, a pattern of several in quotes, or a list with start and end", most=1)


def main(argv: list[str]) -> int:
    """Entry point of the command line."""
    arguments = cli.parse(argv, flags=FLAGS, program="voc2vec labels", positional=WORDS, about=__doc__)
    source, output = pathlib.Path(arguments.words[0]).expanduser(), pathlib.Path(arguments.output)
    if not lists.is_there(source):
        raise errors.InputError(f"there is no {source}: give a label file, or a pattern such as 'FOLDER/*.TextGrid'")
    if source.is_dir():
        raise errors.InputError(f"{source} is a folder: give a pattern, such as '{source}/*.TextGrid'")
    if not output.parent.is_dir():
        raise errors.InputError(f"--output={output}: there is no folder {output.parent}")
    listing, root = manifest_listings.list_manifest(source), lists.root_of(source)
    if not listing.has_stretches:
        raise errors.InputError(
            f"{source} lists whole recordings and no stretches: give label files, or a list with columns start and end"
        )
    for note in listing.notes:
        logs.warn(note)
    asked = label_tables.Rest(arguments.rest, arguments.rest_seconds, arguments.rest_clips) if arguments.rest else None
    clips = label_tables.clips_of(listing, root, asked)
    label_tables.write(clips, root, output)
    counts = collections.Counter(clip.label for clip in clips)
    logs.say(f"{output}: {len(clips):,} clips ({', '.join(f'{label} {n:,}' for label, n in counts.most_common(10))})")
    return errors.EXIT_DONE
