"""Numbers that public test suites give for published weights on named recordings, with where each stands.

Facts only: numbers, names, revisions. What none of these suites has: numbers of data2vec, of WavLM base, of the models
that were pre-trained on AudioSet, of emotion2vec and of voc2vec. The tests of transformers for data2vec read another
checkpoint (data2vec-audio-base-960h), and those of torchaudio only load pre-trained models.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32


def _array(text: str, kind: type = np.float32) -> np.ndarray:
    return np.array(text.split(), kind)


class Clip(NamedTuple):
    """A recording that a suite names: the stem of its file, its length, where it is, how a fetched file is known.

    `seconds` is as published, rounded to a hundredth or exact. `address` is that of the file; `sha256` of what lies
    there.
    """

    stem: str
    seconds: float
    address: str
    sha256: str


TRANSFORMERS = "huggingface/transformers 01080c6, tests/models"
_FAIRSEQ_COMMIT = "3d262bb25690e4eb2e7d3c1309b1e9c406ca4b99"
FAIRSEQ = f"facebookresearch/fairseq {_FAIRSEQ_COMMIT[:7]}, examples/hubert/tests"
_FAIRSEQ_FILES = f"https://raw.githubusercontent.com/facebookresearch/fairseq/{_FAIRSEQ_COMMIT}/examples/hubert/tests"

# 73 recordings of LibriSpeech, dev-clean, as the Hub has them: a table with the files in it
TABLE = "hf-internal-testing/librispeech_asr_dummy"
TABLE_REVISION = "5be91486e11a2d616f4ec5db8d3fd248585ac07a"
TABLE_FILE = "clean/validation-00000-of-00001.parquet"
TABLE_SHA256 = "4e69a06fa5edc90921e5e7e39a7084881f8b3ed9c805c574f4f39c6fde27c603"
_IN_TABLE = f"datasets/{TABLE}@{TABLE_REVISION}"

# Those that the suite of transformers sorts by name and takes the first two of
SPEECH = (
    Clip("1272-141231-0000", 4.65, _IN_TABLE, TABLE_SHA256),
    Clip("1272-141231-0001", 6.54, _IN_TABLE, TABLE_SHA256),
)
PLUMBING = Clip(
    "6313-76958-0021",
    11.925,
    f"{_FAIRSEQ_FILES}/6313-76958-0021.flac",
    "0dd89e2bf8c60e05264bf2539f0ec35bc65efb55cd952b3510fa243de9cc16ff",
)

# wav2vec 2.0 base: the cosine of prediction and target at 40 masked frames, two spans of ten in each of two rows
COSINES_SEED = 4  # of NumPy's generator, which draws the masks
COSINES = _array(
    """
    0.8523 0.5860 0.6905 0.5557 0.7456 0.5249 0.6639 0.7654 0.7565 0.8167 0.8222 0.7960 0.8034 0.8166 0.8310 0.8263
    0.8274 0.8258 0.8179 0.8412 0.8536 0.5098 0.4728 0.6461 0.4498 0.6002 0.5774 0.6457 0.7123 0.5668 0.6866 0.4960
    0.6293 0.7423 0.7419 0.7526 0.7768 0.4898 0.5393 0.8183
    """
)
COSINES_TOLERANCE = 1e-3  # absolute, and as much again relative

# wav2vec 2.0 base in training, without dropout and LayerDrop: diversity before its weight, and the sum of both terms
LOSS_SEED = 0  # of NumPy's generator for masks and negatives, and of torch's for the Gumbel noise
DIVERSITY, LOSS = 0.9538, 116.7094
LOSS_TOLERANCE = 1e-3  # absolute, for each

# How the suite masks: share of the frames, frames of a span, least number of spans; negatives of a frame
MASK_SHARE, MASK_FRAMES, MIN_MASKS, NEGATIVES = 0.05, 10, 2, 100

# WavLM base+: the last two channels of the last two frames of two rows; the first row ends in padding
WAVLM_SLICE = np.array([[[0.0577, 0.1161], [0.0579, 0.1165]], [[0.0199, 0.1237], [0.0059, 0.0605]]], np.float32)
WAVLM_TOLERANCE = 5e-2  # absolute, and as much again relative

# HuBERT base, block 9: the first eight channels of five of 596 frames, to four decimals; the whole array, 596 x 768,
# is a file of the suite
HUBERT_LAYER = 9
HUBERT_SHAPE = (596, 768)
HUBERT_FRAMES = (0, 149, 298, 447, 595)
HUBERT_FILE = "sample.base.L9.npy"
HUBERT_ADDRESS = f"{_FAIRSEQ_FILES}/{HUBERT_FILE}"
HUBERT_SHA256 = "b44dc3a0519f6adb670a5da7410c1405f4fdb0e4866e5fc4983b136480212f34"
# The suite asks for the same bits of its own program on a GPU. This is what transformers allows its own conversions
HUBERT_TOLERANCE = 1e-3  # relative to the largest value above 1
HUBERT_FEATURES: Float32[np.ndarray, "5 8"] = _array(
    """
    0.0265 -0.0949 0.0332 0.1841 -0.1633 -0.1064 -0.1495 0.3405
    -0.1241 -0.2838 -0.0540 0.0176 0.3495 0.0376 0.2182 0.5789
    0.1472 -0.1416 -0.3029 -0.4842 0.3245 0.0769 0.7842 -0.2836
    -0.1543 0.4039 -0.1554 -0.0809 -0.4150 -0.1552 0.3680 -0.3148
    0.0083 -0.1478 0.0174 0.0960 -0.1822 -0.0733 -0.0384 0.1922
    """
).reshape(5, 8)

# The unit of each of these frames: the nearest of 500 centroids, which are a file of their own (hubert_base_ls960_L9_
# km500.bin, a pickle of scikit-learn); as an array [500, 768] they are looked for under this name
CENTROIDS_FILE = "hubert_base_ls960_L9_km500.npy"
CENTROIDS_SHAPE = (500, 768)
HUBERT_UNITS: Int32[np.ndarray, "596"] = _array(
    """
17 17 17 17 296 296 20 20 20 461 461 20 184 20 20 20 184 289 144 445 445 213 213 213 213 252 215 129 401 20 354 180
494 44 416 416 416 192 192 180 180 84 84 84 16 88 88 88 88 319 242 240 348 35 35 117 404 197 226 209 83 55 55 55 322
67 94 199 118 118 118 118 118 118 402 219 219 219 222 222 222 353 59 245 245 251 251 241 241 431 367 367 178 35 35 35
458 192 351 41 324 324 324 252 464 464 139 139 424 424 424 497 497 497 122 90 42 42 147 380 380 499 319 319 319 348
348 33 33 394 90 76 465 74 425 425 386 386 431 319 319 319 319 319 240 203 53 473 34 340 340 340 340 116 64 212 384
377 123 123 123 216 216 216 114 114 57 57 57 203 381 381 117 48 13 47 80 20 80 80 320 7 7 364 345 141 141 141 141 281
281 9 86 221 198 198 22 283 455 236 239 239 107 107 395 286 286 286 468 468 406 406 467 176 176 176 328 200 200 248
464 145 365 365 365 365 330 385 457 77 77 77 54 224 300 334 334 382 304 304 271 186 31 342 342 342 198 22 283 5 38 162
232 232 482 68 26 26 359 359 81 444 213 213 252 143 458 41 324 324 324 422 143 445 445 445 351 180 486 315 315 450 450
450 203 53 473 291 89 116 379 243 478 478 66 482 482 105 105 336 336 354 29 498 498 498 498 396 396 313 37 314 198 22
222 222 222 222 245 129 74 74 437 437 496 496 496 413 94 199 41 41 324 324 318 318 269 342 9 168 106 106 284 426 426
426 426 348 64 76 401 259 108 123 153 153 153 153 372 372 396 313 24 314 90 401 259 445 445 351 351 365 365 365 365
282 282 215 233 233 229 427 20 247 126 126 126 326 326 326 326 326 326 326 101 101 101 149 228 228 20 289 20 7 217 70
65 189 189 151 240 285 300 300 495 406 467 176 135 135 339 248 466 114 222 222 222 313 313 239 384 371 490 490 38 31
54 54 224 494 494 236 129 259 74 190 487 288 288 288 288 374 173 173 280 280 302 302 175 175 69 69 223 130 129 401 75
108 119 295 295 295 295 143 192 192 135 135 135 135 200 200 464 255 255 255 251 251 241 431 235 235 235 348 348 465
192 44 44 236 8 8 354 319 319 383 348 36 310 107 107 395 462 462 8 32 32 32 354 153 153 153 153 153 387 387 387 387 85
207 318 318 318 49 453 9 168 125 125 125 125 125 466 199 44 44 143 129 144 445 351 351 351 486 486 460 285 285 302 302
497 497 122 239 161 161 79 79 499 499 499 265 265 265 85 85 85 299 299 173 352 352 427 229 170 247 15 15 15 15 15 15
193 193 193 17
    """,
    np.int32,
)
