"""Volumes made of API objects."""

from pathlib import Path

import pytest

from lab.kube import Json
from lab.node.environment import Reference
from lab.node.payload import (
    File,
    MissingObjectError,
    TokenRequest,
    payload,
    token_requests,
    volume_references,
    write_payload,
)

POD: Json = {"metadata": {"name": "p", "namespace": "n", "labels": {"app": "web"}}, "spec": {"containers": []}}
SETTINGS = Reference("ConfigMap", "settings")
OBJECTS = {SETTINGS: {"data": {"a": "1", "b": "2"}}}


def files(volume: Json, **tokens: str) -> dict[str, str]:
    by_request = {TokenRequest(None, 3607): token for token in tokens.values()}
    return {path: file.content.decode() for path, file in payload(volume, POD, OBJECTS, by_request, {}).items()}


def test_a_config_map_is_a_file_per_key_or_the_chosen_items() -> None:
    assert files({"configMap": {"name": "settings"}}) == {"a": "1", "b": "2"}
    chosen = {"configMap": {"name": "settings", "items": [{"key": "b", "path": "conf/b.txt"}]}}
    assert files(chosen) == {"conf/b.txt": "2"}


def test_modes_are_the_items_or_the_volumes() -> None:
    items = [{"key": "a", "path": "a"}, {"key": "b", "path": "b", "mode": 0o400}]
    volume = {"configMap": {"name": "settings", "defaultMode": 0o600, "items": items}}
    made = payload(volume, POD, OBJECTS, {}, {})
    assert (made["a"].mode, made["b"].mode) == (0o600, 0o400)


def test_a_missing_object_or_key_is_waited_for_unless_it_is_optional() -> None:
    absent = {"configMap": {"name": "absent"}}
    with pytest.raises(MissingObjectError, match='configmap "absent" not found'):
        payload(absent, POD, {Reference("ConfigMap", "absent"): None}, {}, {})
    key: Json = {"configMap": {"name": "settings", "items": [{"key": "z", "path": "z"}]}}
    with pytest.raises(MissingObjectError, match="non-existent configmap key: z"):
        files(key)
    key["configMap"]["optional"] = True
    assert files(key) == {}


def test_a_projected_volume_is_the_sum_of_its_sources() -> None:
    volume: Json = {"projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "settings", "items": [{"key": "a", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}}  # fmt: skip
    assert volume_references(volume) == {SETTINGS}
    assert token_requests(volume) == [TokenRequest(None, 3607)]
    assert files(volume, token="t0k3n") == {"token": "t0k3n", "ca.crt": "1", "namespace": "n"}


def read(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file() and ".." not in str(path.relative_to(directory))
    }


def test_written_files_change_all_at_once_and_old_ones_go(tmp_path: Path) -> None:
    place = tmp_path / "v"
    assert write_payload(place, {"a": File(b"1"), "b": File(b"2")})
    opened = (place / "..data").readlink()
    assert not write_payload(place, {"a": File(b"1"), "b": File(b"2")})
    assert (place / "..data").readlink() == opened

    assert write_payload(place, {"a": File(b"3"), "c": File(b"4", 0o600)})
    assert read(place) == {"a": "3", "c": "4"}
    assert (place / "a").is_symlink()
    assert (place / "c").stat().st_mode & 0o777 == 0o600


def test_an_empty_volume_is_a_directory(tmp_path: Path) -> None:
    write_payload(tmp_path / "v", {})
    assert read(tmp_path / "v") == {}
