"""A task's data in, the group and the test set that it names out. Any JSON is taken; what is no name names nothing.

`field:patient` is the group that stands in the task's data under `patient`, `field:split=test` the tasks that have
`test` under `split`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from labelloop.config.key_groups import GROUP, checked_pattern, name_of
from labelloop.records.given import NOTHING_SAID, Said
from labelloop.records.json import canonical

FIELD = "field:"
LONGEST = 200  # characters of a field's name, and of the value of a test set
LARGEST = 2**63  # of a number that names a group


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a task say where its image stands. Empty: none."""

    group: str = ""
    test: tuple[str, str] = ("", "")  # name and value

    def __bool__(self) -> bool:
        return bool(self.group or self.test[0])

    @property
    def key(self) -> str:
        """Names what is read: what was kept under other fields says nothing."""
        return canonical([self.group, *self.test]).decode()

    def of(self, data: object) -> Said:
        """What a task says. A field that is missing, empty, a list or an object says nothing."""
        if not self or not isinstance(data, Mapping):
            return NOTHING_SAID
        group = _text(data.get(self.group)) if self.group else ""
        name, value = self.test
        return Said(name_of(group) if group else "", bool(name) and _text(data.get(name)) == _text(value))


NO_FIELDS = Fields()


def is_field(setting: str) -> bool:
    """Whether a setting speaks of a field. A pattern may begin with the same word: it has `{group}`."""
    return setting.startswith(FIELD) and GROUP not in setting


def named_fields(group_by: str, test_set: str) -> Fields:
    """The fields that two checked settings name."""
    name, _, value = test_set.removeprefix(FIELD).partition("=") if is_field(test_set) else ("", "", "")
    return Fields(group_by.removeprefix(FIELD) if is_field(group_by) else "", (name, value))


def checked_group_by(setting: str) -> str:
    """A pattern over the address, or a field; ValueError says what is wrong with it."""
    if not is_field(setting):
        return checked_pattern(setting)
    _check("group_by", setting.removeprefix(FIELD), f"{FIELD}patient")
    return setting


def checked_test_set(setting: str) -> str:
    """A prefix of addresses, or a field with a value; ValueError says what is wrong with it."""
    if is_field(setting):
        name, equals, value = setting.removeprefix(FIELD).partition("=")
        example = f"{FIELD}split=test"
        if not equals:
            raise ValueError(f"the test set {setting[:LONGEST]!r} does not say which value counts, e.g. {example!r}")
        _check("test_set", name, example)
        _check("test_set", value, example)
    return setting


def _check(setting: str, name: str, example: str) -> None:
    if not name or name != name.strip() or not name.isprintable():
        raise ValueError(f"{setting} needs the name of a field of the task's data, e.g. {example!r}; {name!r} is none")
    if len(name) > LONGEST:
        raise ValueError(f"{setting} has a name of {len(name)} characters; a field has {LONGEST} at most")


def _text(value: object) -> str:
    """A name, whichever program wrote it: 7, 7.0 and "7" are one, and so are two forms of one accent."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        if not abs(value) < LARGEST:  # nor what is no number
            return ""
        return str(int(value)) if value == int(value) else repr(value)
    return unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
