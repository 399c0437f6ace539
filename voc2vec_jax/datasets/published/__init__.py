"""One page for each data set. To add one:

1. Copy `vivae.py`, the shortest, to `<name>.py`; describe in `LAYOUT` the paths of its recordings and their labels.
2. Fill in `SOURCE`: name, address, licence, and what the folder or archive must hold.
3. Add the name to `OTHERS` in `../catalog.py`; `PRETRAINING` and `TASKS` are the paper's and stay as they are.
4. Add a miniature of its folders to `tests/datasets/published_test.py`, with the group and label of each file, and a
   row to the tables of `../README.md`.
5. If it comes with a csv file, or in several archives, start from `recanvo.py` or `nonspeech7k.py` instead.
"""
