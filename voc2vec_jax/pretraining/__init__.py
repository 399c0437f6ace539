"""Recipe, batches, step and loop of pre-training."""
