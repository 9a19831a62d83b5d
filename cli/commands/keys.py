"""`keys`: who may use the REST API, and for what."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.terminal.app import DEFAULT_STATE, AsJson, StateDir, agree, command, err, group, names, out
from cli.terminal.screen import show_json
from cli.terminal.values import MOST
from labelloop.records.api_keys import ApiKey, Scope
from operations.people import me

if TYPE_CHECKING:
    from labelloop.store.api_keys import ApiKeyStore, NewKey

keys = group("keys", "Keys of the REST API: add, list, rotate, revoke.")
KeyId = Annotated[str, typer.Argument(metavar="ID", help="A key's id from `labelloop keys list`.")]
HIDDEN = ("sha256", "former")
COUNTS = "it counts within 2 seconds"


def scopes_of(text: str) -> tuple[Scope, ...]:
    """Scopes that are separated by commas."""
    words = names(text)
    unknown = [word for word in words if word not in set(Scope)]
    if unknown or not words:
        raise typer.BadParameter(f"{text!r}: name scopes out of {', '.join(Scope)}, separated by commas")
    return tuple(Scope(word) for word in words)


def add(  # noqa: PLR0913 -- a command's options are its interface
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who or what will use it, e.g. `camera 7`.")],
    scopes: Annotated[
        str, typer.Option(help="read (models, status), predict (classify), operate (retrain), approve (promote, "
                               "reject, rollback); separated by commas.")
    ] = "read,predict",
    project: Annotated[
        str | None, typer.Option("--project", help="The only project it is for. Default: all of them.")
    ] = None,
    days: Annotated[int, typer.Option(min=0, max=36_500, help="Days until it expires. 0: never.")] = 365,
    per_minute: Annotated[int, typer.Option(min=1, max=MOST, help="Requests a minute, at most.")] = 600,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:  # fmt: skip
    """Make a key and show it. Only its hash is kept: it cannot be shown again."""
    wanted = scopes_of(scopes)
    deployment, store = _open(state_dir)
    key = deployment.project(project).key if project else ""
    new = store.add(name, wanted, by=me(), project=key, days=days, per_minute=per_minute)
    _show_once(new, as_json=as_json)
    if deployment.settings.api_url and not as_json:
        err.print(f"try it: curl {deployment.settings.api_url}/v1/projects -H 'Authorization: Bearer KEY'; "
                  f"more: {deployment.settings.api_url}/docs", highlight=False, soft_wrap=True)  # fmt: skip


def list_keys(as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """List the keys with what each may do. Secrets are not kept."""
    _, store = _open(state_dir)
    records = store.all()
    if as_json:
        show_json([_public(record) for record in records])
        return
    table = Table("id", "name", "scopes", "project", "a minute", "made", "by", "expires", "state", box=None)
    for record in records:
        table.add_row(record.id, record.name, ", ".join(record.scopes), record.project or "all",
                      str(record.per_minute), record.made[:10], record.by, record.expires[:10] or "never",
                      _state(record))  # fmt: skip
    out.print(table if records else "no key yet; `labelloop keys add NAME` makes one")
    for damaged in store.damage.all():
        err.print(f"{damaged.key} cannot be read: {damaged.reason}; {damaged.remedy}", highlight=False, markup=False)


def rotate(
    key_id: KeyId,
    keep: Annotated[
        float, typer.Option(min=0, max=8760, help="Hours for which the former secret still counts.")
    ] = 24.0,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Give a key another secret and show it. The former one counts for a day more."""
    _, store = _open(state_dir)
    _show_once(store.rotate(key_id, keep_hours=keep), as_json=as_json)


def revoke(key_id: KeyId, as_json: AsJson = False, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Revoke a key for good. It stays listed."""
    _, store = _open(state_dir)
    record = store.revoke(key_id)
    if as_json:
        show_json(_public(record))
        return
    out.print(f"key {record.id} ({record.name}) is revoked; {COUNTS}", highlight=False, markup=False)


def remove(
    key_id: KeyId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Delete a key and its record, also one that cannot be read."""
    _, store = _open(state_dir)
    if not yes:
        agree(f"Nothing will tell of key {key_id} any more", "give --yes")
    store.remove(key_id)
    out.print(f"key {key_id} is removed; {COUNTS}", highlight=False, markup=False)


def _open(state_dir: Any) -> tuple[Any, ApiKeyStore]:
    from cli.connect import open_deployment
    from labelloop.store.api_keys import ApiKeyStore

    deployment = open_deployment(state_dir)
    return deployment, ApiKeyStore(deployment.store)


def _show_once(new: NewKey, *, as_json: bool) -> None:
    if as_json:
        show_json({**_public(new.record), "key": new.whole})
        return
    record = new.record
    out.print(new.whole, highlight=False, soft_wrap=True)
    where = f"project {record.project}" if record.project else "all projects"
    until = f", until {record.expires[:10]}" if record.expires else ""
    former = f"; the former one counts until {record.former_until[:16]}" if record.former_until else ""
    err.print(f"key {record.id} ({record.name}): {', '.join(record.scopes)} of {where}{until}{former}. "
              f"Keep it now, it is not shown again; {COUNTS}", highlight=False, markup=False)  # fmt: skip


def _public(record: ApiKey) -> dict[str, Any]:
    return {**{k: v for k, v in asdict(record).items() if k not in HIDDEN}, "state": _state(record)}


def _state(record: ApiKey) -> str:
    from labelloop.rules.api_keys import state

    return state(record, datetime.now(UTC))


command(add, to=keys)
command(list_keys, to=keys, name="list")
command(rotate, to=keys)
command(revoke, to=keys)
command(remove, to=keys)
