"""Keys of programs that use the REST API. The secret is not kept: only its hash is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key may do. None of them implies another."""

    READ = "read"  # models and status
    PREDICT = "predict"  # classify images
    OPERATE = "operate"  # ask for a retrain
    APPROVE = "approve"  # promote, reject, roll back


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, as it is kept. Times are those of `clock.now`; an empty one is no time."""

    id: str
    name: str
    sha256: str  # of the secret, which has 256 random bits: nobody can guess it, so no slow hash is needed
    scopes: tuple[Scope, ...]
    by: str  # who made it
    made: str
    project: str = ""  # its key; empty: all of them
    expires: str = ""
    revoked: str = ""
    per_minute: int = 600  # requests
    former: str = ""  # hash of the secret before the last rotation
    former_until: str = ""  # it counts until then

    @property
    def who(self) -> str:
        """Its name in logs of decisions."""
        return f"{self.name} (key {self.id})"
