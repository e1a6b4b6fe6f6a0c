"""Free disk where folders are, or will be."""

from __future__ import annotations

from pathlib import Path

from local import room
from local.room import Need


def test_folders_that_are_not_there_yet_take_their_disk_together(tmp_path: Path) -> None:
    needs = [Need("A", tmp_path / "a" / "b", 2), Need("B", tmp_path, 3), Need("C", Path("/proc/c"), 5)]
    disk, other = room.disks(needs)
    assert (disk.names, disk.wanted) == ("A, B", 5)
    assert (other.names, other.wanted) == ("C", 5)
    assert disk.free > 0


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    assert room.size_of(tmp_path / "none") == 0
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"x" * 2**16)
    assert 2**16 <= room.size_of(tmp_path) <= 2**18
