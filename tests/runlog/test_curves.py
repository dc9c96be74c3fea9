"""From a log to charts, with the phase of a wearer."""

from __future__ import annotations

from srgan_cli.runlog.curves import History, history, panels


def test_a_phase_in_which_only_the_wearer_learns_is_no_milestone_of_the_generator() -> None:
    def steps(*phases: str) -> History:
        return history([{"event": "step", "phase": name, "step": i + 1} for i, name in enumerate(phases)])

    assert steps("wear", "wear", "adversarial").border is None
    assert steps("wear", "fidelity", "fidelity", "adversarial").border == 3
    assert steps("fidelity", "adversarial").border == 1


def test_a_learned_wear_has_charts_of_its_own() -> None:
    wear = {"real_noise": 2.0, "made_noise": 1.0, "real_blur_across_px": 1.5, "made_blur_across_px": 1.0}
    found = panels(history([{"event": "validation", "phase": "wear", "step": i, "wear": wear} for i in range(3)]))
    assert [chart.title for chart in found] == ["Blur of worn pictures", "Noise of worn pictures"]
    assert [one.points[0][1] for one in found[0].series] == [1.5, 1.0]
