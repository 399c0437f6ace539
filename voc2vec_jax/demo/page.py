"""The demo's page, in Gradio: a sound in, answers out. Nothing leaves this machine."""

import contextlib
import functools
import io
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from voc2vec_jax import audio, errors
from voc2vec_jax.demo import answering, neighbours
from voc2vec_jax.finetuning import leak_badges, scoring
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.reports import model_card
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import extras

MOST_BYTES = "200mb"  # of a file that is dropped
_FOLDER = "GRADIO_TEMP_DIR"
_STYLE = "footer { display: none !important }"


def heading(found: model_card.RunModel | None, answerer: answering.Answerer) -> str:
    """What the model is and how far it can be trusted, in Markdown."""
    model = answerer.model
    if found is None:
        return f"# {report_text.to_markdown(model.family)}\n\nNo run: nothing is known of its scores."
    raw, run = fold_results.read_summary(found.run), report_runs.read(found.run)
    name = scoring.KINDS[run.kind].monitor if run.kind != "classes" else "uar"
    said = f"{scoring.KINDS[run.kind].titles[name]} {scoring.with_interval(run.pooled[name])} over all clips"
    for kind, scores in [*(raw.get("baselines") or {}).items()][:1]:
        said += f" ({scoring.BASELINES[kind]}: {scores[name]:.3f})".replace("chance: a class at random", "chance")
    lines = [f"# {model_card.title(run, model.checkpoint)}", f"Cross-validated on {run.clips or 'its'} clips: {said}."]
    badges = [badge for badge in leak_badges.badges(raw.get("leaks")) if badge.kind == leak_badges.LEAK]
    return "\n\n".join([*lines, *(f"**{badge.sentence}**" for badge in badges)])


def build(answerer: answering.Answerer, head: str, why_no_clips: str = "") -> Any:
    """The page as `gradio.Blocks`; `why_no_clips` stands in the place of training clips."""
    gradio = module()
    is_share = answerer.model.checkpoint.kind != "regression"
    with gradio.Blocks(title="voc2vec demo", analytics_enabled=False) as page:
        gradio.Markdown(head)
        with gradio.Row():
            with gradio.Column():
                look = {"sources": ["upload", "microphone"], "type": "filepath", "buttons": []}
                sound = gradio.Audio(label="Drop or record a sound", **look)
                note = gradio.Markdown("The sound stays on this machine, and is deleted when the program ends.")
            said = gradio.Label(label="Probabilities" if is_share else "Value", num_top_classes=8)
        gradio.Markdown("## Over time")
        timeline = gradio.Image(type="pil", interactive=False, show_label=False, buttons=["fullscreen"])
        near = _near(gradio, answerer.clips, why_no_clips)
        answered = sound.change(
            functools.partial(_answered, answerer, len(near) // 2),
            sound,
            [said, note, *near],
            api_name="answer",
            show_progress="minimal",
        )
        answered.then(
            functools.partial(_drawn, answerer), sound, timeline, api_name="timeline", show_progress="minimal"
        )
    return page


def _near(gradio: Any, clips: neighbours.TrainingClips | None, why_not: str) -> list[Any]:
    """A caption and a player for each of the nearest clips, in turns."""
    if clips is None:
        gradio.Markdown(f"Nearest training clips are not shown: {report_text.to_markdown(why_not)}")
        return []
    count = len(clips.rows)
    shown = f"{count:,}" + (f" of {clips.total:,}" if count < clips.total else "")
    gradio.Markdown(f"## Nearest of {shown} training clips, by the model's own features")
    parts = []
    with gradio.Row():
        for _ in range(answering.NEAREST):
            with gradio.Column(min_width=200):
                parts += [gradio.Markdown(), gradio.Audio(interactive=False, show_label=False, buttons=[])]
    return parts


def _answered(answerer: answering.Answerer, places: int, path: str | None) -> list[Any]:
    """Probabilities, a note and the nearest clips, or why there are none; empty when the sound was taken away."""
    if path is None:
        return [None, "", *["", None] * places]
    try:
        found = answerer.answer(path)
    except errors.InputError as fault:
        return [None, f"**{report_text.to_markdown(str(fault))}**", *["", None] * places]
    said = found.probabilities if answerer.model.checkpoint.kind != "regression" else found.said
    parts = [said, report_text.to_markdown("; ".join([f"{found.seconds:.1f} s", *found.remarks]))]
    for clip in found.nearest:
        label, name = report_text.to_markdown(clip.label), report_text.to_markdown(clip.id)
        parts += [f"**{label}** (cosine {clip.similarity:.2f})  \n{name}", (audio.RATE_HZ, clip.sound)]
    return [*parts, *["", None] * (places - len(found.nearest))]


def _drawn(answerer: answering.Answerer, path: str | None) -> Any:
    """The picture over time, None where there is none; why not was said before."""
    try:
        return None if path is None else Image.open(io.BytesIO(answerer.timeline(answerer.read(path))))
    except errors.InputError:
        return None


@contextlib.contextmanager
def served(build: Callable[[], Any], host: str, port: int, *, browser: bool = False) -> Iterator[str]:
    """The address of the page that `build` makes, which is there until the end of the block.

    So is what was recorded or dropped. InputError for a port that is taken.
    """
    with _own_folder():
        page, port = build(), port or _free_port(host)
        theme = module().themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # none is fetched
        how = {"server_name": host, "server_port": port, "inbrowser": browser, "share": False, "quiet": True}
        how |= {"prevent_thread_lock": True, "max_file_size": MOST_BYTES, "theme": theme, "css": _STYLE}
        try:
            address = page.queue(default_concurrency_limit=1).launch(**how)[1]
        except OSError as fault:
            raise errors.InputError(f"--port={port} cannot be used ({fault}): give another one") from fault
        try:
            yield address
        finally:
            page.close(verbose=False)


def _free_port(host: str) -> int:
    with socket.socket() as found:
        found.bind((host, 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def _own_folder() -> Iterator[None]:
    """A folder for Gradio's copies of sounds and pictures, which ends with the block."""
    before = os.environ.get(_FOLDER)
    with tempfile.TemporaryDirectory(prefix="voc2vec_demo_", ignore_cleanup_errors=True) as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            os.environ.pop(_FOLDER)
            if before is not None:
                os.environ[_FOLDER] = before


def module() -> Any:
    """gradio, which sends nothing about its use; InputError if it is not installed."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise errors.InputError(f"the demo needs gradio: {extras.command('demo')}") from None
    return gradio
