"""Durations as people read them."""

import math


def words(seconds: float | int | None) -> str:
    """Seconds as people read them, two units at most: 2d03h, 3h12m, 12m30s, 45s; None is a dash."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"
