"""The data sets as TFDS builders, for those who prepare with TFDS itself.

Importing this module registers them: `tfds.builder("human_voice", file_format="array_record")` then works. TFDS uses
one process and starts again after a kill. `datasets.prepare` writes the same examples in parallel, resumes, and adds
the index that training needs.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from voc2vec_jax import printable
from voc2vec_jax.datasets import catalog, listings, preparing, records, shard_jobs, shards


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Generates the examples of its `source`; leaves out unreadable recordings and logs why."""

    VERSION = tfds.core.Version(records.VERSION)
    code_path = None  # there are no checksums; TFDS would look for them with a package that it does not require
    source: listings.Source

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=shards.features(),
            description=self.source.title,
            homepage=self.source.url,
            license=self.source.licence,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        manual_dir = pathlib.Path(dl_manager.manual_dir) if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None
        listing = preparing.list_source(self.source, manual_dir)
        return {records.SPLIT: self._generate_examples(listing)}

    def _generate_examples(self, listing: listings.Listing) -> Iterator[tuple[str, dict[str, Any]]]:
        odd = shard_jobs.Oddities()
        for example in shard_jobs.examples(listing.loader, listing.recordings, odd, listing.how):
            yield example.id, example._asdict()
        for bad in odd.unreadable:
            logging.warning("%s: left out %s: %s", self.source.name, *map(printable.line, (bad["path"], bad["reason"])))
        for remark in odd.remarks:
            logging.warning("%s: %s %s", self.source.name, *map(printable.line, (remark["path"], remark["text"])))


def _builder(source: listings.Source) -> type[Builder]:
    fields = {"name": source.name, "source": source, "__module__": __name__, "__doc__": source.title}
    if source.name != "synthetic":
        fields["MANUAL_DOWNLOAD_INSTRUCTIONS"] = f"From {source.url} ({source.licence}); it must hold {source.holds}."
    return type("".join(word.title() for word in source.name.split("_")), (Builder,), fields)


BUILDERS = {name: _builder(source) for name, source in catalog.CATALOG.items()}
