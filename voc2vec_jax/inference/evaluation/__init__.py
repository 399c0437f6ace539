"""A model on any number of recordings, with results in files."""
