"""Small run folders as fine-tuning writes them, for the tests of the report."""

import csv
import json
import pathlib

import numpy as np
import soundfile

from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import drawing


def write(
    folder: pathlib.Path,
    *,
    dataset="vivae",
    title="VIVAE",
    system="hubert-ls",
    protocol="strict",
    labels=("anger", "fear", "pain"),
    folds=3,
    planned=3,
    clips=30,
    skill=1.0,
    shuffle=0,
    audio_root=None,
    curves=True,
    vectors=True,
    suffix="",
    seed=0,
):
    """A run whose classifier is right about a share of the clips that grows with `skill`; `shuffle` draws the folds,
    `suffix` goes behind every path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    true = np.arange(clips) % len(labels)
    parts = np.array_split(np.random.default_rng(shuffle).permutation(clips), planned)
    entries, rows, lines = [], [], []
    for fold in range(folds):
        test = np.sort(parts[fold])
        logits = rng.normal(size=(len(test), len(labels))) + skill * np.eye(len(labels))[true[test]]
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        ids = [f"{labels[true[row]]}/{row}.wav" for row in range(clips)]
        matrix = metrics.confusion(true[test], p.argmax(1), len(labels))
        entries.append(fold_entry(fold, ids, test, matrix))
        for row, chances in zip(test, p):
            words = (fold, ids[row], ids[row] + suffix, 0.5, 1.25, labels[true[row]], labels[chances.argmax()])
            rows.append([*words, chances.max(), *chances])
        lines += epochs_of(fold) if curves else []
        if vectors:
            spots = rng.normal(size=(len(test), 4)) + 5 * np.eye(4)[true[test] % 4]
            write_vectors(folder / f"fold_{fold:02d}", [ids[row] for row in test], true[test], spots)
    summary = {
        **{"dataset": dataset, "title": title, "model": f"models/{system}", "system": system, "protocol": protocol},
        **{"complete": folds == planned, "planned_folds": planned, "folds": entries, "labels": list(labels)},
        **{"clips": clips, "audio_root": audio_root and str(audio_root), "leaks": {"identical_across": 3}},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        heads = ["fold", "id", "path", "start_seconds", "seconds", "label", "predicted", "probability"]
        writer.writerows([[*heads, *(f"p:{label}" for label in labels)], *rows])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"fold": 0, "epo')
    return folder


def fold_entry(fold, ids, test, matrix):
    """A fold of a summary."""
    return {
        **{name: float(value) for name, value in metrics.of_confusion(matrix).items()},
        **{"fold": fold, "best_epoch": 2, "epochs": 3, "confusion": matrix.tolist()},
        **{"train": [name for row, name in enumerate(ids) if row not in test], "validation": []},
        "test": [ids[row] for row in test],
    }


def epochs_of(fold):
    """The metrics of a fold's three epochs."""
    for epoch in (1, 2, 3):
        score = dict.fromkeys(metrics.NAMES, 0.2 * epoch)
        yield {"fold": fold, "epoch": epoch, "split": "train", "loss": 1 / epoch, "lr": 1e-4}
        yield {"fold": fold, "epoch": epoch, "split": "validation", "loss": 2 / epoch, **score}


def write_vectors(folder, ids, true, vectors):
    """A fold's pooled features."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / "embeddings.npz", ids=np.array(ids), labels=true, vectors=vectors.astype(np.float32))


def recordings(folder: pathlib.Path, labels=("anger", "fear", "pain"), clips=30):
    """The recordings that a run of these `labels` is of, each a tone of its own; returns the folder."""
    for row in range(clips):
        path = folder / labels[row % len(labels)] / f"{row}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * row) * np.arange(2 * 16000) / 16000)
        soundfile.write(path, tone.astype(np.float32), 16000)
    return folder


def edit(folder: pathlib.Path, **changes):
    """Change top-level keys of a summary; None takes a key away."""
    path = folder / "summary.json"
    raw = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


def draw_nothing(monkeypatch):
    """Pictures of a few bytes, for tests that are not about them."""
    monkeypatch.setattr(
        drawing,
        "saved",
        lambda sheet, theme, formats: {theme.key if kind == "png" else kind: b"picture" for kind in formats},
    )


def collect_sheets(monkeypatch):
    """The list of the drawings for light pages that are made from now on, none of which is saved."""
    sheets = []
    draw_nothing(monkeypatch)
    nothing = drawing.saved

    def saved(sheet, theme, formats):
        sheets.extend([sheet] if theme is drawing.LIGHT else [])
        return nothing(sheet, theme, formats)

    monkeypatch.setattr(drawing, "saved", saved)
    return sheets
