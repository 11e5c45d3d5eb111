"""This file is about the fleet's own keys: made once, kept in a Secret, restored or replaced.

Secret is ours and whole      its keys count
gone, an operator knows them  it is made again with the same keys: nobody notices
gone, nobody knows them       new keys. Running pods have the old ones, so the new Secret says
                              that it replaces another one, which makes a new revision: the
                              fleet rolls
ours, a key is missing, or    left alone; the keys known before count on
  others than known before
ours, others than it was      nobody knows the ones before: these count, and since running pods have
  made with, none known         others, they make a new revision likewise
somebody else's               left alone, likewise
"""

import secrets
from base64 import b64decode
from binascii import Error as NotBase64
from dataclasses import dataclass, field

from epidote_operator.act.ownership import demand_ours
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import Conflict, KubeError
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.labels import KEYS, KEYS_DIGEST
from epidote_operator.resources.protection import internal_secret
from epidote_operator.resources.revision import digest

ADMIN_KEY, RAY_TOKEN = "admin-key", "ray-token"


class SpoiltSecret(KubeError):
    """The fleet's Secret is ours, and its keys are gone or others."""

    reason = "SecretChanged"


@dataclass(frozen=True, kw_only=True)
class FleetKeys:
    """What a fleet's parts know each other by. `generation`: "" for the first ones of a service,
    else a hash of the keys, which pods that have others are told apart by."""

    admin_key: str = field(repr=False)
    ray_token: str = field(repr=False)
    generation: str = ""


@dataclass(frozen=True, kw_only=True)
class KeysFound:
    """The keys that count, and what people should know of how they came about."""

    keys: FleetKeys
    event: str = ""


async def ensure_keys(
    api: KubeApi,
    fleet: Fleet,
    known: FleetKeys | None,
    *,
    has_fleet: bool,
    has_first_keys: bool = False,
) -> KeysFound:
    """The fleet's keys; a Secret is made if there is none.

    `known`: as this operator read them before. `has_fleet`: pods may run that have keys already.
    `has_first_keys`: those that serve are known to have the first ones.

    Raises:
        NameTaken: the Secret is somebody else's.
        SpoiltSecret: it lacks a key, or has others than are known.
    """
    path = paths.item("v1", "secrets", fleet.namespace, fleet.secret)
    found = await api.get(path)
    event = ""
    if found is None:
        keys = known or FleetKeys(
            admin_key=secrets.token_urlsafe(32), ray_token=secrets.token_hex()
        )
        if known is not None:
            event = f"Secret {fleet.secret} was gone; made again with the same keys"
        elif has_fleet:
            event = f"Secret {fleet.secret} was gone; made anew, and every pod is replaced"
        is_another = has_fleet if known is None else bool(known.generation)
        try:
            found = await api.create(
                paths.collection("v1", "secrets", fleet.namespace),
                _manifest(fleet, keys, is_another=is_another),
            )
        except Conflict:  # made a moment ago, by an operator that did not live to see it
            event, found = "", await api.request("GET", path)
    demand_ours(found, _manifest(fleet, known, is_another=False))
    keys, is_edited = _read(found)
    is_same_generation = known is not None and keys.generation == known.generation
    if known is not None and keys != known and (is_edited or is_same_generation):
        raise SpoiltSecret(
            f"Secret {fleet.secret!r} must keep the keys that the pods were made with, found "
            "others; delete the Secret, and the first ones are put back"
        )
    if known is None and is_edited and has_first_keys:
        event = f"Secret {fleet.secret} was changed while no operator ran; every pod is replaced"
    return KeysFound(keys=keys, event=event)


def _manifest(fleet: Fleet, keys: FleetKeys | None, *, is_another: bool) -> Manifest:
    body = internal_secret(
        fleet,
        admin_key=keys.admin_key if keys else "",
        ray_token=keys.ray_token if keys else "",
    )
    if keys is not None:
        body["metadata"]["annotations"] = {
            KEYS_DIGEST: _digest(keys.admin_key, keys.ray_token),
            **({KEYS: "replaced"} if is_another else {}),
        }
    return body


def _digest(admin_key: str, ray_token: str) -> str:
    """Nobody can tell the keys from it: they are as random as they are long."""
    return digest({ADMIN_KEY: admin_key, RAY_TOKEN: ray_token})


def _read(secret: Manifest) -> tuple[FleetKeys, bool]:
    """The keys, and whether they are others than the Secret was made with."""
    name, data = secret["metadata"]["name"], secret.get("data") or {}
    found: dict[str, str] = {}
    for key in (ADMIN_KEY, RAY_TOKEN):
        try:
            found[key] = b64decode(data.get(key) or "").decode()
        except (NotBase64, UnicodeDecodeError):
            found[key] = ""
        if not found[key]:
            raise SpoiltSecret(
                f"Secret {name!r} must hold {ADMIN_KEY} and {RAY_TOKEN}, found no {key}; delete "
                "the Secret, and it is made again"
            )
    notes = secret["metadata"].get("annotations") or {}
    now = _digest(found[ADMIN_KEY], found[RAY_TOKEN])
    is_edited = notes.get(KEYS_DIGEST, now) != now  # no note: made before there were any
    keys = FleetKeys(
        admin_key=found[ADMIN_KEY],
        ray_token=found[RAY_TOKEN],
        generation=now if is_edited or KEYS in notes else "",
    )
    return keys, is_edited
