import pytest

from bridge.errors import ConfigurationError
from bridge.rate import read_rate
from bridge.settings import read_settings


@pytest.mark.parametrize(
    ("text", "requests", "period_us"),
    [("1/s", 1, 1_000_000), ("100/m", 100, 60_000_000), ("999999999/h", 999_999_999, 3_600_000_000)],
)
def test_rate_is_a_number_in_a_period(text: str, requests: int, period_us: int) -> None:
    rate = read_rate(text)
    assert (rate.requests, rate.period_us, rate.text) == (requests, period_us, text)


@pytest.mark.parametrize("text", ["", "0/s", "-1/s", "1", "1/d", "1/ s", "1.5/s", "/s", "1/s\n", "٣/s", "9999999999/s"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 100/s"):
        read_rate(text)
    if text:
        with pytest.raises(ConfigurationError, match="AEGIS_RATE_LIMIT"):
            read_settings({"AEGIS_RATE_LIMIT": text})
