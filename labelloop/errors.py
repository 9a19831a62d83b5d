"""Every error that labelloop raises on purpose.

LabelloopError
├── SettingsError            the environment or a project's YAML is wrong
├── LabelConfigError         the label config is not one image and one single-choice control
├── ImageUnreadableError     one image cannot be had or decoded; others are not affected
├── DecodersBusyError        no room for one more large image now; it may be tried again
├── SourceAwayError          an image's server does not answer now; it may later
├── StorageError             object storage refused or cannot be reached
│   ├── NotFoundError
│   └── AlreadyExistsError   a conditional write found an older object
├── CorruptArtefactError     kept bytes are not those that were written
│   ├── CorruptObjectError   one object cannot be read: it names the key; others are not affected
│   │   └── LostRowsError    rows of features: it names the images, whose features can be computed again
├── FormatError              kept data was written by a newer release than this one
├── ConflictError            the champion changed between decision and deploy
├── PausedError              a person has paused learning: nothing goes live by itself
├── CancelledError           a person has cancelled the job: it ends without a verdict
├── SupersededError          a run was given up, or somebody else has answered its wish: it delivers nothing
├── LeaseLostError           somebody else holds the lease, or it ran out
├── QueueError               Redis refused or cannot be reached
├── StudioError              Label Studio refused or cannot be reached
├── MissingExtraError        a library is not installed that only some need; the message names the extra
├── NotEnoughLabelsError     nothing can be fitted yet; the message says what is missing
└── StackError               the embedded stack cannot start or stop
"""

from __future__ import annotations

from collections.abc import Collection

from labelloop.remedies import known_remedy


class LabelloopError(Exception):
    """Base of all; the message says what was wrong and what to do."""


class SettingsError(LabelloopError):
    """The environment or a project's YAML is wrong."""


class LabelConfigError(LabelloopError):
    """The label config cannot be served."""


class ImageUnreadableError(LabelloopError):
    """One image cannot be had or decoded."""


class DecodersBusyError(LabelloopError):
    """Other large images took the decoders for too long: nothing is wrong with this one."""


class SourceAwayError(LabelloopError):
    """An image's server does not answer now."""


class StorageError(LabelloopError):
    """Object storage refused or cannot be reached."""


class NotFoundError(StorageError):
    """No object under that key."""


class AlreadyExistsError(StorageError):
    """A conditional write found an older object."""


class CorruptArtefactError(LabelloopError):
    """Bytes do not have the recorded hash, or do not give the recorded outputs."""


class CorruptObjectError(CorruptArtefactError, ValueError):
    """One kept object cannot be read. ``key``: its name in the store; ``reason``: why, in words."""

    def __init__(self, key: str, reason: str) -> None:
        remedy = known_remedy(key)
        super().__init__(f"{key} cannot be read: {reason}" + (f"; {remedy}" if remedy else ""))
        self.key, self.reason = key, reason


class LostRowsError(CorruptObjectError):
    """A shard of features is damaged or gone. ``uris``: whose rows it held."""

    def __init__(self, key: str, reason: str, uris: Collection[str]) -> None:
        super().__init__(key, reason)
        self.uris = uris


class FormatError(LabelloopError):
    """Kept data was written by a newer release: this process must be upgraded to read it."""


class ConflictError(LabelloopError):
    """The champion changed between decision and deploy."""


class PausedError(LabelloopError):
    """A person has paused the project's learning."""


class CancelledError(LabelloopError):
    """A person has cancelled the job that this process runs."""


class SupersededError(LabelloopError):
    """A run was given up while it was under way, or its wish has an answer."""


class LeaseLostError(LabelloopError):
    """Somebody else holds the lease, or it ran out."""


class QueueError(LabelloopError):
    """Redis refused or cannot be reached."""


class StudioError(LabelloopError):
    """Label Studio refused or cannot be reached."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class MissingExtraError(LabelloopError):
    """A library that only some need is not installed."""


class NotEnoughLabelsError(LabelloopError):
    """Nothing can be fitted yet."""


class StackError(LabelloopError):
    """The embedded stack cannot start or stop."""
