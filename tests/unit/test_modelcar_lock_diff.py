"""From one lock to another: what a reviewer is told, and what it costs to send."""

from __future__ import annotations

import dataclasses

from modelcar import lock_diff
from modelcar.layer_format import layer_size
from modelcar.lock import FolderSource, HubSource, Lock, LockedFile, LockedLayer


def small_lock() -> Lock:
    digest = "sha256:" + "e" * 64
    files = (LockedFile("a.json", 700, "a" * 64), LockedFile("b.safetensors", 2 * 10**7, "b" * 64))
    layers = (
        LockedLayer(digest, layer_size([("b.safetensors", 2 * 10**7)]), digest, ("b.safetensors",)),
        LockedLayer(digest, layer_size([("a.json", 700)]), digest, ("a.json",)),
    )
    return Lock("tiny", FolderSource("data/x"), "MIT", "none", files, layers)


def described(old: Lock, new: Lock) -> list[str]:
    return list(lock_diff.describe(lock_diff.diff(old, new)))


def test_diff_tells_what_changed_and_what_it_costs() -> None:
    old = small_lock()
    a, b = old.files
    new = dataclasses.replace(
        old,
        license="Apache-2.0",
        files=(dataclasses.replace(a, size=900, sha256="c" * 64), LockedFile("n.json", 5, "d" * 64), b),
        layers=(old.layers[0], dataclasses.replace(old.layers[1], digest="sha256:" + "9" * 64)),
    )
    found = lock_diff.diff(old, new)
    assert found
    assert list(lock_diff.describe(found)) == [
        "~ license: MIT → Apache-2.0",
        "+ n.json  5 B  dddddddddddd",
        "~ a.json  700 B → 900 B  aaaaaaaaaaaa → cccccccccccc",
        "to upload: 3.0 KiB of 19.1 MiB, where the registry has the old image",
    ]
    assert not lock_diff.diff(old, old)
    assert list(lock_diff.describe(lock_diff.diff(old, old))) == ["no difference"]
    assert "- n.json  5 B" in list(lock_diff.describe(lock_diff.diff(new, old)))


def test_another_source_or_compression_is_told() -> None:
    old = small_lock()
    hub = dataclasses.replace(old, source=HubSource("Qwen/Qwen2.5-0.5B", "0123456789abcdef" * 2 + "0" * 8))
    newer = dataclasses.replace(hub, source=HubSource("Qwen/Qwen2.5-0.5B", "f" * 40), compression="zstd")
    nothing = "to upload: 0 B of 19.1 MiB, where the registry has the old image"
    assert described(old, hub) == ["~ source: data/x → Qwen/Qwen2.5-0.5B@0123456789ab", nothing]
    assert described(hub, newer) == [
        "~ source: Qwen/Qwen2.5-0.5B@0123456789ab → Qwen/Qwen2.5-0.5B@ffffffffffff",
        "~ compression: none → zstd",
        nothing,
    ]


def test_the_same_size_with_another_content_is_a_change() -> None:
    old = small_lock()
    changed = dataclasses.replace(old.files[0], sha256="f" * 64)
    new = dataclasses.replace(old, files=(changed, old.files[1]))
    found = lock_diff.diff(old, new)
    assert found.changed == ((old.files[0], changed),)
    assert (found.added, found.removed) == ((), ())
    assert "~ a.json  700 B  aaaaaaaaaaaa → ffffffffffff" in described(old, new)


def test_layers_that_only_moved_are_not_sent_again() -> None:
    old = small_lock()
    new = dataclasses.replace(old, layers=tuple(reversed(old.layers)))
    found = lock_diff.diff(old, new)
    assert found, "the image is another one"
    assert found.upload == 0


def test_names_cannot_act_on_the_terminal() -> None:
    old = small_lock()
    new = dataclasses.replace(old, files=(*old.files, LockedFile("z\x1b[2J\n", 1, "c" * 64)))
    for lines in (described(old, new), described(new, old)):
        assert all(line.isprintable() for line in lines)
        assert any(r"z\x1b[2J\n" in line for line in lines)
