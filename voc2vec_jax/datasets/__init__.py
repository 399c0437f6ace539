"""Data sets: where each is to be had, how it is prepared, and how a prepared set is read."""
