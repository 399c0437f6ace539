"""The systems and the paper's numbers: complete, consistent with each other, found by name, id or path."""

import pytest

from voc2vec_jax import errors
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.reports import paper as report_paper

TABLE_IV_SYSTEMS = {
    *("opensmile", "emotion2vec", "data2vec", "wavlm", "wavlm-plus"),
    *("wav2vec2-ls", "wav2vec2-as", "hubert-ls", "hubert-as", "voc2vec-ls"),
}
METRICS = {"uar", "accuracy", "f1_macro"}


def test_every_system_of_the_paper_is_there_under_its_own_name():
    assert set(paper_systems.SYSTEMS) == TABLE_IV_SYSTEMS | {"voc2vec", "voc2vec-as", "voc2vec-hubert-ls"}
    for name, system in paper_systems.SYSTEMS.items():
        assert system.name == name and system.title and system.pretraining
        assert system.family in {*convert_names.FAMILIES, "opensmile"}
        assert (system.kind == "features") == (name in ("opensmile", "emotion2vec"))
        assert system.kind in ("features", "finetune")
    assert len({system.source for system in paper_systems.SYSTEMS.values()}) == len(paper_systems.SYSTEMS)


def test_a_grid_of_the_paper_trains_its_systems_in_the_order_of_the_tables():
    expected = "opensmile emotion2vec data2vec wavlm wavlm-plus wav2vec2-ls wav2vec2-as hubert-ls hubert-as"
    assert (*expected.split(), "voc2vec", "voc2vec-as", "voc2vec-ls") == paper_systems.PAPER_SYSTEMS


def test_a_name_and_its_hub_id_are_the_same_system_and_a_name_wins_over_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hubert-ls").mkdir()
    expected = (paper_systems.SYSTEMS["hubert-ls"], "facebook/hubert-base-ls960")
    assert paper_systems.resolve("hubert-ls") == paper_systems.resolve("facebook/hubert-base-ls960") == expected
    assert paper_systems.resolve("./hubert-ls") == (None, "./hubert-ls")
    assert paper_systems.resolve(tmp_path) == (None, str(tmp_path))
    assert paper_systems.resolve("opensmile") == (paper_systems.SYSTEMS["opensmile"], "ComParE_2016")


def test_other_hub_ids_pass_and_nonsense_is_named_with_the_nearest_system():
    assert paper_systems.resolve("someone/model@main") == (None, "someone/model@main")
    with pytest.raises(errors.InputError, match="'voc2vec-sl' is neither .*did you mean voc2vec-"):
        paper_systems.resolve("voc2vec-sl")
    with pytest.raises(errors.InputError, match="'zzz' is neither .*the systems are opensmile, emotion2vec"):
        paper_systems.resolve("zzz")
    with pytest.raises(errors.InputError, match="ComParE_2016"):
        paper_systems.resolve("ComParE_2016")


def test_table_iv_is_complete():
    assert set(report_paper.TABLE_IV) == TABLE_IV_SYSTEMS
    for tasks in report_paper.TABLE_IV.values():
        assert set(tasks) == set(report_paper.TASKS)
        assert all(set(row) == METRICS for row in tasks.values())
    assert report_paper.TABLE_IV["voc2vec-ls"]["vivae"]["f1_macro"] == (0.558, 0.060)
    assert report_paper.TABLE_IV["opensmile"]["nonverbal_vocalization"]["uar"] == (0.021, 0.007)
    assert all(key[2] in report_paper.TABLE_IV[key[0]][key[1]] for key in report_paper.MISPRINTS)


@pytest.mark.parametrize("system", ["voc2vec-ls", "wav2vec2-ls", "hubert-ls"])
def test_table_iii_follows_from_table_iv_with_the_population_deviation(system):
    """Both were printed: a digit mistyped in either shows."""
    derived = report_paper.average(report_paper.TABLE_IV[system])
    assert set(derived) == METRICS
    for metric, printed in report_paper.TABLE_III[system].items():
        assert derived[metric] == pytest.approx(printed, abs=0.0011)


def test_averages_are_the_printed_ones_else_derived_else_nothing():
    assert report_paper.averages("voc2vec-hubert-ls") == {"uar": (0.696, 0.189), "f1_macro": (0.678, 0.200)}
    tasks = report_paper.TABLE_IV["wavlm"]
    expected = sum(row["uar"].mean for row in tasks.values()) / 6
    assert report_paper.averages("wavlm")["uar"].mean == pytest.approx(expected)
    assert report_paper.averages("mine") == {}
    one = {"a": {"uar": report_paper.Number(0.2, 0)}, "b": {"f1_macro": report_paper.Number(0.2, 0)}}
    assert report_paper.average(one) == {} == report_paper.average({})
