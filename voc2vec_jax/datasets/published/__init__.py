"""One page for each data set. To add one:

1. Copy `vivae.py`, the shortest, to `<name>.py`; describe in `LAYOUT` the paths of its recordings and their labels.
2. Fill in `SOURCE`: name, address, licence, and what the folder or archive must hold.
3. Add the name to `PRETRAINING` or `TASKS` in `../catalog.py`; every program and table reads these lists.
4. Add a miniature of its folders to `tests/datasets/published_test.py`, with the group and label of each file.
5. If it comes with a csv file, or in several archives, start from `recanvo.py` or `nonspeech7k.py` instead.
"""
