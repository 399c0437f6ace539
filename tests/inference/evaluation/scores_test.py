"""Scores compare the labels of a list with those of a model, however either writes spaces and accents."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import scores


class Output(evaluation_output.OutputFolder):
    """A folder of one part."""

    parts = 1

    def __init__(self, description, part):
        self.description, self.part = description, lambda number: part


@pytest.fixture
def output(tmp_path):
    def written(target, classes, **columns):
        pq.write_table(pa.table(columns), tmp_path / "part")
        return Output({"target": target, "classes": classes}, tmp_path / "part")

    return written


def test_a_class_is_known_by_another_spelling(output):
    apart, composed = "be\u0301be\u0301", "b\u00e9b\u00e9"
    labels, guesses = [composed, apart, "cry", "cough", None, "cry "], [apart, " cry", " cry", apart, apart, apart]
    found = scores._scores(output("classes", [" cry", apart], label=labels, predicted=guesses), 0)
    assert found["confusion"] == [[1, 1], [1, 1]] and found["labels"] == [" cry", apart]
    assert found["labels_unknown_to_the_model"] == {"cough": 1} and found["unlabelled"] == 1


def test_a_tag_is_known_by_another_spelling(output):
    columns = {"label": ["b\u00e9|cry", "cry"], "probabilities": [[0.9, 0.8], [0.1, 0.7]]}
    found = scores._scores(output("multilabel", ["be\u0301", "cry"], **columns), 0)
    assert found["clips"] == 2 and found["labels_unknown_to_the_model"] == {}
