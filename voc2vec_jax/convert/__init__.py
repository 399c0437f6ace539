"""PyTorch weights in and out, without PyTorch."""
