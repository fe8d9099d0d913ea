"""Whether a request may go on in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hybriduad.core.errors import ConfigError
from hybriduad.core.requests import is_another, refuse_strangers

NAME = "request.json"
REQUEST = {"seed": 1, "sizes": (1, 2)}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_an_empty_and_a_folder_of_the_same_request_go_on(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / NAME).write_text(json.dumps(REQUEST))
    for name in ("new", "empty", "same"):
        assert not is_another(tmp_path / name, NAME, REQUEST, "maps", overwrite)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '{"seed": 2, "sizes": [1, 2]}',
            "other maps in the same place in .*: got seed 2 there and 1 now; .*--overwrite",
        ),
        ("{", "damaged record in .*request.json.*--overwrite"),
        ("3", "damaged record in .*request.json.*--overwrite"),
    ],
)
def test_another_request_is_replaced_only_where_that_is_asked_for(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        is_another(tmp_path, NAME, REQUEST, "maps", overwrite=False)
    assert is_another(tmp_path, NAME, REQUEST, "maps", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_taken(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="output folder holds something else"):
        is_another(tmp_path, NAME, REQUEST, "maps", overwrite)


def test_what_is_own_is_no_stranger(tmp_path: Path) -> None:
    (tmp_path / "a.html").touch()
    refuse_strangers(tmp_path, lambda entry: entry.suffix == ".html")
    (tmp_path / "b.txt").touch()
    with pytest.raises(ConfigError, match="output folder holds something else"):
        refuse_strangers(tmp_path, lambda entry: entry.suffix == ".html")
