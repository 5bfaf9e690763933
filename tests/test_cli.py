"""The command line: help for every verb, one line for every user's error, a clean stop."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from typer.testing import CliRunner

from robustbias import cli
from toy_book import chapter, repository

VERBS = (
    "fetch", "doctor", "check", "convert", "train", "measure", "run", "book", "build", "publish",
    "verify", "explorer", "visualise", "shape-bias",
)  # fmt: skip
HEADER = "subj,session,trial,rt,object_response,category,condition,imagename\n"


def printed(*words):
    """Lines on stdout of a command that succeeds."""
    result = CliRunner().invoke(cli.app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    result = CliRunner().invoke(cli.app, [verb, "--help"])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fetch", "imagenot"], "'imagenot'; valid: "),
        (["train", "moon"], "unknown study 'moon'; valid: "),
        (
            ["train", "iconworld", "--network", "x"],
            "study iconworld has no network ['x']; it has: ",
        ),
        (["measure", "taste"], "unknown measure 'taste'; valid: ablation, accuracy"),
        (["measure", "accuracy", "--study", "moon"], "unknown study 'moon'"),
        (["measure", "accuracy", "--set", "n_images"], "expected NAME=VALUE"),
        (["measure", "accuracy", "--set", "images=3"], "parameters of accuracy: no 'images'"),
        (["run", "99_end"], "unknown chapter '99_end'; valid: "),
        (["run", "02_shape_bias", "--set", "study=moon"], "contradicts --study iconworld; choose"),
        (["run", "09_findings", "--set", "sizes=[64]"], "parameters of 09_findings: no 'sizes'"),
        (["measure", "shape_bias", "--set", "sizes=64"], "sizes = 64 is not list of int"),
        (["verify", "--tolerance", "nan"], "--tolerance nan: expected a share"),
        (["shape-bias", "nowhere.csv"], "nowhere.csv: no such file"),
        (["measure", "accuracy", "--out", "data_manifest/x.csv"], "which is only read; write to"),
        (["decisions", "iconworld", "--out", "checkpoints"], "which is only read; write to"),
        (["run", "02_shape_bias", "--out", "chapters/new.ipynb"], "which is only read; write to"),
        (["publish", "moon"], "unknown study 'moon'"),
        (["verify", "moon"], "unknown study 'moon'"),
        (["verify", "--against", "there"], "--against has the notebooks of one study: name it"),
        (["verify", "iconworld", "--against", "there"], "there: no executed chapter"),
        (["verify", "iconworld", "--tables", "there"], "--tables there: expected another table"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_error_is_one_line_and_status_2(words, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["robustbias", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "words",
    [
        ["measure", "accuracy", "--seed", str(10**23)],
        ["measure", "accuracy", "--seed", "-1"],
        ["verify", "iconworld", "--jobs", "0"],
        ["explorer", "--port", "99999999"],
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_done(words):
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 2
    assert "Invalid value" in result.output


def test_a_study_without_any_weights_is_an_error_and_not_an_empty_table(monkeypatch, capsys):
    monkeypatch.setattr("robustbias.networks.zoo.weights_path", lambda entry: Path("nowhere"))
    monkeypatch.setattr(sys, "argv", ["robustbias", "measure", "accuracy"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "study iconworld has no network whose weights are on this" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["group", "process"])
def test_ctrl_c_stops_cleanly(tmp_path, to):
    root = repository(tmp_path)
    started = "open('started', 'w').write(str(os.getpid()))"
    nbformat.write(
        chapter("Long", "long", f"import os, time\n{started}\ntime.sleep(99)"),
        root / "chapters/03.ipynb",
    )
    process = subprocess.Popen(
        [Path(sys.executable).with_name("robustbias"), "run", "03", "--study", "first"],
        cwd=root,
        env={**os.environ, "ROBUSTBIAS_ROOT": str(root)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        # a shell starts background jobs with Ctrl-C ignored, which children inherit
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        text=True,
    )
    out = root / "_build/runs/first"
    kernel = root / "chapters/started"  # the cell is under way, not only its kernel
    deadline = time.monotonic() + 120
    while not (kernel.is_file() and kernel.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    if to == "group":  # a terminal's Ctrl-C reaches the kernel too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines() == ["error: interrupted."]
    assert list(out.iterdir()) == []
    assert not psutil.pid_exists(int(kernel.read_text()))


def test_shape_bias_counts_each_observer_and_pools_the_people(tmp_path):
    file = tmp_path / "decisions.csv"
    rows = [
        ("subject-01", 1, "dog", "dog1-cat1"),  # shape
        ("subject-01", 2, "cat", "dog1-cat2"),  # texture
        ("subject-02", 1, "dog", "dog1-cat1"),  # shape
        ("subject-02", 2, "na", "dog2-cat1"),  # neither: counted, not decided
        ("net", 1, "cat", "cat3-cat1"),  # agreeing: left out
        ("net", 2, "cat", "dog2-cat1"),  # texture
    ]
    text = "".join(
        f"{who},1,{trial},0.5,{said},{name.split('-')[0][:-1]},0,{trial:04d}_a_b_0_x_00_{name}.png\n"
        for who, trial, said, name in rows
    )
    file.write_text(HEADER + text)
    head, *lines = printed("shape-bias", str(file))
    assert head.split() == [
        "observer",
        "n",
        "shape",
        "texture",
        "coverage",
        "shape_bias",
        "low",
        "high",
    ]
    rows = {line.rsplit(None, 7)[0].strip(): line.rsplit(None, 7)[1:6] for line in lines}
    assert rows["subject-01"] == ["2", "1", "1", "1.0000", "0.5000"]
    assert rows["subject-02"] == ["2", "1", "0", "0.5000", "1.0000"]
    assert rows["net"] == ["1", "0", "1", "1.0000", "0.0000"]
    assert rows["2 people, pooled"] == ["4", "2", "1", "0.7500", "0.6667"]


@pytest.mark.parametrize(
    ("observer", "n", "bias"),
    [
        ("alexnet", "1200", "0.4294"),
        ("googlenet", "1200", "0.3119"),
        ("vgg", "1200", "0.1722"),
        ("resnet50", "1200", "0.2207"),
        ("10 people, pooled", "12000", "0.9587"),
    ],
)
def test_shape_bias_of_published_decisions_is_the_published_one(
    data_directory, published, observer, n, bias
):
    values = published[observer]
    assert (values[0], values[4]) == (n, bias)
    assert float(values[5]) < float(bias) < float(values[6])


@pytest.fixture(scope="module")
def published(data_directory):
    files = sorted((data_directory / "texture-vs-shape/decisions/cue-conflict").glob("*.csv"))
    rows = [line.rsplit(None, 7) for line in printed("shape-bias", *map(str, files))[1:]]
    return {row[0].strip(): row[1:] for row in rows}
