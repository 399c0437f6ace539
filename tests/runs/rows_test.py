"""The rows of a long run are repaired and read without holding them all."""

import json
import tracemalloc

from voc2vec_jax.runs import rows


def write(path, steps, ending=""):
    path.write_text("".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in steps) + ending)


def steps(path):
    return [row["step"] for row in rows.read(path)]


def test_rows_after_the_checkpoint_are_cut_off_in_place(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 10), '{"step": 10, "lo')
    inode, seen = path.stat().st_ino, []
    rows.repair(path, 6, seen.append)
    assert steps(path) == list(range(1, 7)) == [row["step"] for row in seen]
    assert path.stat().st_ino == inode and path.read_bytes().endswith(b"\n")
    rows.repair(path, 0)
    assert path.read_bytes() == b""


def test_damage_before_the_end_is_taken_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    again = json.dumps({"step": 1, "split": "validation"}) + "\n"
    write(path, [1, 2, 3, 2, 3], f"7\n{again}")
    with path.open("a") as file:
        file.write('{"step": 5}\n')
    seen = []
    rows.repair(path, 5, seen.append)
    assert steps(path) == [1, 2, 3, 5] == [row["step"] for row in seen]
    assert not any("split" in row for row in seen)


def test_a_line_feed_that_is_missing_at_the_end_is_added(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2], '{"step": 3}')
    rows.repair(path, 3)
    assert steps(path) == [1, 2, 3] and path.read_bytes().endswith(b'{"step": 3}\n')


def test_a_file_that_is_not_there_is_no_damage(tmp_path):
    rows.repair(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())


def test_the_tail_holds_whole_rows_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 101), '{"step": 101, "lo')
    text = path.read_bytes()
    for most_bytes in range(0, 400):
        lines = text[len(text) - most_bytes :].split(b"\n")
        # The first piece is a whole line only when a line ends just before it.
        whole = lines if text[len(text) - most_bytes - 1 : len(text) - most_bytes] == b"\n" else lines[1:]
        expected = [json.loads(line)["step"] for line in whole[:-1] if line]
        assert [row["step"] for row in rows.tail(path, most_bytes)] == expected
    assert [row["step"] for row in rows.tail(path, 10**9)] == list(range(1, 101))


def test_repair_takes_no_more_memory_for_more_rows(tmp_path):
    def peak(count):
        path = tmp_path / "metrics.jsonl"
        write(path, [*range(1, count), 3, count])  # a double, so that the file is written anew
        tracemalloc.start()
        rows.repair(path, count)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert steps(path) == list(range(1, count + 1))
        return most

    peak(100)
    assert peak(20_000) < 2 * peak(1000)
