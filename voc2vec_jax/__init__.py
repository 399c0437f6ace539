"""Self-supervised models for the human voice beyond words, in JAX."""
