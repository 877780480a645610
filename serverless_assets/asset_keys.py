"""Keys of assets in Dagster, with SERVERLESS_KEY_PREFIX, and the names by which everything else knows assets.

A key is the name of its asset after SERVERLESS_KEY_PREFIX. The prefix is the same for all of a process, as it
is for Dagster, which loads a code location into a process of its own: `environment` sets it.
"""

from collections.abc import Collection, Iterable
from typing import TypeVar

import dagster as dg

from serverless_assets.dagster_internals import replace_keys

# The metadata of an asset that another code location writes: its key has no prefix if this is False.
KEY_PREFIX = "key_prefix"

# What a file of the defs folder declares: an asset, a specification of one, or checks.
Declared = TypeVar("Declared", bound=object)

_prefix: tuple[str, ...] = ()


def set_key_prefix(prefix: str) -> None:
    """Have the keys of this process begin with the parts of a prefix such as `shop` or `acme/shop`."""
    global _prefix
    _prefix = tuple(filter(None, prefix.split("/")))


def asset_key(name: str) -> dg.AssetKey:
    """Return the key of the asset of this name; a name with slashes is a key of several parts."""
    return dg.AssetKey([*_prefix, *name.split("/")])


def asset_name(key: dg.AssetKey) -> str:
    """Return the name of the asset that has this key."""
    return "/".join(key.path[len(_prefix) :] if _has_prefix(key) else key.path)


def _has_prefix(key: dg.AssetKey) -> bool:
    return len(key.path) > len(_prefix) and tuple(key.path[: len(_prefix)]) == _prefix


def keys_of_others(declared: Iterable[object]) -> Collection[dg.AssetKey]:
    """Return the keys of assets that are declared as those of another code location."""
    return {
        asset.key
        for asset in declared
        if isinstance(asset, dg.AssetSpec) and asset.metadata.get(KEY_PREFIX) is False
    }


def with_key_prefix(declared: Iterable[Declared], of_others: Collection[dg.AssetKey]) -> list[Declared]:
    """Return what the defs folder declares, forecasts included, with the prefix before its keys and those of
    what it reads.

    Keys `of_others` stay as they are, and so do keys that begin with the prefix.
    """
    declared = list(declared)

    def key_with_prefix(key: dg.AssetKey) -> dg.AssetKey:
        return key if key in of_others or _has_prefix(key) else asset_key("/".join(key.path))

    return [replace_keys(asset, key_with_prefix) for asset in declared] if _prefix else declared
