"""What preparing found, for the report beside a prepared set."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from voc2vec_jax import audio
from voc2vec_jax.datasets import listings, shards


def build(
    source: listings.Source, listing: listings.Listing, digest: str, made: Sequence[shards.Shard]
) -> dict[str, Any]:
    """What preparing found: counts, hours, clipped samples, unreadable files, warnings and the paper's numbers."""
    samples: Counter[str] = Counter()
    for shard in made:
        for row in shard.rows:
            samples[row.recording] += row.samples
    hours = sum(samples.values()) / audio.RATE_HZ / 3600
    clipped = {path: count for shard in made for path, count in shard.clipped.items()}
    warnings = []
    if source.paper_samples and len(listing.recordings) != source.paper_samples:
        known = f" ({source.difference})" if source.difference else ""
        warnings.append(f"{len(listing.recordings)} recordings where the paper has {source.paper_samples}{known}")
    return {
        "title": source.title,
        "listing": digest,
        "listed": len(listing.recordings),
        "files": len(samples),
        "records": sum(len(shard.rows) for shard in made),
        "hours": hours,
        "mean_seconds": hours * 3600 / max(len(samples), 1),
        "paper_samples": source.paper_samples,
        "paper_hours": source.paper_hours,
        "clipped_samples": sum(clipped.values()),
        "clipped_files": clipped,
        "unreadable": [*listing.unreadable, *(bad for shard in made for bad in shard.unreadable)],
        "warnings": warnings,
        "notes": listing.notes,
    }
