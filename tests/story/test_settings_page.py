"""docs/settings.md against the settings themselves: none left out, none made up, each default as it is."""

import dataclasses
import inspect

import pytest

from async_tracker import ConfigError, Tracker
from async_tracker.config import Settings, settings_from_env
from async_tracker.integrations.known import redis_arguments
from tests.story.snippets import table

PAGE = "docs/settings.md"
FIELDS = {item.name: item for item in dataclasses.fields(Settings)}
ROWS = {row["setting"]: row for row in table(PAGE, under="All settings")}


def test_every_setting_is_on_the_page_in_its_order():
    assert list(ROWS) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_the_default_and_the_unit_are_those_of_the_code(name: str):
    default = FIELDS[name].default
    assert ROWS[name]["default"].replace('"', "'") == repr(default)
    assert (ROWS[name]["unit"] == "s") == ("float" in str(FIELDS[name].type))


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "redact"])
def test_the_variable_on_the_page_is_the_one_that_is_read(name: str):
    text = {"bool": "yes", "int": "7", "str": "7"}.get(getattr(FIELDS[name].type, "__name__", ""), "7")
    assert set(settings_from_env({ROWS[name]["variable"]: text})) == {name}


def test_what_no_string_can_hold_has_no_variable():
    assert [name for name, row in ROWS.items() if not row["variable"]] == ["redact"]
    assert settings_from_env({"TRACKER_REDACT": "x"}) == {}


@pytest.mark.parametrize("row", table(PAGE, under="What is wrong is said"), ids=lambda row: row["written"])
def test_what_is_wrong_is_said_as_the_page_says(row: dict[str, str]):
    with pytest.raises(ConfigError) as error:
        eval(row["written"], {"Tracker": Tracker})
    assert row["said"] in str(error.value)


def test_an_argument_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKER_NAMESPACE", "from_variable")
    monkeypatch.setenv("TRACKER_DURABLE", "on")
    settings = Tracker.from_env(namespace="from_argument").settings
    assert (settings.namespace, settings.durable) == ("from_argument", True)
    assert Tracker().settings.namespace == "async_tracker"


def test_every_way_to_a_redis_is_on_the_page(monkeypatch: pytest.MonkeyPatch):
    rows = {row["argument"]: row["variable"] for row in table(PAGE, under="Which Redis")}
    parameters = inspect.signature(Tracker).parameters.values()
    named = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    assert set(rows) - {""} == named | set(redis_arguments())
    for argument, variable in rows.items():
        if argument not in ("redis", ""):
            monkeypatch.setenv(variable, "no url at all")
            with pytest.raises(ConfigError):
                Tracker()
            monkeypatch.delenv(variable)
