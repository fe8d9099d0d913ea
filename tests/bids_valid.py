"""The official BIDS validator (a program with its schema, without network) on what was written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "bids-validator-deno"


def bids_issues(folder: Path) -> tuple[list[dict[str, str]], set[str]]:
    """The errors in a data set, and the codes of the warnings; skips the test where there is no validator."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which(PROGRAM, path=path)
    if program is None:
        pytest.skip(f"no {PROGRAM}: pip install '.[dev]' in the checkout")
    command = [program, "--json", folder]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": path}, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    errors = [issue for issue in issues if issue["severity"] == "error"]
    return errors, {issue["code"] for issue in issues if issue["severity"] != "error"}
