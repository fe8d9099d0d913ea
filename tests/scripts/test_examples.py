"""The examples of docs/examples call what there is."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from hybriduad.cli import bids
from hybriduad.cli.app import app

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 0), (2, 2)])
def test_an_array_job_is_a_shard_of_its_array(code: int, expected: int, tmp_path: Path) -> None:
    program = tmp_path / "hybriduad"
    program.write_text(f'#!/bin/sh\necho "$@"\nexit {code}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    slurm = {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "2", "SLURM_ARRAY_TASK_COUNT": "8"}
    slurm |= {"SLURM_ARRAY_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "4"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", EXAMPLES / "slurm_array.sh", "det", "c.csv", "out dir"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == expected
    assert done.stdout.startswith(
        "predict det c.csv --out out dir --shard 3/8 --engine processes --nprocs 4 --log-json "
    )
    assert subprocess.run(command[:3], capture_output=True, env=environment).returncode == 2


def test_options_in_examples_exist() -> None:
    import typer.main

    known = {
        option for parameter in typer.main.get_command(app).commands["predict"].params for option in parameter.opts
    }
    for name in ("slurm_array.sh", "ray.md"):
        text = (EXAMPLES / name).read_text().replace("\\\n", " ")
        calls = re.findall(r"^hybriduad predict .*$", text, re.MULTILINE)
        assert calls
        for call in calls:
            assert {word for word in re.findall(r"(?<= )--[a-z-]+", call)} <= known, call
    text = (EXAMPLES / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["hybriduad-bids"]' in text
    (line,) = re.findall(r"^#     hybriduad (/data .*)$", text, re.MULTILINE)
    stated = bids._parser().parse_args(line.split())
    assert (stated.analysis_level, stated.nprocs, stated.report) == ("participant", 4, True)
    text = (EXAMPLES / "slurm_array.sh").read_text()
    (line,) = re.findall(r"^#     (/data /out participant .*)$", text, re.MULTILINE)
    stated = bids._parser().parse_args(line.split())
    assert (stated.shard, stated.engine, stated.nprocs) == ('"$shard"', "processes", 4)
