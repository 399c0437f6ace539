"""The script of the paper's experiment: its jobs, its parts, what a fault or a signal does, and its estimate."""

import collections
import importlib.util
import json
import os
import pathlib
import signal
import stat
import subprocess
import time

import pytest

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.models import flops, wav2vec2
from voc2vec_jax.planning import chips

CLUSTER = pathlib.Path(__file__).parents[2] / "tools" / "cluster"
# In the place of Python: writes its arguments down, makes what a job leaves, and ends as $STATUS_OF says.
STUB = """#!/usr/bin/env bash
echo "$*" >> "$LOG"
for word in "$@"; do case $word in --workdir=*) workdir=${word#--workdir=} ;; esac; done
[ -z "${WAIT:-}" ] || { trap 'exit 75' TERM; echo ready >> "$LOG"; while :; do sleep 0.05; done; }
while read -r pattern status; do
  [ -z "$pattern" ] || case "$*" in *$pattern*) exit "$status" ;; esac
done <<< "${STATUS_OF:-}"
[ -z "${workdir:-}" ] || { mkdir -p "$workdir"; echo '{"complete": true}' > "$workdir/summary.json"; }
"""
SMALL = {"SYSTEMS": "opensmile wavlm voc2vec", "TASKS": "cnvve vivae", "PROTOCOLS": "strict paper"}


@pytest.fixture
def place(tmp_path):
    """A folder with the stub, and `cnvve` and `vivae` prepared."""
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    for name in ("cnvve", "vivae"):
        (tmp_path / "data" / name / "1.0.0").mkdir(parents=True)
        (tmp_path / "data" / name / "1.0.0" / "dataset_info.json").touch()
    return tmp_path


def environment(place, **more):
    return {"PATH": os.environ["PATH"], "PYTHON": str(place / "python"), "LOG": str(place / "log"), **SMALL, **more}


def paper(place, *words, **more):
    """(status, what it said, the commands that it ran)."""
    (place / "log").write_text("")
    command = ["bash", str(CLUSTER / "paper.sh"), *words]
    done = subprocess.run(
        command, cwd=place, env=environment(place, **more), capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr, (place / "log").read_text().splitlines()


def folders(commands):
    return [word.removeprefix("--workdir=") for line in commands for word in line.split() if "--workdir" in word]


def test_the_jobs_are_those_of_the_paper(place):
    status, said, _ = paper(place, "jobs", SYSTEMS="", TASKS="", PROTOCOLS="")
    jobs = [tuple(line.split()[1:4]) for line in said.splitlines()]
    assert status == 0 and [line.split()[0] for line in said.splitlines()] == [str(1 + n) for n in range(144)]
    assert set(jobs) == {
        (protocol, task, system)
        for protocol in ("strict", "paper")
        for task in tasks.PAPER_TASKS
        for system in paper_systems.PAPER_SYSTEMS
    }


def test_every_part_has_its_share_of_the_largest_task(place):
    jobs = [line.split() for line in paper(place, "jobs", SYSTEMS="", TASKS="", PROTOCOLS="")[1].splitlines()]
    for parts in (12, 16, 24, 144):
        large = collections.Counter(int(number) % parts for number, _, task, *_ in jobs if task == "asvp_esd")
        assert max(large.values()) == -(-24 // parts)
        systems = collections.Counter(system for number, _, _, system, _ in jobs if int(number) % parts == 1)
        assert max(systems.values()) <= 2


def test_parts_do_every_job_once_and_leave_alone_what_is_done(place):
    ran = [folders(paper(place, "finetune", f"{part}/3", "--config.epochs=7")[2]) for part in (1, 2, 3)]
    expected = {
        f"runs/paper/{p}/{t}/{s}"
        for p in ("strict", "paper")
        for t in ("cnvve", "vivae")
        for s in SMALL["SYSTEMS"].split()
    }
    assert sorted(sum(ran, [])) == sorted(expected) and {len(one) for one in ran} == {4}
    status, said, commands = paper(place, "finetune")
    assert status == 0 and not commands and said.count("is complete") == 12


def test_a_job_gets_its_task_system_protocol_and_the_fields_behind_the_word(place):
    _, _, commands = paper(place, "finetune", "1/12", "--config.dtype=bfloat16")
    assert commands == [
        "-m voc2vec_jax finetune --config=finetune:cnvve --config.model=opensmile --config.protocol=strict "
        "--config.data_dir=data --workdir=runs/paper/strict/cnvve/opensmile --distributed=off --config.dtype=bfloat16"
    ]


@pytest.mark.parametrize(
    ("statuses", "status", "ran"),
    [
        ("cnvve/wavlm 2", errors.EXIT_INPUT, 12),
        ("cnvve/wavlm 2\npaper/vivae 1", errors.EXIT_FAULT, 12),
        ("cnvve/wavlm 1\npaper/vivae 2", errors.EXIT_FAULT, 12),
        ("strict/cnvve/wavlm 75", errors.EXIT_STOPPED, 2),
        ("strict/cnvve/wavlm 137", 137, 2),  # killed: the machine or the scheduler wants it to end
    ],
)
def test_faults_of_jobs_do_not_stop_the_others_and_a_stop_does(statuses, status, ran, place):
    found, _, commands = paper(place, "finetune", STATUS_OF=statuses)
    assert (found, len(commands)) == (status, ran)
    done = len(list(place.glob("runs/paper/*/*/*/summary.json")))
    again, _, commands = paper(place, "finetune")
    assert (again, len(commands)) == (0, 12 - done) and done < ran


def test_a_task_that_is_not_prepared_is_left_out(place):
    (place / "data" / "vivae" / "1.0.0" / "dataset_info.json").unlink()
    status, said, commands = paper(place, "finetune")
    assert status == 0 and len(commands) == 6 and not any("vivae" in line for line in commands)
    assert said.count("is left out: data has no vivae") == 6


def test_a_signal_reaches_the_program_and_its_status_comes_back(place):
    (place / "log").write_text("")
    process = subprocess.Popen(
        ["bash", str(CLUSTER / "paper.sh"), "finetune"],
        cwd=place,
        env=environment(place, WAIT="1"),
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 30
    while "ready" not in (place / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == errors.EXIT_STOPPED
    assert len(folders((place / "log").read_text().splitlines())) == 1


def test_all_goes_through_every_word_and_stops_where_weights_differ(place):
    status, _, commands = paper(place, "all", STATUS_OF="prepare 2")
    assert status == 0 and [line.split()[2] for line in commands][:2] == ["prepare", "verify"]
    assert commands[1] == "-m voc2vec_jax verify opensmile wavlm voc2vec --output=runs/paper/verify"
    assert sum(line.split()[2] == "finetune" for line in commands) == 12
    assert commands[-1] == "-m voc2vec_jax report runs/paper/strict runs/paper/paper --output=runs/paper/report.html"

    status, said, commands = paper(place, "all", STATUS_OF="verify 1")
    assert status == errors.EXIT_FAULT and len(commands) == 2 and "paper.sh finetune" in said


def test_figure_1_is_of_the_three_systems_of_the_paper_in_its_order(place):
    for system in ("hubert-ls", "voc2vec-ls", "wav2vec2-ls", "wavlm"):
        folder = place / "runs" / "paper" / "strict" / "vivae" / system
        (folder / "fold_00").mkdir(parents=True)
        (folder / "fold_00" / "embeddings.npz").touch()
        (folder / "summary.json").touch()
    _, _, commands = paper(place, "report")
    runs = " ".join(f"runs/paper/strict/vivae/{system}" for system in ("wav2vec2-ls", "hubert-ls", "voc2vec-ls"))
    assert commands[1:] == [f"-m voc2vec_jax report {runs} --output=runs/paper/figure1_strict.html"]


@pytest.mark.parametrize(
    ("model", "batch", "recipe"),
    [
        ("voc2vec", "two_gpus", "voc125:two_gpus"),
        ("voc2vec-ls", "one_gpu", "voc125:ls=facebook/wav2vec2-base,one_gpu"),
        ("voc2vec-as", "", "voc125:as=ALM/wav2vec2-base-audioset"),
    ],
)
def test_the_three_models_are_pretrained_from_their_starts(model, batch, recipe, place):
    _, _, commands = paper(place, "pretrain", model, "--config.fsdp=1", BATCH=batch)
    assert [line.partition(" --config.data_dir")[0] for line in commands] == [f"-m voc2vec_jax train --config={recipe}"]
    assert commands[0].endswith(f"--workdir=runs/paper/pretraining/our-{model} --distributed=off --config.fsdp=1")


@pytest.mark.parametrize(
    "words", [("finetune", "0/3"), ("finetune", "4/3"), ("pretrain", "voc3vec"), ("finetunes",), ()]
)
def test_slips_of_the_command_line_are_refused(words, place):
    status, _, commands = paper(place, *words)
    assert status == errors.EXIT_INPUT and not commands


@pytest.mark.parametrize(
    ("words", "given", "reason"),
    [
        (["verify", "voc2vec"], {}, "verify takes no word voc2vec: set SYSTEMS, TASKS or PROTOCOLS before it"),
        (["finetune", "1/2", "vivae"], {}, "finetune takes no word vivae"),
        (["jobs"], {"SYSTEMS": " "}, "SYSTEMS is blank: name one, or unset it"),
        (["finetune"], {"PROTOCOLS": "strict papre"}, "PROTOCOLS has papre, which is neither strict nor paper"),
        (["finetune"], {"TASKS": "vivea"}, "data has none of vivea: paper.sh prepare makes them"),
    ],
)
def test_what_would_run_everything_or_nothing_is_refused(words, given, reason, place):
    status, said, commands = paper(place, *words, **given)
    assert status == errors.EXIT_INPUT and not commands
    assert said.startswith("paper: ") and said.count("\n") == 1 and reason in said


def test_parts_may_have_zeros_before_them(place):
    assert folders(paper(place, "finetune", "08/012")[2]) == ["runs/paper/strict/vivae/opensmile"]


# --- SLURM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("element", "part"),
    [({"ID": "1", "MIN": "1", "COUNT": "24"}, "1/24"), ({"ID": "7", "MIN": "3", "COUNT": "3", "STEP": "2"}, "3/3")],
)
@pytest.mark.parametrize(("ends", "requeued"), [(0, False), (2, False), (75, True), (137, True)])
def test_an_element_of_the_array_does_its_part_and_is_queued_again(element, part, ends, requeued, place):
    (place / "activate").touch()
    (place / "paper.sh").write_text(f'echo "$*" >> "$LOG"\nexit {ends}\n')
    scontrol = place / "scontrol"
    scontrol.write_text('#!/usr/bin/env bash\necho "scontrol $*" >> "$LOG"\n')
    scontrol.chmod(0o755)
    slurm = {f"SLURM_ARRAY_TASK_{name}": value for name, value in element.items()}
    slurm |= {"SLURM_JOB_ID": "31", "ENVIRONMENT": str(place / "activate"), "SCRIPT": str(place / "paper.sh")}
    slurm |= {"PATH": f"{place}:{os.environ['PATH']}", "LOG": str(place / "log")}
    done = subprocess.run(
        ["bash", str(CLUSTER / "paper.sbatch"), "finetune", "--config.epochs=7"],
        env=slurm,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == ends
    log = (place / "log").read_text().splitlines()
    assert log == [f"finetune {part} --config.epochs=7", *["scontrol requeue 31"] * requeued]


# --- the estimate -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan():
    spec = importlib.util.spec_from_file_location("paper_plan", CLUSTER / "paper_plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def estimate(plan, capsys, *words):
    status = plan.program.run(plan.main, ["--config=finetune:vivae", "--config.data_dir=nowhere", *words])
    return status, capsys.readouterr()


def row(printed, name):
    return next(line.split() for line in printed.out.splitlines() if line.startswith(name))


def test_a_plan_names_the_interpreter_that_lacks_the_package(place):
    status, said, commands = paper(place, "plan", STATUS_OF="import 1")
    assert status == errors.EXIT_INPUT and len(commands) == 1
    assert f"{place / 'python'} has no voc2vec_jax: install it, or name the interpreter" in said


def test_hours_and_gigabytes_by_hand(plan, capsys):
    """VIVAE of table II: 1,085 clips of 0.9 s, padded to 7 s by the paper's protocol; an A6000 in float32."""
    status, printed = estimate(plan, capsys, "--systems=opensmile,voc2vec", "--protocols=paper", "--device=a6000:2")
    assert status == 0 and "2 systems x 1 tasks x 1 protocols: 2 jobs of up to 10 folds" in printed.out
    heard = 1085 * 7 * (9 + 1 / 3)  # nine of ten folds train, the tenth is only listened to
    assert row(printed, "vivae")[1:] == ["1,085", "0.27", f"{heard / 3600:.1f}", "table", "II"]
    rate = chips.CHIPS["a6000"].float32_flops
    hours = heard / 7 * sum(flops.training(wav2vec2.Config(), 112_000).values()) / rate / 3600 / 2
    assert row(printed, "voc2vec")[1:] == ["arithmetic", f"{6 * hours:.1f}", f"{50 * hours:.1f}"]
    assert row(printed, "all")[1:] == row(printed, "voc2vec")[2:]
    assert "not counted" in next(line for line in printed.out.splitlines() if line.startswith("opensmile"))
    models = next(line for line in printed.out.splitlines() if line.startswith("the best fold's model of 1 jobs"))
    assert models.endswith(f"{4 * 94_371_712 / 1e6:.1f} MB")


def test_the_strict_protocol_trains_on_nine_tenths_of_nine_tenths(plan):
    config = plan.configuration.load("finetune:vivae")
    size = plan.TaskSize("vivae", 100, 80.0, 3, True)
    assert plan.heard_an_epoch(size, "strict", config) == pytest.approx(80 * 2 * (0.9 + 0.1 / 3))
    assert plan.heard_an_epoch(size, "paper", config) == pytest.approx(700 * (9 + 1 / 3))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--protocols=strickt"], "strickt is neither strict nor paper"),
        (["--systems="], "name at least one system"),
        (["--systems=voc3vec"], "did you mean voc2vec"),
        (["--device=h1000"], "did you mean h100"),
        (["--config=finetune:vivea"], "nowhere has no set vivea, and the paper has none: prepare it, or leave it out"),
    ],
)
def test_an_estimate_of_what_is_not_there_is_refused(words, reason, plan, capsys):
    status, printed = estimate(plan, capsys, *words)
    assert status == errors.EXIT_INPUT and reason in printed.err


def test_the_stub_makes_what_a_finished_job_makes(place):
    """As `grep` finds it in the summary that fine-tuning writes."""
    paper(place, "finetune", "1/12")
    assert json.loads((place / "runs/paper/strict/cnvve/opensmile/summary.json").read_text())["complete"] is True
