"""What a deployer says is taken as said, or refused by the variable's name."""

import pytest

from epidote_operator.settings import PREFIX, InvalidSettings, Settings


def test_variables_change_the_defaults_and_others_are_left_alone() -> None:
    found = Settings.from_env(
        {f"{PREFIX}NAMESPACES": "a, b", f"{PREFIX}HTTP_PORT": "0", "HTTP_PORT": "x"}
    )
    assert (found.namespaces, found.http_port) == (("a", "b"), 0)
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("HTTP_PORT", "99999", "at most 65535"),
        ("HTTP_PORT", "-1", "at least 0"),
        ("HTTP_PORT", "http", "a int"),
        ("LEASE_SECONDS", "0", "at least 1"),
        ("LEASE_SECONDS", "nan", "at least 1"),
        ("TICK_SECONDS", "-5", "at least 0"),
        ("WEBHOOK", "perhaps", "a bool"),
        ("NO_SUCH", "1", "no such setting"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(name: str, value: str, wanted: str) -> None:
    with pytest.raises(InvalidSettings, match=f"{PREFIX}{name}: .*{wanted}"):
        Settings.from_env({f"{PREFIX}{name}": value})
