"""The doctor tells what is there, what is missing, and the command that mends it; nothing broken is status 0."""

from importlib import metadata

import pytest
from packaging.requirements import Requirement

from voc2vec_jax.programs import main
from voc2vec_jax.runs import extras, installation, versions


@pytest.fixture
def healthy(monkeypatch):
    """A machine with a CPU alone, where all that is needed is installed."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(installation, "devices", lambda: ([("cpu", "cpu")] * 2, ""))
    monkeypatch.setattr(installation, "nvidia", lambda: ([], ""))
    monkeypatch.setattr(installation, "tpu_chips", lambda: 0)
    return monkeypatch


def run(capsys):
    """Exit status and rows by their first word."""
    status = main.main(["doctor"])
    out, err = capsys.readouterr()
    assert not err
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()}
    return status, rows, out


def test_nothing_is_broken_where_all_is_there(healthy, capsys):
    status, rows, out = run(capsys)
    count = len(installation.requirements()[""])
    assert status == 0 and out.endswith("Nothing is broken.\n")
    assert rows["needed"] == f"{count} of {count} packages" and count > 20
    assert rows["devices"] == "2 x cpu (cpu)" and rows["GPUs"].startswith("no NVIDIA GPU")
    assert rows["recipes"].startswith("finetune, quickstart, voc125, voc125_hubert in ")
    assert "libsndfile" in rows["audio"] and "FFmpeg" in rows["audio"]


def test_extras_are_there_or_named_with_their_command(healthy, capsys):
    real = versions.installed
    healthy.setattr(versions, "installed", lambda name: {"huggingface_hub": None, "onnx": "1.18"}.get(name, real(name)))
    _, rows, _ = run(capsys)
    assert rows["hub"].startswith("missing ") and rows["hub"].endswith(f": {extras.command('hub')}")
    assert rows["onnx"].startswith("there ") and "onnx 1.18, onnxruntime " in rows["onnx"]
    assert "test" not in rows and "docs" not in rows


def test_every_extra_for_users_has_a_purpose(healthy, capsys):
    _, rows, _ = run(capsys)
    for extra in installation.requirements().keys() - {"", "test", "docs"}:
        assert rows[extra].startswith(("there ", "missing ")), extra


def test_a_package_that_is_missing_or_too_old_is_mended(healthy, capsys):
    real = versions.installed
    healthy.setattr(versions, "installed", lambda name: {"soxr": None, "optax": "0.1"}.get(name, real(name)))
    status, rows, out = run(capsys)
    assert status == 1
    assert rows["needed"].endswith("optax 0.1 is not >=0.2.8; soxr is missing")
    assert f"To mend:\n  {extras.reinstall()}    (optax 0.1 is not >=0.2.8, soxr is missing)" in out


@pytest.mark.parametrize(("cuda", "extra"), [("12.4", "cuda12"), ("13.0", "cuda13")])
def test_a_gpu_that_jax_does_not_use_is_mended(healthy, capsys, cuda, extra):
    healthy.setattr(installation, "nvidia", lambda: (["NVIDIA H200"], cuda))
    status, rows, out = run(capsys)
    assert status == 1 and rows["GPUs"] == f"NVIDIA H200; driver for CUDA {cuda}"
    assert f"  {extras.command(extra)}    (JAX does not use this machine's GPU)" in out
    healthy.setattr(installation, "devices", lambda: ([("gpu", "NVIDIA H200")], ""))
    assert run(capsys)[0] == 0
    healthy.setattr(installation, "devices", lambda: ([("cpu", "cpu")], ""))
    healthy.setenv("JAX_PLATFORMS", "cpu")
    assert run(capsys)[0] == 0


def test_a_tpu_that_jax_does_not_use_is_mended(healthy, capsys):
    healthy.setattr(installation, "tpu_chips", lambda: 4)
    status, rows, out = run(capsys)
    assert status == 1 and rows["TPUs"] == "4 chips" and extras.command("tpu") in out


def test_what_jax_says_is_passed_on(healthy, capsys):
    healthy.setattr(installation, "devices", lambda: ([], "JAX does not start: no memory"))
    status, rows, out = run(capsys)
    assert status == 1 and rows["devices"] == "JAX does not start: no memory"
    assert out.endswith("To mend:\n  JAX does not start: no memory\n")


def test_an_installed_package_tells_its_requirements(monkeypatch, tmp_path):
    class Distribution:
        requires = (
            "numpy>=2.0",
            'tomli; python_version < "3"',
            'jax[cuda12]; extra == "cuda12"',
            'onnx>=1; extra == "onnx"',
        )

        class metadata:  # noqa: N801
            @staticmethod
            def get_all(name, default):
                return ["cuda12", "onnx"]

    monkeypatch.setattr(installation, "_SOURCES", tmp_path / "absent")
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution)
    found = {extra: [each.name for each in wanted] for extra, wanted in installation.requirements().items()}
    assert found == {"": ["numpy"], "cuda12": ["jax"], "onnx": ["onnx"]}


def test_an_extra_of_another_package_counts_what_that_needs(monkeypatch):
    texts = ["scipy", 'jax-cuda12-plugin>=1; extra == "cuda12"', 'libtpu; extra == "tpu"']
    monkeypatch.setattr(metadata, "requires", lambda name: texts if name == "jax" else [])
    names = [each.package for each in installation.needed([Requirement("jax[cuda12]")])]
    assert names == ["jax", "jax-cuda12-plugin"]


@pytest.mark.slow
def test_jax_is_asked_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found, fault = installation.devices()
    assert found and {platform for platform, _ in found} == {"cpu"} and not fault
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    assert installation.devices() == (
        [],
        "JAX_PLATFORMS=abacus names no platform that is known here: give cpu, cuda or tpu, or unset it to compute on "
        "what is there",
    )
    monkeypatch.setattr(installation, "_ASK_JAX", "import os; os.abort()")
    assert installation.devices() == ([], "JAX does not start: status -6")
