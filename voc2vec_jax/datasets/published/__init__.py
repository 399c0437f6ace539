"""One page for each published data set."""
