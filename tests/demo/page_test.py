"""The demo's page in a browser: a sound is dropped, answers appear, and nothing is fetched from elsewhere."""

import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import time
import urllib.parse

import browsers
import numpy as np
import pytest
import soundfile
import tiny_models

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, browsers.needed]


@pytest.fixture
def running(tmp_path):
    """The address of a demo of a small model, in a process whose temporary files lie in a folder of its own."""
    model = tiny_models.write(tmp_path / "model", ("cough", "laugh"))
    (tmp_path / "temporary").mkdir()
    own = {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "voc2vec_jax.programs.main", "demo", str(model), "--port=0"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True)
    try:
        ready, _, _ = select.select([process.stdout], [], [], 300)
        assert ready, "no address within 300 s"
        yield process, re.search(r"http://\S+", process.stdout.readline())[0], tmp_path
    finally:
        process.kill()
        process.communicate()


def test_a_dropped_sound_is_answered_and_leaves_nothing(running):
    process, address, folder = running
    soundfile.write(folder / "sound.wav", 0.1 * np.random.default_rng(0).normal(size=32_000), 16_000)
    (folder / "text.wav").write_text("not a sound")
    asked = set()
    with browsers.started() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.add(urllib.parse.urlparse(request.url).hostname))
        page.goto(address)
        page.wait_for_selector("input[type=file]", state="attached", timeout=120_000)
        page.set_input_files("input[type=file]", folder / "sound.wav")
        page.wait_for_selector("img[src*='/file=']", timeout=120_000)
        text = page.inner_text("body")
        page.get_by_label("Clear").first.click()
        page.wait_for_selector("input[type=file]", state="attached", timeout=60_000)
        page.set_input_files("input[type=file]", folder / "text.wav")
        page.wait_for_selector("text=is text, not a recording", timeout=60_000)
        browser.close()
    for said in ("cough", "laugh", "%", "2.0 s", "No run: nothing is known of its scores", "are not shown"):
        assert said in text
    assert asked <= {"127.0.0.1", "localhost", None, ""}
    assert list((folder / "temporary").glob("voc2vec_demo_*/*"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not list((folder / "temporary").glob("voc2vec_demo_*"))
    deadline = time.monotonic() + 1  # Gradio's own folder holds nothing either
    assert time.monotonic() < deadline and not [
        path for path in (folder / "temporary").rglob("*") if path.suffix in (".wav", ".png", ".webp")
    ]
