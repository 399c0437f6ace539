"""A loaded model on recordings."""
