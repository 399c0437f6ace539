"""The picture of a timeline: what is drawn can be told apart."""

import numpy as np
from matplotlib import figure

from voc2vec_jax.inference.timelines import picture


def test_curves_of_twenty_four_classes_are_told_apart(monkeypatch):
    drawn = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda sheet, *_, **__: drawn.append(sheet))
    classes = [f"class {k}" for k in range(24)]
    at, image = np.array([0.0, 1.0, 2.0]), np.zeros((4, 4), np.uint8)
    looks = set()
    for likely in range(8):  # each time the curves of three classes that share a colour
        chances = np.zeros((2, 24))
        chances[:, likely::8] = 0.9
        picture.draw("", image, at, chances, classes, [], None)
        lines = [line for line in drawn.pop().axes[1].get_lines() if line.get_label().startswith("class")]
        assert {f"class {k}" for k in range(likely, 24, 8)} <= {line.get_label() for line in lines}
        looks |= {(line.get_color(), line.get_linestyle(), line.get_label()) for line in lines}
    assert len({look[:2] for look in looks}) == len({look[2] for look in looks}) == 24
