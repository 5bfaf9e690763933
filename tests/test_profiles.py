"""The book's jobs on a cluster, planned but not run."""

import subprocess
import sys

import pytest

from robustbias.manifest import ROOT


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_a_profile_plans_every_chapter_and_the_jobs_that_share_its_measures(profile):
    """The executor itself is replaced, since there is no cluster here."""
    given = [
        "executed",
        "--profile",
        ROOT / "profiles" / profile,
        "--executor",
        "dryrun",
        "--nolock",
    ]
    given += ["--config", "study=imagenet", "workers=3"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", *map(str, given)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    jobs = done.stdout + done.stderr
    chapters = ("01_adversarial_training", "02_shape_bias", "06_input_types")
    for chapter in chapters:
        assert f"output: _build/shares/imagenet/{chapter}/2of3" in jobs
        assert f"output: _build/notebooks/imagenet/{chapter}.ipynb" in jobs
    assert "05_concepts" not in jobs  # left out unless the machine has a GPU
    assert "gpu=1" in jobs
    assert "threads: 8" in jobs
