"""Claims on pictures: one holder at a time, renewed, taken over after a crash; and the records of several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.upscaling import claims
from srgan_cli.upscaling.claims import Claims
from srgan_cli.upscaling.ledger import Ledger
from srgan_cli.upscaling.record_storage import FILE_NAME, part_for, parts_of


@pytest.fixture(params=["links", "no links"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no links":

        def refuse(*_arguments: object, **_options: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


def dead(folder: Path, name: str) -> None:
    """A claim that a process of this machine has left when it was killed."""
    code = (
        "import os, sys; from pathlib import Path; from srgan_cli.upscaling.claims import Claims\n"
        "assert Claims(Path(sys.argv[1])).take(sys.argv[2]); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder), name], timeout=60).returncode == 9


def elsewhere(folder: Path) -> None:
    """Make all claims in a folder look like another machine's."""
    for path in folder.glob(".srgan-claim.*"):
        says = json.loads(path.read_bytes())
        path.write_text(json.dumps({**says, "machine": "another"}), encoding="utf-8")


def test_one_holds_it_and_the_next_gets_it_afterwards(tmp_path: Path, kind: str) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("a.png")
    assert not other.take("a.png")
    assert not one.take("a.png"), "a claim is for one worker of a process, too"
    assert other.take("sub/b.png")
    assert (one.holds("a.png"), other.holds("a.png")) == (True, False)
    one.release("a.png")
    assert other.take("a.png")
    one.close()
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_gets_it(tmp_path: Path, kind: str) -> None:
    crowd = [Claims(tmp_path) for _ in range(8)]
    for number in range(20):
        got: list[Claims] = []
        start = threading.Barrier(len(crowd))

        def race(one: Claims, name: str = f"{number}", got: list[Claims] = got, start: Any = start) -> None:
            start.wait()
            if one.take(name):
                got.append(one)

        threads = [threading.Thread(target=race, args=(one,)) for one in crowd]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1


def test_of_many_at_once_one_takes_over_from_the_dead(tmp_path: Path) -> None:
    dead(tmp_path, "a.png")
    crowd = [Claims(tmp_path) for _ in range(8)]
    assert sum(one.take("a.png") for one in crowd) == 1
    for one in crowd:
        one.close()
    crowd[0].sweep()


def test_a_claim_of_another_machine_expires_unless_it_is_renewed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.2)
    dead(tmp_path, "a.png")
    elsewhere(tmp_path)
    late = Claims(tmp_path)
    assert not late.take("a.png"), "it has just been seen for the first time"
    time.sleep(0.1)
    assert not late.take("a.png")
    time.sleep(0.15)
    assert late.take("a.png")
    assert late.holds("a.png")
    late.close()


def test_one_that_is_renewed_does_not(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.2)
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("a.png")
    for _ in range(8):
        assert not other.take("a.png")
        time.sleep(0.05)
        one.renew()
    assert one.holds("a.png")


def test_a_stopped_process_knows_that_its_claim_was_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.05)
    one, other, third = Claims(tmp_path), Claims(tmp_path), Claims(tmp_path)
    assert one.take("a.png")
    assert not other.take("a.png")
    time.sleep(0.1)
    assert other.take("a.png")
    assert (one.holds("a.png"), other.holds("a.png")) == (False, True)
    one.release("a.png")
    assert other.holds("a.png")
    assert not third.take("a.png")
    other.release("a.png")
    assert third.take("a.png")


def test_claims_untouched_for_long_expire_sooner(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "UNCHANGED_SECONDS", 0.1)
    dead(tmp_path, "a.png")
    elsewhere(tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (1e9, 1e9))
    one = Claims(tmp_path)
    one.sweep()
    assert not one.take("a.png")
    time.sleep(0.15)
    assert one.take("a.png")
    one.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hours", [-1, pytest.param(1, marks=pytest.mark.slow)])
def test_a_clock_that_is_wrong_by_an_hour_takes_nothing_from_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Some file systems date a file by the clock of the machine that touches it."""
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.4)
    monkeypatch.setattr(claims, "UNCHANGED_SECONDS", 0.2)
    one = Claims(tmp_path)
    assert one.take("a.png")

    def renew() -> None:
        wrong = time.time() + hours * 3600
        for path in tmp_path.iterdir():
            os.utime(path, (wrong, wrong))

    renew()
    elsewhere(tmp_path)
    renew()
    other = Claims(tmp_path)
    for _ in range(10):
        other.sweep()
        assert not other.take("a.png")
        time.sleep(0.05)
        renew()
    assert one.holds("a.png")
    assert not other.take("a.png")
    time.sleep(0.45)
    assert other.take("a.png"), "it is not renewed any more"


def test_what_the_dead_left_is_swept_away_and_what_the_living_hold_is_not(tmp_path: Path, kind: str) -> None:
    dead(tmp_path, "a.png")
    living, one = Claims(tmp_path), Claims(tmp_path)
    assert living.take("b.png")
    one.sweep()
    assert living.holds("b.png")
    one.close()
    living.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("says", [b"", b"[]", b"\xff", b'{"machine": 1}'])
def test_a_claim_that_makes_no_sense_expires_like_any(
    tmp_path: Path, says: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.05)
    one = Claims(tmp_path)
    one._path("a.png", 1).write_bytes(says)
    assert not one.take("a.png")
    time.sleep(0.1)
    assert one.take("a.png")


@pytest.mark.parametrize("what", ["link", "loop", "folder"])
def test_what_is_no_file_makes_way(tmp_path: Path, what: str) -> None:
    one = Claims(tmp_path)
    path = one._path("a.png", 1)
    if what in ("link", "loop"):
        path.symlink_to("nowhere" if what == "link" else path)
    else:
        path.mkdir()
    assert not one.take("a.png")
    assert one.take("a.png")


def test_a_folder_with_something_in_it_is_passed_over(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    (one._path("a.png", 1) / "inside").mkdir(parents=True)
    assert one.take("a.png")
    assert not other.take("a.png")
    assert one.holds("a.png")
    one.release("a.png")
    assert other.take("a.png")
    one.close()
    other.close()
    assert [path.name for path in tmp_path.rglob("*")] == [one._path("a.png", 1).name, "inside"]


def test_the_lines_of_a_further_process_count_and_are_gathered(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"x")
    first, second = Ledger.load(tmp_path), Ledger.load(tmp_path)
    second.write_to(part_for("0123456789abcdef"))
    second.begin(target, "s", "k")
    assert not first.is_fresh(target)
    first.refresh()
    assert first.state(target, "s", "k") == "unknown"
    second.finish(target, "s", "k")
    assert first.state(target, "s", "k") == "unknown"
    first.refresh()
    assert first.state(target, "s", "k") == "done"
    assert first.is_fresh(target)
    assert Ledger.load(tmp_path).state(target, "s", "k") == "done"
    assert not Ledger.load(tmp_path).is_fresh(target)
    (part,) = parts_of(tmp_path)
    first.gather(part)
    assert parts_of(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE_NAME, "a.png"]
    assert Ledger.load(tmp_path).state(target, "s", "k") == "done"
