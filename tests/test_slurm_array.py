"""The job script for Slurm, run by plain bash: the command that results."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "slurm-array"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def becomes(*arguments: str, **variables: str) -> str:
    """The arguments that Python gets."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SRGAN_"))}
    environment |= {"SRGAN_PYTHON": "echo", **variables}
    process = subprocess.run(
        ["bash", str(SCRIPT), *arguments], capture_output=True, text=True, env=environment, check=True
    )
    return process.stdout.strip()


def test_each_job_runs_the_same_command() -> None:
    command = "-m srgan_cli upscale a b/photos -o large --recursive --resume --quiet --model photo"
    assert becomes("a b/photos", "large", "--model", "photo", SLURM_ARRAY_TASK_ID="3") == command


@pytest.mark.parametrize(
    ("array", "shards"),
    [
        ({"MIN": "1", "MAX": "8", "COUNT": "8"}, {"1": "1/8", "8": "8/8"}),
        ({"MIN": "0", "MAX": "7", "COUNT": "8", "STEP": "1"}, {"0": "1/8", "7": "8/8"}),
        ({"MIN": "1", "MAX": "15", "COUNT": "8", "STEP": "2"}, {"1": "1/8", "15": "8/8"}),
        ({"MIN": "5", "MAX": "5", "COUNT": "1"}, {"5": "1/1"}),
        ({}, {"": "1/1"}),
    ],
    ids=str,
)
def test_by_shard_the_jobs_of_an_array_are_numbered_from_one(array: dict[str, str], shards: dict[str, str]) -> None:
    for number, shard in shards.items():
        variables = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
        variables |= {"SLURM_ARRAY_TASK_ID": number} if number else {}
        assert f"--quiet --shard {shard}" in becomes("in", "out", SRGAN_BY_SHARD="1", **variables)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        becomes("in")
    assert (caught.value.returncode, "usage: " in caught.value.stderr) == (2, True)
