from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.settings import VARIABLES, Settings, read_settings


def test_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()


def test_every_field_has_a_variable() -> None:
    assert set(VARIABLES.values()) == set(Settings.__struct_fields__)


def test_values_are_converted_to_their_types() -> None:
    settings = read_settings(
        {
            "REDIS_URL": "redis://example:6380/2",
            "AEGIS_PORT": "8123",
            "AEGIS_QUEUES": "a.b.C, d.e",
            "AEGIS_DATA_DIR": "/var/data",
            "AEGIS_ACCEPT_PICKLE": "true",
            "WORKER_KEEP_RESULT_SECONDS": "0",
        }
    )
    assert settings.port == 8123
    assert settings.queues == ("a.b.C", "d.e")
    assert settings.data_dir == Path("/var/data")
    assert settings.accept_pickle is True
    assert settings.keep_result_s == 0


def test_empty_value_means_the_default() -> None:
    assert read_settings({"REDIS_URL": "", "AEGIS_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AEGIS_PORT", "http"),
        ("AEGIS_PORT", "0"),
        ("AEGIS_PORT", "65536"),
        ("REDIS_DB", "-1"),
        ("WORKER_MAX_TRIES", "0"),
        ("WORKER_KEEP_RESULT_SECONDS", "1h"),
        ("AEGIS_MAX_BODY_BYTES", "0"),
        ("AEGIS_MAX_BATCH_BYTES", "0"),
        ("AEGIS_ACCEPT_PICKLE", "perhaps"),
        ("REDIS_URL", "http://localhost"),
    ],
)
def test_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        read_settings({name: value})


def test_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigurationError, match="AEGIS_PROT; did you mean AEGIS_PORT"):
        read_settings({"AEGIS_PROT": "1"})


def test_names_of_others_are_ignored() -> None:
    assert read_settings({"PATH": "/bin", "WORKER_SOMETHING": "1"}) == Settings()


def test_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("AEGIS_PORT=1111\nREDIS_DB=3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEGIS_PORT", "2222")
    settings = read_settings()
    assert (settings.port, settings.redis_db) == (2222, 3)
