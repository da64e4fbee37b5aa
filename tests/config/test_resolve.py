from pathlib import Path

import pytest

from penumbra.config import resolve
from penumbra.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sizes: [tiny]", "sizes must map tiny, small and full to mappings"),
        ("sizes: {small: 3}", "sizes must map tiny, small and full to mappings"),
        ("size: [a, b]", "size: Input should be 'tiny', 'small' or 'full'"),
        ("name: 2024-13-45", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("- a list", "expected a mapping of settings, got list"),
    ],
)
def test_a_preset_that_makes_no_sense_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        resolve(str(path))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("data.spacing_mm", [1.0, 0.0]),
        ("data.image_size", [0, 64]),
        ("data.window_hu", [240.0, -160.0]),
        ("bayes.temper", [0.0, 1.0]),
        ("evaluate.severities", [6]),
        ("evaluate.attack_eps", [-0.1]),
    ],
)
def test_a_value_that_no_stage_could_work_with_is_refused_at_once(
    setting: str, value: list[float]
) -> None:
    with pytest.raises(ConfigError, match=setting.partition(".")[2]):
        resolve("phantom-ct", overrides={setting: value})


def test_a_value_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"name: '2024-13-45': not valid YAML .*quote it"):
        resolve("phantom-mri", overrides={"name": "2024-13-45"})
