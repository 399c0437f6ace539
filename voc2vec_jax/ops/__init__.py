"""Pure functions on arrays: convolutions, attention, norms, masks, losses, metrics and schedules."""
