"""The paper's experiment end to end, in miniature: the script, published layouts, stand-ins on the Hub's cache."""

import json
import os
import pathlib
import subprocess
import sys

import paper_rehearsal
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SHORT = (
    "--config.folds=2",
    "--config.epochs=1",
    "--config.warmup_steps=1",
    "--config.max_seconds=0.5",
    "--config.freeze=encoder",
)


@pytest.mark.slow
def test_from_downloads_to_tables_and_figure_1(tmp_path):
    paper_rehearsal.write(tmp_path, groups=3, systems=("voc2vec-ls",), only="VIVAE/")
    given = {"SYSTEMS": "voc2vec-ls", "TASKS": "vivae cnvve", "PROTOCOLS": "paper", "PYTHON": sys.executable}
    given |= {"DOWNLOADS": "downloads", "DATA": "data", "RUNS": "runs", "HF_HUB_CACHE": str(tmp_path / "hub")}
    given |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

    def paper(*words):
        command = ["bash", str(ROOT / "tools" / "cluster" / "paper.sh"), *words]
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | given, capture_output=True, text=True, timeout=600
        )

    prepared = paper("prepare", "--download=false")
    assert prepared.returncode == 0, prepared.stderr
    assert "these tasks are not prepared and will be left out: cnvve" in prepared.stderr
    tuned = paper("finetune", *SHORT)
    assert tuned.returncode == 0, tuned.stderr
    found = json.loads((tmp_path / "runs/paper/vivae/voc2vec-ls/summary.json").read_text())
    assert (found["complete"], found["model"], len(found["folds"])) == (True, "alkiskoudounas/voc2vec-ls-pt", 2)
    reported = paper("report")
    assert reported.returncode == 0, reported.stderr
    fourth = (tmp_path / "runs/report_table4.md").read_text()
    assert "voc2vec-ls" in fourth and "0.573" in fourth  # ours beside the paper's
    assert (tmp_path / "runs/report_table3.md").is_file()
    assert (tmp_path / "runs/figure1_paper_figures/tsne_VIVAE.png").is_file()
