"""The command for an extra works from a clone, inside it or not, and from a package that was installed."""

from voc2vec_jax.runs import extras


def test_the_command_fits_where_this_runs_from(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "_ROOT", tmp_path)
    assert extras.command("hub") == "pip install 'voc2vec_jax[hub]'"
    assert extras.reinstall() == "pip install --upgrade voc2vec_jax"
    (tmp_path / "pyproject.toml").touch()
    assert extras.command("hub") == f"pip install -e '{tmp_path}[hub]'"
    monkeypatch.chdir(tmp_path)
    assert extras.command("hub") == "pip install -e '.[hub]'"
    assert extras.reinstall() == "pip install -e '.'"
