"""Writes a `reader.ModelWeights` as an ONNX file that takes audio as it is, padded or not, and gives probabilities.

    inputs     audio              float32 [batch, samples]   mono at 16 kHz, within [-1, 1]; behind a row's end anything
               lengths            int64   [batch]            the samples of each row
    outputs    probabilities      float32 [batch, classes]   only with a head; of a regression the numbers themselves
               logits             float32 [batch, classes]   only with a head
               embedding          float32 [batch, width]     the mean of each row's own frames
               last_hidden_state  float32 [batch, frames, width], zero past a row's own frames
               frame_lengths      int64   [batch]            the frames of each row

Batch, samples and frames are free. A row's outputs do not depend on what it is padded or batched with. The input is
normalised inside the graph where the checkpoint wants that. The file's metadata hold what a program must know:
`labels` (a JSON list), `kind`, `sampling_rate`, `input`, `least_samples`, `window_seconds`, `family`.
"""

import json
from pathlib import Path
from typing import Any

from voc2vec_jax import errors
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader
from voc2vec_jax.runs import extras, files, versions

RATE_HZ = 16_000
WINDOW_SECONDS = 30.0  # `embed` and `predict` cut longer recordings into windows of so much
FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec", "emotion2vec", "whisper")
_MOST_BYTES = 1_900_000_000  # protobuf's limit is 2 GiB


def write(path: str | Path, weights: reader.ModelWeights) -> dict[str, str]:
    """Writes one file, and PATH.data beside it where the parameters exceed what one file holds.

    Returns what ONNX cannot hold, each with the reason. Raises InputError without the onnx package and for a family
    that has no graph, OSError when the file cannot be written.
    """
    path = Path(path)
    if weights.family not in FAMILIES:
        raise errors.InputError(
            f"{weights.family} has no ONNX graph: the families that have one are {', '.join(FAMILIES)}"
        )
    try:
        import onnx
    except ImportError:
        raise errors.InputError(f"writing {path} needs the onnx package: {extras.command('onnx')}") from None
    model = _model(weights)
    size = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    beside = {}
    if size > _MOST_BYTES:
        beside = {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 1024}
        (path.parent / beside["location"]).unlink(missing_ok=True)  # onnx appends to a file that is there
    with files.atomic_path(path) as temporary:
        onnx.save_model(model, temporary, **beside)
    return {
        name: "ONNX holds what predictions need"
        for name in convert_names.flatten(weights.params)
        if not name.startswith(("encoder/", "head/"))
    }


def _model(weights: reader.ModelWeights) -> Any:
    import onnx
    from onnx import helper

    from voc2vec_jax.convert import onnx_encoder, onnx_ops

    g, encoder = onnx_ops.Graph(), weights.config.encoder
    valid = g.first("lengths", g.size("audio", 1))
    audio = g("Where", valid, "audio", 0.0)
    if weights.normalizes:
        audio = onnx_encoder.normalised(g, audio, valid, "lengths", weights.eps)
    frames = onnx_encoder.encoded(g, weights.family, weights.config, weights.params, audio, "lengths")
    own = g("Unsqueeze", frames.valid, [2])
    found = {
        "embedding": (onnx_ops.masked_mean(g, frames.last, frames.valid), ["batch", encoder.width]),
        "last_hidden_state": (g("Where", own, frames.last, 0.0), ["batch", "frames", encoder.width]),
        "frame_lengths": (frames.own, ["batch"]),
    }
    if weights.head:
        logits = onnx_encoder.logits(g, weights.head, weights.params["head"], frames)
        op = {"classes": "Softmax", "multilabel": "Sigmoid", "regression": "Identity"}[weights.kind]
        said = g(op, logits, **({"axis": -1} if op == "Softmax" else {}))
        found = {
            name: (x, ["batch", weights.head.classes]) for name, x in (("probabilities", said), ("logits", logits))
        } | found
    outputs = []
    for name, (value, shape) in found.items():
        g.nodes.append(helper.make_node("Identity", [value], [name], name=name))
        kind = onnx.TensorProto.INT64 if name == "frame_lengths" else onnx.TensorProto.FLOAT
        outputs.append(helper.make_tensor_value_info(name, kind, shape))
    inputs = [
        helper.make_tensor_value_info("audio", onnx.TensorProto.FLOAT, ["batch", "samples"]),
        helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["batch"]),
    ]
    graph = helper.make_graph(g.nodes, "voc2vec_jax", inputs, outputs, initializer=g.constants)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", onnx_ops.OPSET)],
        ir_version=onnx_ops.IR_VERSION,
        producer_name="voc2vec_jax",
        producer_version=versions.own(),
        doc_string=__doc__,
    )
    helper.set_model_props(model, metadata(weights))
    return model


def metadata(weights: reader.ModelWeights) -> dict[str, str]:
    """What the file says of itself, as texts."""
    encoder = weights.config.encoder
    inside = "zero mean and unit variance are made inside the graph" if weights.normalizes else "taken as it is"
    return {
        "family": weights.family,
        "labels": json.dumps(list(weights.labels), ensure_ascii=False),
        "kind": weights.kind if weights.head else "",
        "sampling_rate": str(RATE_HZ),
        "input": f"mono audio within [-1, 1], not normalised by the caller: {inside}",
        "least_samples": str(encoder.samples_for(1)),
        "hop_samples": str(encoder.hop_samples),
        "window_seconds": f"{WINDOW_SECONDS:g}",
    }
