"""The states of results in a folder's record: started, done, or revoked."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.upscaling.ledger import TO_BE_MADE_AGAIN, Ledger, identity
from srgan_cli.upscaling.record_storage import part_for


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    return path


def states(target: Path, *ledgers: Ledger) -> list[str]:
    """As those that have written it see it, and as one that reads it now."""
    return [ledger.state(target, "s", "k") for ledger in (*ledgers, Ledger.load(target.parent))]


def test_what_is_begun_is_not_done(target: Path) -> None:
    ledger = Ledger.load(target.parent)
    assert states(target, ledger) == ["unknown"] * 2
    ledger.begin(target, "s", "k")
    assert states(target, ledger) == ["unknown"] * 2, "there was nothing under its name"
    ledger.begin(target, "s", "k", was=identity(target))
    assert states(target, ledger) == ["stale"] * 2
    ledger.finish(target, "s", "k")
    assert states(target, ledger) == ["done"] * 2
    target.write_bytes(b"another")
    assert states(target, ledger) == ["changed"] * 2


def test_what_is_left_damaged_is_ours_and_not_done(target: Path) -> None:
    ledger = Ledger.load(target.parent)
    ledger.finish(target, "s", TO_BE_MADE_AGAIN)
    assert states(target, ledger) == ["stale"] * 2
    assert Ledger.load(target.parent).is_to_be_made_again(target, identity(target))
    ledger.finish(target, "s", "k")
    assert not Ledger.load(target.parent).is_to_be_made_again(target, identity(target))


def test_what_came_to_nothing_leaves_the_name_to_others(target: Path) -> None:
    ledger, other = Ledger.load(target.parent), Ledger.load(target.parent)
    ledger.begin(target, "s", "k")
    ledger.withdraw(target)
    other.refresh()
    assert states(target, ledger, other) == ["unknown"] * 3
    ledger.withdraw(target)
    assert len(ledger.path.read_text().splitlines()) == 4, "once: a line ends what was cut short before it"
    ledger.begin(target, "s", "k", was=identity(target))
    assert states(target, ledger) == ["stale"] * 2


def test_what_is_done_stays_so_whatever_is_begun_later(target: Path) -> None:
    """By a process that stood still, say, whose lines are gathered after those of the one that took over."""
    first, second = Ledger.load(target.parent), Ledger.load(target.parent)
    second.write_to(part := part_for("0123456789abcdef"))
    second.begin(target, "s", "k")
    first.begin(target, "s", "k")
    first.finish(target, "s", "k")
    first.gather(part)
    assert states(target, first) == ["done"] * 2
    first.begin(target, "s", "k")
    first.withdraw(target)
    assert states(target, first) == ["done"] * 2
    first.begin(target, "s", "k")
    target.write_bytes(b"a later file without a record")
    assert states(target, first) == ["changed"] * 2
