"""The folder is the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

import hybriduad
from hybriduad.config.strict import PluginConfig
from hybriduad.core import plugins
from hybriduad.core.errors import ConfigError
from hybriduad.core.plugins import FOLDERS, KINDS, load, names


def files(kind: str) -> list[str]:
    folder = Path(hybriduad.__file__).parent / FOLDERS[kind]
    return sorted(path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_the_files(kind: plugins.Kind) -> None:
    assert names(kind) == files(kind)
    assert len(names(kind)) >= 2


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in files(kind)])
def test_every_plugin_keeps_its_contract(kind: plugins.Kind, name: str) -> None:
    module = load(kind, name)
    assert module.__name__ == f"hybriduad.{FOLDERS[kind].replace('/', '.')}.{name.replace('-', '_')}"
    assert module.__doc__
    wanted = {"anomalies": "corrupt", "reconstructors": "Model", "datasets": "cases", "rules": "find"}[kind]
    assert callable(getattr(module, wanted))
    if kind != "datasets":
        assert issubclass(module.Config, PluginConfig)
        needed = {key: 0.5 for key, field in module.Config.model_fields.items() if field.is_required()}
        needed.pop("name", None)
        assert not needed or kind == "rules", "without a key of its own a YAML block must do"
        assert module.Config.model_validate({"name": name, **needed}).name == name
        with pytest.raises(ValueError, match="name"):
            module.Config.model_validate({"name": "another", **needed})


def test_a_new_file_is_a_new_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybriduad import anomalies

    (tmp_path / "fresh.py").write_text("ANSWER = 42\n")
    (tmp_path / "_hidden.py").write_text("")
    monkeypatch.setattr(anomalies, "__path__", [*anomalies.__path__, str(tmp_path)])
    assert names("anomalies") == sorted([*files("anomalies"), "fresh"])
    assert load("anomalies", "fresh").ANSWER == 42


def test_unknown_plugin_lists_the_known_and_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"got 'perlim', expected one of \[.*'perlin'.*\]; perhaps perlin is meant"):
        load("anomalies", "perlim")
    with pytest.raises(ConfigError, match=r"add hybriduad/reconstructors/qqq\.py"):
        load("reconstructors", "qqq")
    with pytest.raises(ConfigError, match=r"'expected-dice'.*; perhaps best-dice is meant"):
        load("rules", "best_dice")
    with pytest.raises(ConfigError, match=r"add hybriduad/evaluation/rules/of_my_own\.py"):
        load("rules", "of-my-own")


@pytest.mark.parametrize("name", ["_base", "", "../errors", "perlin.py", "os"])
def test_what_is_no_plugin_is_not_imported(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown plug-in"):
        load("anomalies", name)
