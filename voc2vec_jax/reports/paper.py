"""The numbers printed in the voc2vec paper's tables III and IV, to be shown beside ours.

Source: A. Koudounas, M. La Quatra, S. M. Siniscalchi, E. Baralis, "voc2vec: A Foundation Model for Non-Verbal
Vocalization", ICASSP 2025; the row of voc2vec-hubert-ls from the official repository, published later. Mean and
standard deviation over ten folds (table IV), and over the six tasks' means (table III; population standard deviation).
"""

import statistics
from typing import NamedTuple

from voc2vec_jax.finetuning import tasks

TASKS = tasks.PAPER_TASKS
MISPRINTS = {("emotion2vec", "asvp_esd_babies", "accuracy"): "the deviation .330 looks like a misprint of the paper"}


class Number(NamedTuple):
    """Mean and standard deviation, shares in [0, 1]."""

    mean: float
    std: float | None  # None: of a single value


Row = dict[str, Number]  # by metric: "uar", "accuracy", "f1_macro"; a metric that was not published is absent

# system, task, then mean and deviation of UAR, accuracy, macro F1
_TABLE_IV = """
opensmile   asvp_esd               .106 .055  .125 .037  .040 .011
opensmile   asvp_esd_babies        .281 .137  .785 .192  .258 .126
opensmile   cnvve                  .206 .092  .249 .053  .160 .050
opensmile   donateacry             .212 .050  .784 .155  .222 .062
opensmile   nonverbal_vocalization .021 .007  .094 .030  .026 .015
opensmile   vivae                  .128 .077  .128 .025  .092 .025
emotion2vec asvp_esd               .575 .042  .618 .012  .537 .018
emotion2vec asvp_esd_babies        .509 .206  .926 .330  .467 .175
emotion2vec cnvve                  .955 .022  .950 .023  .951 .023
emotion2vec donateacry             .210 .051  .837 .036  .228 .054
emotion2vec nonverbal_vocalization .764 .038  .760 .035  .726 .046
emotion2vec vivae                  .513 .082  .516 .076  .502 .075
data2vec    asvp_esd               .585 .029  .606 .027  .567 .030
data2vec    asvp_esd_babies        .514 .171  .880 .043  .468 .165
data2vec    cnvve                  .981 .008  .980 .007  .981 .008
data2vec    donateacry             .306 .106  .768 .100  .252 .081
data2vec    nonverbal_vocalization .707 .076  .706 .078  .651 .073
data2vec    vivae                  .301 .096  .307 .101  .224 .117
wavlm       asvp_esd               .615 .016  .663 .012  .609 .016
wavlm       asvp_esd_babies        .501 .151  .870 .063  .434 .144
wavlm       cnvve                  .976 .018  .975 .019  .975 .019
wavlm       donateacry             .352 .093  .721 .101  .307 .058
wavlm       nonverbal_vocalization .840 .050  .832 .041  .820 .054
wavlm       vivae                  .230 .061  .256 .074  .161 .067
wavlm-plus  asvp_esd               .594 .017  .649 .009  .591 .016
wavlm-plus  asvp_esd_babies        .441 .133  .860 .080  .385 .155
wavlm-plus  cnvve                  .978 .015  .978 .015  .978 .015
wavlm-plus  donateacry             .349 .096  .835 .041  .306 .073
wavlm-plus  nonverbal_vocalization .731 .035  .728 .046  .676 .043
wavlm-plus  vivae                  .194 .056  .211 .085  .107 .073
wav2vec2-ls asvp_esd               .626 .014  .672 .013  .627 .013
wav2vec2-ls asvp_esd_babies        .432 .171  .891 .059  .378 .140
wav2vec2-ls cnvve                  .971 .018  .970 .017  .973 .016
wav2vec2-ls donateacry             .360 .071  .709 .153  .295 .075
wav2vec2-ls nonverbal_vocalization .838 .067  .817 .088  .818 .079
wav2vec2-ls vivae                  .365 .162  .375 .158  .320 .194
wav2vec2-as asvp_esd               .590 .016  .624 .014  .577 .016
wav2vec2-as asvp_esd_babies        .521 .126  .890 .044  .460 .132
wav2vec2-as cnvve                  .839 .060  .838 .063  .809 .073
wav2vec2-as donateacry             .282 .086  .783 .065  .254 .078
wav2vec2-as nonverbal_vocalization .619 .065  .607 .070  .575 .064
wav2vec2-as vivae                  .449 .058  .448 .059  .412 .059
hubert-ls   asvp_esd               .622 .017  .664 .011  .619 .014
hubert-ls   asvp_esd_babies        .515 .134  .924 .023  .505 .141
hubert-ls   cnvve                  .972 .017  .972 .017  .972 .017
hubert-ls   donateacry             .312 .067  .802 .051  .276 .062
hubert-ls   nonverbal_vocalization .812 .047  .810 .047  .789 .054
hubert-ls   vivae                  .527 .067  .534 .062  .510 .071
hubert-as   asvp_esd               .587 .173  .621 .194  .577 .183
hubert-as   asvp_esd_babies        .456 .121  .856 .055  .389 .106
hubert-as   cnvve                  .919 .058  .922 .058  .918 .059
hubert-as   donateacry             .364 .075  .743 .111  .304 .064
hubert-as   nonverbal_vocalization .837 .048  .826 .051  .803 .048
hubert-as   vivae                  .455 .059  .464 .055  .415 .065
voc2vec-ls  asvp_esd               .633 .009  .673 .009  .627 .006
voc2vec-ls  asvp_esd_babies        .526 .189  .914 .039  .491 .175
voc2vec-ls  cnvve                  .982 .011  .982 .010  .982 .010
voc2vec-ls  donateacry             .378 .173  .793 .095  .311 .092
voc2vec-ls  nonverbal_vocalization .872 .049  .869 .036  .848 .049
voc2vec-ls  vivae                  .573 .062  .578 .055  .558 .060
"""
_TABLE_III = """
voc2vec            .612 .212  .729 .146  .580 .230
voc2vec-as         .603 .183  .754 .131  .574 .194
voc2vec-ls         .661 .206  .802 .139  .636 .223
wav2vec2-ls        .599 .237  .739 .192  .569 .259
hubert-ls          .627 .214  .784 .149  .611 .222
voc2vec-hubert-ls  .696 .189  -    -     .678 .200
"""
_METRICS = ("uar", "accuracy", "f1_macro")


def _numbers(words: list[str]) -> Row:
    pairs = zip(_METRICS, words[::2], words[1::2])
    return {metric: Number(float(mean), float(std)) for metric, mean, std in pairs if mean != "-"}


TABLE_IV: dict[str, dict[str, Row]] = {}  # system -> task -> row
for _line in _TABLE_IV.split("\n")[1:-1]:
    _system, _task, *_words = _line.split()
    TABLE_IV.setdefault(_system, {})[_task] = _numbers(_words)

TABLE_III: dict[str, Row] = {}  # system -> row, as printed
for _line in _TABLE_III.split("\n")[1:-1]:
    _system, *_words = _line.split()
    TABLE_III[_system] = _numbers(_words)


def average(rows: dict[str, Row]) -> Row:
    """Mean and population standard deviation over tasks of each metric that all of them have: a row of table III."""
    shared = [metric for metric in _METRICS if rows and all(metric in row for row in rows.values())]
    means = {metric: [row[metric].mean for row in rows.values()] for metric in shared}
    return {metric: Number(statistics.fmean(values), statistics.pstdev(values)) for metric, values in means.items()}


def averages(system: str) -> Row:
    """The paper's row of table III: printed, else derived from table IV, else empty."""
    return TABLE_III.get(system) or average(TABLE_IV.get(system, {}))
