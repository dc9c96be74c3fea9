"""The progress of a run: saved and restored completely, and changed in one place."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import srgan_cli
from srgan_cli.training.state import State
from srgan_cli.training_config import TrainConfig


def test_what_is_kept_is_what_comes_back() -> None:
    state = State(phase="adversarial", step=7, batches={"adversarial": 3}, scores={"model": {"psnr_y_db": 30.5}})
    assert State.restored({**state.values, "elapsed_s": 3.0, "begun_s": 1.0}) == state


def test_steps_and_phases_are_counted() -> None:
    state = State()
    for _ in range(3):
        state.advance()
    state.enter("adversarial", 12.5)
    state.advance()
    assert (state.phase, state.step, state.phase_step) == ("adversarial", 4, 1)
    assert (state.phase_began_step, state.phase_began_s) == (3, 12.5)


def test_each_return_halves_the_rate_and_is_counted() -> None:
    before = State(step=4, phase_step=4, phase_began_s=1.0, pictures="these")
    state = dataclasses.replace(before, step=9, phase_step=9, log_bytes=77)
    for rollbacks, rate in ((1, 0.5), (2, 0.25)):
        state.go_back(before)
        assert (state.step, state.phase_step, state.rollbacks, state.rate) == (4, 4, rollbacks, rate)
    assert state.log_bytes == 77


def test_a_run_is_finished_at_its_own_length_only() -> None:
    state = State()
    state.finish(TrainConfig(steps=100))
    assert state.is_finished(TrainConfig(steps=100))
    assert not state.is_finished(TrainConfig(steps=200))
    assert not state.is_finished(TrainConfig(steps=100, budget_s=100.0))


def test_other_pictures_are_noticed() -> None:
    state = State()
    assert state.take_pictures("these")
    assert state.take_pictures("these")
    assert not state.take_pictures("others")


def test_no_other_module_writes_to_it() -> None:
    """Assignments such as `state.step = 3` occur in its own module only."""
    training = Path(srgan_cli.__file__).parent / "training"
    written = [
        f"{path.name}:{target.lineno}"
        for path in sorted(training.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for target in _targets(node)
        if isinstance(target, ast.Attribute) and _is_a_state(target.value)
    ]
    assert written == []


def _targets(node: ast.AST) -> list[ast.expr]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    return [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]


def _is_a_state(value: ast.expr) -> bool:
    name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
    return name in ("state", "_state")
