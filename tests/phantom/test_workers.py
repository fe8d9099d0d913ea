"""Phantoms made by several processes: the same bytes, the same sentences, and continuing after a kill."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import contents

from hybriduad.core.errors import ConfigError, DataError
from hybriduad.phantom.cohort import write_cohort
from hybriduad.phantom.workers import work_through
from hybriduad.scan.volumes import read_volume

MIXED = {"contrasts": ("FLAIR",), "spacing_mm": (6.0, 6.0, 8.0), "seed": 4, "pathology": "mixed"}


class Killed(Exception):
    pass


def test_files_do_not_depend_on_the_workers_nor_on_a_kill_between_them(tmp_path: Path) -> None:
    alone = contents(write_cohort(tmp_path / "alone", subjects=4, workers=1, **MIXED).parent)
    seen = []

    def kill(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        write_cohort(tmp_path / "many", subjects=4, workers=2, progress=kill, **MIXED)
    assert seen == [(1, 4), (2, 4), (3, 4)]
    (tmp_path / "many" / "sub-0002" / "anat" / "sub-0002_FLAIR.json").unlink()  # as if it had ended before this file
    write_cohort(tmp_path / "many", subjects=4, workers=1, progress=lambda *done: seen.append(done), **MIXED)
    assert seen[3:] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert contents(tmp_path / "many") == alone


@pytest.mark.parametrize(("work", "error"), [(read_volume, DataError), (os.listdir, FileNotFoundError)])
def test_an_error_of_a_worker_is_the_same_sentence(work: Callable, error: type[Exception], tmp_path: Path) -> None:
    sentences = []
    for workers in (1, 2):
        with pytest.raises(error, match=r"a\.nii") as caught:
            list(work_through(work, [tmp_path / "a.nii", tmp_path / "b.nii"], workers))
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]


def test_a_worker_that_is_killed_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"a worker could not start, or was killed.*got 2 workers.*__main__"):
        list(work_through(os._exit, [3, 3], 2))


def test_a_script_that_a_worker_runs_again_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    with pytest.raises(ConfigError, match=r"a process of a pool asks for a pool.*if __name__ == '__main__'"):
        write_cohort(tmp_path / "out", subjects=2, workers=2, **MIXED)
    write_cohort(tmp_path / "out", subjects=2, workers=1, **MIXED)


def test_no_worker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no worker to make phantoms: got 0"):
        write_cohort(tmp_path / "out", subjects=2, workers=0, **MIXED)
    assert not (tmp_path / "out").exists()
