"""HuBERT's targets: clustered features of every frame."""
