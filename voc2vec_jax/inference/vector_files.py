"""Vectors of recordings as one file: a table for programs (.parquet), for spreadsheets (.csv), or arrays (.npz)."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from voc2vec_jax import errors
from voc2vec_jax.runs import csv_files, files

SUFFIXES = (".csv", ".parquet", ".npz")


def check_target(path: pathlib.Path) -> None:
    """InputError for a file that cannot be written, or is there already."""
    if path.suffix not in SUFFIXES:
        raise errors.InputError(f"{path} is no table of vectors: give a name that ends in {', '.join(SUFFIXES)}")
    if path.exists():
        raise errors.InputError(f"{path} is there already: remove it, or give another name")
    if not path.parent.is_dir():
        raise errors.InputError(f"{path} cannot be written, for there is no folder {path.parent}: make it")
    if not os.access(path.parent, os.W_OK):
        raise errors.InputError(f"{path} cannot be written: give a name in a folder that can")


def write(path: pathlib.Path, rows: pa.Table, vectors: Float32[np.ndarray, "n d"]) -> None:
    """A row for each recording: the columns of `rows`, then its vector.

    In .parquet the vector is the column `vector`, in .npz the array `vectors`; in .csv its numbers are the columns v0,
    v1, ... to six digits. RunError for what cannot be written.
    """
    try:
        {".csv": write_csv, ".parquet": write_parquet, ".npz": write_npz}[path.suffix](path, rows, vectors)
    except OSError as fault:
        raise errors.RunError(f"{path} cannot be written: {fault.strerror or fault}") from fault


def write_parquet(path: pathlib.Path, rows: pa.Table, vectors: Float32[np.ndarray, "n d"]) -> None:
    """A Parquet file with a column of vectors."""
    kind = pa.list_(pa.float32(), vectors.shape[1])
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])
    with files.atomic_path(path) as temporary:
        pq.write_table(rows.append_column(pa.field("vector", kind, nullable=False), column), temporary)


def write_csv(path: pathlib.Path, rows: pa.Table, vectors: Float32[np.ndarray, "n d"]) -> None:
    """A csv file with a column for each number of a vector."""
    with files.atomic(path, "w", encoding="utf-8", newline="") as file:
        writer = csv_files.Writer(file)
        writer.writerow([*rows.column_names, *(f"v{number}" for number in range(vectors.shape[1]))])
        for row, vector in zip(zip(*(each.to_pylist() for each in rows.columns)), vectors):
            shown = (f"{value:.6g}" if isinstance(value, float) else value for value in row)
            writer.writerow(("" if value is None else value for value in shown), (f"{x:.6g}" for x in vector))


def write_npz(path: pathlib.Path, rows: pa.Table, vectors: Float32[np.ndarray, "n d"]) -> None:
    """A NumPy file with an array for each column of `rows`, in the plural (`files`), and `vectors` [n, d]."""
    columns = {f"{name}s": np.array([value or "" for value in rows[name].to_pylist()]) for name in rows.column_names}
    with files.atomic(path, "wb") as file:
        np.savez(file, **columns, vectors=vectors)
