"""What measures the library; `tools/benchmark.py` is the front door."""
