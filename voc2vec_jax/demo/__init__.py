"""A page on this machine where a sound is recorded or dropped and a fine-tuned model answers."""
