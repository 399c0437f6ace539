"""What a leak report means is said in words, at the top of a summary and in the order of its weight."""

import numpy as np
import pytest

from voc2vec_jax.finetuning import leak_badges, results, scoring

CLEAN = {"clips": 432, "identical": 0, "near_identical": 0, "overlapping": 0, "same_group": 0, "unknown_group": 0}


def texts(found):
    return [(badge.kind, badge.text) for badge in leak_badges.badges(found)]


def test_copies_of_every_kind_are_counted_together_and_the_badge_says_memory():
    tested = {**CLEAN, "identical": 200, "near_identical": 80, "overlapping": 8}
    (badge,) = leak_badges.badges({"tested": tested})
    assert badge == ("leak", "288 of 432 tested clips have a near copy in training: this score measures memory")
    (few,) = leak_badges.badges({"tested": {**CLEAN, "identical": 1}})
    assert few.text == "1 of 432 tested clips has a near copy in training: this score measures memory in part"
    assert few.sentence.endswith("in part.")


def test_speakers_selection_pretraining_and_what_is_not_known_are_told_leaks_first():
    tested = {**CLEAN, "same_group": 3, "unknown_group": 5}
    found = texts({"tested": tested, "selected_on_test": True, "pretraining": {"clips": 7}})
    assert [kind for kind, _ in found] == ["leak", "caution", "caution", "caution"]
    assert found[0][1].startswith("3 of 432 tested clips are of a speaker or group that is in training too")
    assert "the epoch is selected on the tested clips" in found[1][1]
    assert found[2][1] == "the speaker of 5 of 432 tested clips is not known: people may be on both sides of a fold"
    assert found[3][1] == "7 clips, or near copies of them, were in the pre-training data, without labels"


def test_a_clean_report_says_so_and_claims_nothing_of_unknown_speakers():
    assert texts({"tested": CLEAN}) == [
        ("clear", "no tested clip has a copy in training, and no known speaker is on both sides of a fold")
    ]
    unknown = texts({"tested": {**CLEAN, "unknown_group": 432}})
    assert unknown == [
        ("clear", "no tested clip has a copy in training"),
        ("caution", "the speaker of no clip is known: people may be on both sides of a fold"),
    ]


@pytest.mark.parametrize("found", [{}, {"tested": None}, {"tested": {"clips": "many", "identical": True}}])
def test_a_report_of_another_version_has_no_badge(found):
    assert leak_badges.badges(found) == []


def test_a_run_without_a_report_says_that_leaks_were_not_checked():
    assert texts(None) == [
        ("caution", "leaks were not checked: whether this score measures memory is not known"),
    ]


def test_the_lines_of_a_summary_are_paragraphs_and_leaks_are_bold():
    lines = results.leak_lines({"tested": {**CLEAN, "near_identical": 300}, "selected_on_test": True})
    assert lines == [
        "**300 of 432 tested clips have a near copy in training: this score measures memory.**",
        "",
        "The epoch is selected on the tested clips: this score is the best case.",
        "",
    ]


def test_answers_without_listening_score_as_drawing_many_of_them_does():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], [60, 30, 10])
    found = scoring.baselines("classes", targets, 4, "tested")  # of the fourth class there is no clip
    assert found["majority"] == pytest.approx({"uar": 1 / 3, "accuracy": 0.6, "f1_macro": 0.25})
    many = np.tile(targets, 2000)
    drawn = scoring.scores("classes", many, rng.normal(size=(len(many), 3)), "tested")
    assert found["chance"] == pytest.approx(drawn, abs=5e-3) and found["chance"]["uar"] == pytest.approx(1 / 3)
    assert results.baseline_rows({"baselines": found})[1] == "| always the most frequent class | 0.333 | 0.600 | 0.250"


def test_the_mean_for_every_clip_ranks_tags_as_chance_and_agrees_with_no_number():
    tags = np.array([[1, 0], [0, 0], [0, 1], [0, 1]])
    assert scoring.baselines("multilabel", tags, 2, "tested") == {"constant": {"map": 0.375, "auroc": 0.5}}
    numbers = scoring.baselines("regression", np.array([0.0, 1.0, 5.0]), 1, "tested")
    assert numbers == {"constant": {"ccc": 0.0, "pearson": 0.0, "mae": 2.0}}
    with pytest.raises(ValueError, match="no clips"):
        scoring.baselines("classes", np.zeros(0, np.int64), 2, "tested")
