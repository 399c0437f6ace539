"""Recipes are found by name from any folder, and a name never runs a file that lies around."""

import os
import pathlib
import subprocess
import sys

import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import configuration, recipes

ROOT = pathlib.Path(__file__).parents[2]
PLANTED = "raise SystemExit('a file of a stranger ran')"
OWN = "import ml_collections\ndef get_config(): return ml_collections.ConfigDict({'own': 1})\n"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_recipe_has_its_name(elsewhere):
    assert recipes.names() == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert configuration.load("quickstart").total_steps == 400
    assert configuration.load("voc125:tiny").model.encoder.width == 64
    assert configuration.load("finetune:cnvve,vivae").datasets == ("cnvve", "vivae")


def test_the_path_in_a_clone_works_where_there_is_no_such_file(elsewhere):
    assert configuration.load("configs/voc125.py:tiny").model.encoder.width == 64
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs" / "voc125.py").write_text(OWN)
    assert configuration.load("configs/voc125.py").own == 1
    for other in ("other/configs/voc125.py", "voc125.py", "/configs/voc125.py"):
        with pytest.raises(errors.InputError, match="there is no file"):
            configuration.load(other)


def test_a_name_runs_the_packaged_recipe_and_nothing_that_lies_around(elsewhere):
    for name in ("quickstart", "quickstart.py", "ml_collections.py", "voc2vec_jax.py"):
        (elsewhere / name).write_text(PLANTED)
    assert configuration.load("quickstart").total_steps == 400
    (elsewhere / "own").write_text(OWN)
    assert configuration.load("./own").own == 1
    with pytest.raises(SystemExit, match="a file of a stranger ran"):
        configuration.load("./quickstart")


@pytest.mark.parametrize("name", ["../configs/voc125", "_voc125", "", "voc125/", "VOC125", "__init__"])
def test_what_is_no_name_is_none(name, elsewhere):
    assert recipes.named(name) is None


def test_a_name_that_is_nearly_one_is_answered_with_it(elsewhere):
    with pytest.raises(errors.InputError, match="there is no file voc215; did you mean voc125"):
        configuration.load("voc215")
    with pytest.raises(errors.InputError, match="recipes: finetune, quickstart, voc125, voc125_hubert"):
        configuration.load("zzz")


@pytest.mark.slow
def test_as_packages_are_built_the_recipes_are_inside_and_found(tmp_path):
    build = [sys.executable, "setup.py", "-q", "build", "-b", tmp_path / "b", "build_py", "-d", tmp_path / "library"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    inside = {path.relative_to(tmp_path / "library" / "voc2vec_jax") for path in (tmp_path / "library").rglob("*.py")}
    expected = {path.relative_to(ROOT / "voc2vec_jax") for path in (ROOT / "voc2vec_jax").rglob("*.py")}
    expected |= {path.relative_to(ROOT) for path in (ROOT / "configs").glob("*.py")}
    assert inside == expected
    templates = {path.name for path in (ROOT / "voc2vec_jax").rglob("templates/*")}
    assert templates == {path.name for path in (tmp_path / "library").rglob("templates/*")}
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "voc2vec_jax", "train", "--config=voc125:tiny", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "library")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--config.model.encoder.width=64 " in shown.stdout


def test_every_package_of_the_library_is_one():
    """`setuptools.find_packages` passes over folders without __init__.py."""
    for path in (ROOT / "voc2vec_jax").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path
