"""Verbs in this process, where libraries are imported once, and the scripts with them.

Of the scripts a program ``hybriduad`` ahead on PATH hands its arguments over a socket.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

PROGRAM = """#!{python} -S
import json, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    link.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    sys.exit(int(link.makefile().readline()))
"""

TINY = ["--set", "train.steps=1", "--set", "train.batch=1"]


def run(*arguments: object) -> Result:
    """A verb with its arguments."""
    from hybriduad.cli.app import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def script(
    tmp_path: Path, *arguments: str, run: bool = True, of: Path, **environment: str
) -> tuple[int, list[list[str]]]:
    """Run the script ``of``; its exit code and the verbs it called, each with the arguments.

    Without ``run`` the verbs do nothing but succeed.
    """
    from hybriduad.cli.app import app

    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    address = str(folder / "s")
    Path(address).unlink(missing_ok=True)
    program = folder / "hybriduad"
    program.write_text(PROGRAM.format(python=sys.executable, address=address))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    calls: list[list[str]] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        server.settimeout(0.2)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.Popen(["bash", str(of), *arguments], env=os.environ | {"PATH": path} | environment)
        try:
            while process.poll() is None:
                try:
                    link, _ = server.accept()
                except TimeoutError:
                    continue
                with link:
                    calls.append(json.loads(link.makefile().readline()))
                    done = CliRunner().invoke(app, calls[-1]) if run else None
                    assert done is None or done.exception is None or isinstance(done.exception, SystemExit), done
                    link.sendall(f"{done.exit_code if done else 0}\n".encode())
        finally:
            process.kill()
            process.wait()
    return process.returncode, calls
