"""What a run folder keeps of its split: no clip that was trained on validates later, whatever joins or is left out."""

import json

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.datasets import corpora
from voc2vec_jax.pretraining import held_out


class Sets(corpora.Corpus):
    """Sets of so many recordings of two clips each, without audio."""

    def __init__(self, sizes):
        clips = [2 * n for n in sizes.values()]
        self.names, self.set_index = tuple(sizes), np.repeat(np.arange(len(clips), dtype=np.int32), clips)
        self.samples, self.recording = np.full(sum(clips), 100, np.int32), np.repeat(np.arange(sum(clips) // 2), 2)
        self._ids = [f"{name}/{k}" for name, n in zip(sizes, clips) for k in range(n)]

    def ids(self, row):
        return self._ids[row]


def corpus(**sizes):
    return Sets(sizes)


def names(corpus, rows):
    return {corpus.ids(row) for row in rows}


def test_a_set_that_joins_is_split_and_the_others_stay_as_they_were(tmp_path):
    one, both = corpus(a=20), corpus(b=10, a=20)
    train, valid = held_out.split(one, 0.2, 0, held_out.NOTHING)
    assert len(train) + len(valid) == 40 and 4 <= len(valid) <= 12
    held_out.keep(tmp_path, one, valid, ())
    before = held_out.kept(tmp_path)
    assert before == held_out.Kept(("a",), frozenset(names(one, valid)))
    after, held = held_out.split(both, 0.2, 7, before)
    own = {name for name in names(both, held) if name.startswith("a/")}
    assert own == names(one, valid) and 2 <= len(held) - len(own) <= 8
    assert sorted([*after, *held]) == list(range(60))
    assert names(both, held_out.split(both, 0.2, 8, before)[1]) != names(both, held)


def test_a_set_of_one_recording_that_joins_is_trained_on(tmp_path):
    before = held_out.Kept(("a",), frozenset({"a/0"}))
    both = corpus(a=3, b=1)
    train, held = held_out.split(both, 0.5, 0, before)
    assert names(both, held) == {"a/0", "a/1"}  # the recording of what validated, all of it
    assert len(train) == 6
    with pytest.raises(errors.InputError, match=r"1 recording\(s\) cannot be split"):
        held_out.split(corpus(b=1), 0.5, 0, held_out.NOTHING)


def test_files_are_written_where_they_say_something_else(tmp_path):
    one = corpus(a=3)
    held_out.keep(tmp_path, one, np.array([4]), ())
    assert [path.name for path in tmp_path.iterdir()] == ["validation.json"]
    assert json.loads((tmp_path / "validation.json").read_text()) == {"sets": ["a"], "clips": ["a/4"]}
    held_out.keep(tmp_path, one, np.array([4]), ("a/1", "a/2"))
    assert held_out.kept(tmp_path).excluded == ("a/1", "a/2")
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    held_out.keep(tmp_path, one, np.array([4]), ("a/1", "a/2"))
    assert stamps == [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    held_out.keep(tmp_path, one, np.array([5]), ())
    assert held_out.kept(tmp_path) == held_out.Kept(("a",), frozenset({"a/5"}), ())
    (tmp_path / "validation.json").write_text('{"sets": ["a"]}')
    with pytest.raises(errors.InputError, match="is damaged .*: restore it"):
        held_out.kept(tmp_path)


def test_a_list_has_a_clip_a_line_or_a_column_of_ids(tmp_path):
    path = tmp_path / "list"
    for text, found in [
        ("a/0\n\na/1\n", ["a/0", "a/1"]),
        ('id,step\na/0,3\n"a/1,2",4\n', ["a/0", "a/1,2"]),
        ("step,id\n3,a/0\n", ["a/0"]),
        ("", []),
    ]:
        path.write_text(text)
        assert held_out.read_list(path) == found
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.InputError, match="is no text"):
        held_out.read_list(path)
    path.write_text('id,step\n"a/0')
    with pytest.raises(errors.InputError, match="is no CSV"):
        held_out.read_list(path)


def test_ids_of_a_list_are_found_or_named(tmp_path):
    two = corpus(a=2, b=2)
    assert held_out.rows_of(two, ["b/1", "a/3", "b/1"]).tolist() == [3, 5]
    assert held_out.rows_of(two, []).tolist() == []
    assert held_out.rows_of(two, ["a/9", "c/0", "x"]).tolist() == []
    assert held_out.rows_of(two, ["a/0", "c/0"], of="exclude=l").tolist() == [0]  # a set that is not trained on
    for wrong in ("a/9", "x"):
        with pytest.raises(errors.InputError, match=f"exclude=l names {wrong}, which is no clip of a, b"):
            held_out.rows_of(two, ["a/0", wrong], of="exclude=l")


def test_a_digest_knows_no_order():
    assert held_out.digest(["a/1", "b/0"]) == held_out.digest({"b/0", "a/1"}) != held_out.digest(["a/1b/0"])
