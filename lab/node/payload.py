"""Volumes made of API objects (configMap, secret, downwardAPI, projected): which files they hold, and writing them."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.kube import Json
from lab.node.environment import (
    ConfigurationError,
    Objects,
    Reference,
    contents,
    field_value,
    resource_value,
)

_DEFAULT_MODE = 0o644
_DATA = "..data"


class MissingObjectError(Exception):
    """A volume needs an object, or a key of it, that is not there (yet)."""


@dataclass(frozen=True)
class TokenRequest:
    """A service account token that a volume wants."""

    audience: str | None
    expiration_seconds: int


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int = _DEFAULT_MODE


Payload = dict[str, File]
"""Files by their path within the volume."""


def is_payload(volume: Json) -> bool:
    """Whether the volume is made of API objects."""
    return any(kind in volume for kind in ("configMap", "secret", "downwardAPI", "projected"))


def volume_references(volume: Json) -> set[Reference]:
    """The ConfigMaps and Secrets that the volume is made of."""
    found: set[Reference] = set()
    for source in _sources(volume):
        if "configMap" in source:
            found.add(Reference("ConfigMap", source["configMap"]["name"]))
        elif "secret" in source:
            found.add(Reference("Secret", _secret_name(source["secret"])))
    return found


def token_requests(volume: Json) -> list[TokenRequest]:
    """The tokens that a projected volume wants."""
    return [_token_request(s["serviceAccountToken"]) for s in _sources(volume) if "serviceAccountToken" in s]


def payload(
    volume: Json, pod: Json, objects: Objects, tokens: Mapping[TokenRequest, str], allocatable: Mapping[str, str]
) -> Payload:
    """What the volume holds. Raises MissingObjectError, or ConfigurationError for what is not supported."""
    outer = next(volume[kind] for kind in ("configMap", "secret", "downwardAPI", "projected") if kind in volume)
    default_mode = outer.get("defaultMode", _DEFAULT_MODE)
    files: Payload = {}
    for source in _sources(volume):
        if "configMap" in source:
            ref = source["configMap"]
            files |= _object_files(Reference("ConfigMap", ref["name"]), ref, objects, default_mode)
        elif "secret" in source:
            ref = source["secret"]
            files |= _object_files(Reference("Secret", _secret_name(ref)), ref, objects, default_mode)
        elif "downwardAPI" in source:
            for item in source["downwardAPI"].get("items", ()):
                text = _downward(item, pod, allocatable)
                files[item["path"]] = File(text.encode(), item.get("mode", default_mode))
        elif "serviceAccountToken" in source:
            request = _token_request(source["serviceAccountToken"])
            files[source["serviceAccountToken"]["path"]] = File(tokens[request].encode(), default_mode)
        else:
            raise ConfigurationError(f"unsupported volume projection: {', '.join(source)}")
    return files


def write_payload(directory: Path, files: Payload) -> bool:
    """Makes `directory` hold exactly these files, all at once for whoever reads them. True if that changed anything.

    As kubelets do it: the names are links into ..data, which is a link that is swapped.
    """
    directory.mkdir(parents=True, exist_ok=True)
    current = directory / _DATA
    if current.is_symlink() and _holds(current, files):
        return False
    fresh = directory / f"..{time.time_ns()}"
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    fresh.mkdir(exist_ok=True)
    old = current.resolve() if current.is_symlink() else None
    swap = directory / "..data_new"
    swap.unlink(missing_ok=True)
    swap.symlink_to(fresh.name)
    swap.replace(current)
    names = {path.split("/", 1)[0] for path in files}
    for name in names:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
    for entry in os.scandir(directory):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            Path(entry.path).unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def _sources(volume: Json) -> Iterator[Json]:
    """The volume's projections: itself, unless it is a projected volume."""
    if "projected" in volume:
        yield from volume["projected"].get("sources", ())
    else:
        yield {kind: volume[kind] for kind in ("configMap", "secret", "downwardAPI") if kind in volume}


def _secret_name(source: Json) -> str:
    """A secret volume names its secret otherwise than a projection does."""
    name: str = source.get("secretName") or source["name"]
    return name


def _token_request(source: Json) -> TokenRequest:
    return TokenRequest(source.get("audience") or None, source.get("expirationSeconds", 3600))


def _object_files(reference: Reference, source: Json, objects: Objects, default_mode: int) -> Payload:
    optional = source.get("optional", False)
    found = objects.get(reference)
    if found is None:
        if optional:
            return {}
        raise MissingObjectError(f'{reference.kind.lower()} "{reference.name}" not found')
    data = contents(reference, found)
    if "items" not in source:
        return {key: File(value, default_mode) for key, value in data.items()}
    files: Payload = {}
    for item in source["items"]:
        if item["key"] in data:
            files[item["path"]] = File(data[item["key"]], item.get("mode", default_mode))
        elif not optional:
            raise MissingObjectError(f"references non-existent {reference.kind.lower()} key: {item['key']}")
    return files


def _downward(item: Json, pod: Json, allocatable: Mapping[str, str]) -> str:
    if "fieldRef" in item:
        return field_value(pod, item["fieldRef"]["fieldPath"])
    selector = item["resourceFieldRef"]
    container = next((c for c in pod["spec"]["containers"] if c["name"] == selector.get("containerName")), None)
    if container is None:
        raise ConfigurationError(f"no container {selector.get('containerName')!r} for resourceFieldRef")
    return resource_value(container, selector, allocatable)


def _holds(current: Path, files: Payload) -> bool:
    there = {str(path.relative_to(current.resolve())): path for path in current.resolve().rglob("*") if path.is_file()}
    if there.keys() != files.keys():
        return False
    return all(there[path].read_bytes() == file.content for path, file in files.items())
