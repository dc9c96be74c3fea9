"""When a file is complete; which folders are on network drives."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.upscaling.settling import Events, FileStamp, Settling, network_drive, see

A, B = Path("a.png"), Path("b.png")


def stamp(size: int, written: float) -> FileStamp:
    return FileStamp(size, round(written * 1e9), 1)


def test_a_file_that_grows_is_not_complete() -> None:
    settling = Settling(2.0, trusts_times=True)
    for second in range(10):
        assert settling.update({A: stamp(second * 100, 1000.0 + second)}, now=1000.0 + second) == []
    grown = {A: stamp(900, 1009.0)}
    assert settling.update(grown, now=1010.5) == []
    assert settling.update(grown, now=1011.0) == [A]
    assert settling.update(grown, now=1012.0) == [A], "until it has been dealt with"
    settling.done_with(A, grown[A])
    assert settling.update(grown, now=1013.0) == []


def test_a_file_whose_time_changes_is_not_complete() -> None:
    settling = Settling(2.0, trusts_times=False)
    assert settling.update({A: stamp(5, 0.0)}, now=100.0) == []
    assert settling.update({A: stamp(5, 1.0)}, now=102.0) == []
    assert settling.update({A: stamp(5, 1.0)}, now=103.9) == []
    assert settling.update({A: stamp(5, 1.0)}, now=104.0) == [A]


@pytest.mark.parametrize(("trusts", "size", "expected"), [(True, 5, [A]), (True, 0, []), (False, 5, [])])
def test_what_was_renamed_in_is_complete_at_once_where_clocks_agree(
    trusts: bool, size: int, expected: list[Path]
) -> None:
    assert Settling(2.0, trusts_times=trusts).update({A: stamp(size, 90.0)}, now=100.0) == expected


def test_what_changes_later_comes_again_and_what_goes_is_forgotten() -> None:
    settling = Settling(2.0, trusts_times=True)
    settling.done_with(A, stamp(5, 0.0))
    assert settling.update({A: stamp(6, 100.0), B: stamp(1, 0.0)}, now=100.0) == [B]
    assert settling.update({A: stamp(6, 100.0)}, now=102.0) == [A]
    settling.done_with(A, stamp(6, 100.0))
    assert settling.update({}, now=103.0) == []
    assert settling.dealt_with == {}
    assert settling.seconds_left() is None


def test_what_goes_while_it_is_looked_at(tmp_path: Path) -> None:
    here = tmp_path / "here.png"
    here.write_bytes(b"123")
    assert list(see([here, tmp_path / "gone.png"])) == [here]
    assert see([here])[here].size == 3


def test_network_drives_by_their_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    folder = tmp_path / "my share" / "in"
    folder.mkdir(parents=True)
    point = str(tmp_path / "my share").replace(" ", "\\040")
    root = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    for kind, expected in (("nfs4", "nfs4"), ("cifs", "cifs"), ("ext4", None)):
        mounts.write_text(f"{root}90 22 0:50 / {point} rw shared:3 - {kind} host:/x rw\nnonsense\n")
        assert network_drive(folder, mounts) == expected
        assert network_drive(tmp_path, mounts) is None
    assert network_drive(folder, tmp_path / "no such file") is None


def test_events_about_results_are_no_news_but_those_in_a_folder_of_a_similar_name_are(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    events = Events(tmp_path, tmp_path / "large", recursive=True)
    events.close()
    names = {"a.png": True, "large/a.png": False, "large2/a.png": True, "large.png": True, ".hidden": False}
    assert {name: events._is_news(None, str(tmp_path / name)) for name in names} == names
