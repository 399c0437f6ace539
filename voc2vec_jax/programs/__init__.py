"""The commands of the program `voc2vec`: one module each, imported when it is called."""

import dataclasses
import importlib
from types import ModuleType


@dataclasses.dataclass(frozen=True)
class Command:
    """`voc2vec NAME ...`: a module with `main(argv) -> status`, and what it does in one line.

    A command with `many_processes` may run as several processes that join each other (`runs.distributed`).
    """

    module: str
    help: str
    many_processes: bool = False

    def load(self) -> ModuleType:
        """The module."""
        return importlib.import_module(self.module)


COMMANDS: dict[str, Command] = {
    "embed": Command("voc2vec_jax.programs.embed", "vectors of recordings, in one table"),
    "explore": Command("voc2vec_jax.programs.explore", "vectors, map, linear probe and copies of a folder, as a page"),
    "train": Command("voc2vec_jax.programs.train", "pre-train a model", many_processes=True),
    "finetune": Command("voc2vec_jax.finetune", "cross-validate on labelled clips", many_processes=True),
    "evaluate": Command("voc2vec_jax.evaluate", "vectors or classes of any number of recordings, in parts"),
    "labels": Command("voc2vec_jax.programs.labels", "label files of Audacity, Praat, Raven or RTTM as one list"),
    "timeline": Command("voc2vec_jax.programs.timeline", "events, pictures and pages of a timeline, drawn again"),
    "report": Command("voc2vec_jax.programs.report", "a page, tables and pictures from finished runs"),
    "prepare": Command("voc2vec_jax.programs.prepare", "make data sets ready for training"),
    "demo": Command("voc2vec_jax.programs.demo", "a page on this machine: record a sound, and a model answers"),
    "convert": Command("voc2vec_jax.programs.convert", "checkpoints from and to PyTorch's layouts"),
    "verify": Command("voc2vec_jax.programs.verify", "published weights, compared with the reference implementations"),
    "export": Command("voc2vec_jax.programs.export", "an ONNX file of a model, checked by onnxruntime"),
    "publish": Command("voc2vec_jax.programs.publish", "a fine-tuned model on the Hub, with a card of its run"),
    "units": Command("voc2vec_jax.programs.units", "targets for HuBERT's pre-training"),
    "doctor": Command("voc2vec_jax.programs.doctor", "what is installed, what is missing, and what mends it"),
}
