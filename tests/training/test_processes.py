"""Several processes that agree, without torchrun."""

from __future__ import annotations

import multiprocessing
import socket
from typing import Any

import pytest

from srgan_cli.errors import SettingsError, TrainingError
from srgan_cli.training import processes
from srgan_cli.training.processes import Processes


def _member(rank: int, port: int, answers: Any) -> None:
    import os

    import torch

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    torch.set_num_threads(1)
    group = Processes(rank, 2, rank)

    def refuse() -> None:
        raise SettingsError("these settings are not valid")

    def fail() -> None:
        raise LookupError("a defect")

    with processes.joined(group, torch.device("cpu")):
        found: list[object] = [processes.first_says([0.25 + rank, float(rank)], group)]
        found.append((processes.anyone(rank == 1, group), processes.anyone(False, group)))
        found.append(processes.least(7 + 2 * rank, group))
        found.append(processes.first_does(lambda: f"by {rank}", group))
        found.append((processes.part_of(8), processes.part_of(1)))
        try:
            processes.first_does(refuse, group)
        except SettingsError as err:
            found.append(str(err))
        try:
            processes.first_does(fail, group)
        except (LookupError, TrainingError) as err:
            found.append(f"{type(err).__name__}: {err}")
        found.append(processes.first_does(lambda: "on", group))  # they still understand each other
    answers.put((rank, found))


@pytest.mark.slow
def test_two_processes_agree() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    members = [context.Process(target=_member, args=(rank, port, answers)) for rank in (0, 1)]
    for member in members:
        member.start()
    found = dict(answers.get(timeout=60) for _ in members)
    for member in members:
        member.join(30)
    expected = [[0.25, 0.0], (True, False), 7, "by 0", (4, 1), "these settings are not valid"]
    ours, theirs = "LookupError: a defect", "TrainingError: the first process has ended with LookupError: a defect"
    assert found == {0: [*expected, ours, "on"], 1: [*expected, theirs, "on"]}


def test_one_process_agrees_with_itself() -> None:
    alone = Processes()
    assert processes.first_says([0.5, 1.0], alone) == [0.5, 1.0]
    assert processes.anyone(True, alone)
    assert not processes.anyone(False, alone)
    assert (processes.least(3, alone), processes.first_does(lambda: 4, alone), processes.part_of(5)) == (3, 4, 5)


def test_numbers_of_processes_must_be_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from srgan_cli.errors import DeviceError

    monkeypatch.setenv("RANK", "first")
    with pytest.raises(DeviceError, match="not a number"):
        processes.from_environment()


@pytest.mark.parametrize(("said", "count"), [("4", 4), ("0", 1), ("", 1), ("many", 1)])
def test_processes_of_this_machine_are_counted_as_far_as_they_are_told(
    monkeypatch: pytest.MonkeyPatch, said: str, count: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", said)
    assert processes.on_this_machine() == count
