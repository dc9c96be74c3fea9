"""A training run that watches itself: what commonly goes wrong with such networks, found early and said in plain words.

Two kinds of numbers come in: those of a step (losses, the size of the gradients, how the discriminator does) and those
of a validation, which `picture_numbers` makes. Out come findings. Nothing here knows of networks
or changes anything; whoever trains decides what a finding leads to.

Each condition is watched by an alarm that goes off once: when something that has been good is bad for a while. It must
be good again before the alarm can go off again. So nothing is said twice, and nothing of a network that has only begun.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srgan_cli import stored
from srgan_cli.errors import WeightsError
from srgan_cli.training.picture_numbers import ValidationNumbers
from srgan_cli.training.wear_numbers import WearNumbers
from srgan_cli.training_config import Objective, Phase

# Of the medians that a gradient's size is compared with. Ten times is an ordinary bad batch.
_EXPLODED, _CALM, _VANISHED = 100.0, 10.0, 1e-4
_MAX_NORMS = 200
_MIN_NORMS = 10
# A discriminator's loss when it can only guess, as means over verdicts of the real and of the fake, added up: 2 ln 2
# where the loss is a cross-entropy (Goodfellow et al. 2014, section 4.1), 2 for hinge, ½ · ¼ + ½ · ¼ for least squares.
_GUESSING: Mapping[Objective, float] = {
    "nonsaturating": 2 * math.log(2),
    "relativistic": 2 * math.log(2),
    "hinge": 2.0,
    "least-squares": 0.25,
}
_WON_ACCURACY, _WON_LOSS = 0.98, 0.1  # the loss as a fraction of guessing's
_WEAR_WON_ACCURACY = 0.85
_LITTLE_VARIATION = 0.1  # of the real pictures' noise: what the wearer makes differs by no more from seed to seed
_LOST_ACCURACY, _ABLE_ACCURACY = 0.51, 0.6
_IGNORED_LEVELS = 0.1  # between results from two seeds: less is lost when they are rounded
_PATTERN_DB, _PATTERN_RISE_DB = 2.5, 2.0  # above what photographs and good models have; and above the least so far


@dataclass(frozen=True)
class Finding:
    """Something to report. `kind` is one word for programs; `roll_back`: go back to the last good checkpoint."""

    kind: str
    sentence: str
    roll_back: bool = False


@dataclass(frozen=True)
class DiscriminatorNumbers:
    """`loss`: of real and fake added up, without penalties. `accuracy`: the fraction of right verdicts, 0 … 1.

    `gradient_norm`: of all its gradients together, before they are clipped.
    """

    loss: float
    accuracy: float
    gradient_norm: float = 0.0


class _Alarm:
    """Goes off once, when what was good has been bad `times` times and over `steps` steps in a row."""

    def __init__(self, times: int = 1, steps: int = 0, *, armed: bool = False) -> None:
        self._times, self._steps = times, steps
        self.armed, self.count, self.since = armed, 0, 0

    def see(self, step: int, *, good: bool, bad: bool) -> bool:
        if not bad:
            self.armed, self.count = self.armed or good, 0
            return False
        self.since = self.since if self.count else step
        self.count += 1
        off = self.armed and self.count >= self._times and step - self.since >= self._steps
        self.armed = self.armed and not off
        return off


class Monitor:
    """Watches one run.

    `patience`: how many observations in a row may be NaN or infinite before the run goes back; 1 except where a
    gradient scaler leaves out such steps by itself; and they must last for `patience_steps` steps.
    `window_steps`: how long a discriminator must have won, or noise been ignored, to be reported. `gap_db`: below
    bicubic enlargement by as much, a student is only like its teacher.

    Call `begin` when a phase begins, `step` as often as losses are read, `validation` after each validation. After a
    rollback, give `restore` the state from the checkpoint, so that the alarms are set again.
    """

    def __init__(
        self,
        objective: Objective = "relativistic",
        *,
        patience: int = 1,
        patience_steps: int = 0,
        window_steps: int = 200,
        gap_db: float = 0.0,
    ) -> None:
        self._guessing, self._gap_db = _GUESSING[objective], gap_db
        self._patience, self._patience_steps = patience, patience_steps
        self._not_finite = self._not_finite_since = 0
        self._norms: list[float] = []
        self._first_norm: float | None = None  # the median of the phase's first ones
        self._phase: Phase | None = None
        self._latest_detail = math.nan
        self._enough_detail = math.nan  # what the adversarial phase is held to
        self._least_pattern_db = math.inf
        self._alarms = {
            "exploding": _Alarm(times=3),
            "vanishing": _Alarm(times=5, steps=window_steps),
            "discriminator-won": _Alarm(times=5, steps=window_steps, armed=True),  # it may win at once
            "discriminator-lost": _Alarm(times=5, steps=5 * window_steps),
            "below-bicubic": _Alarm(),
            "far-below-bicubic": _Alarm(times=2),
            "no-detail": _Alarm(),
            "no-diversity": _Alarm(),
            "colours": _Alarm(),
            "inconsistent": _Alarm(),
            "grid": _Alarm(times=2),
            "pattern": _Alarm(times=2, armed=True),
            "noise-ignored": _Alarm(times=3, steps=window_steps, armed=True),  # it begins by ignoring it
            "wear-colours": _Alarm(armed=True),
            "wear-alike": _Alarm(times=2, armed=True),
            "wear-discriminator-won": _Alarm(times=3, armed=True),
            "wear-hidden": _Alarm(times=2, armed=True),
            "wear-returned": _Alarm(times=2, armed=True),
        }

    def begin(self, phase: Phase) -> None:
        """Another phase has other losses, and so gradients of another size. The same one again changes nothing."""
        if phase != self._phase:
            self._phase, self._enough_detail = phase, self._latest_detail
            self._norms, self._first_norm = [], None

    # ---------------------------------------------------------------------------------------------------------- a step

    def step(
        self,
        step: int,
        losses: Mapping[str, float],
        gradient_norm: float,
        discriminator: DiscriminatorNumbers | None = None,
    ) -> list[Finding]:
        """`losses` by name; `gradient_norm` of all the generator's gradients together, before it is clipped."""
        watched = dict(losses)
        if discriminator is not None:
            watched |= {"discriminator": discriminator.loss, "discriminator's gradient": discriminator.gradient_norm}
        strange = [name for name, value in watched.items() if not math.isfinite(value)]
        if strange or not math.isfinite(gradient_norm):
            return self._nonsense(step, strange)
        self._not_finite = 0
        findings = self._gradients(step, gradient_norm)
        # A discriminator of low pictures that can only guess is what the wearer is after; see `wear`.
        if discriminator is not None and self._phase != "wear":
            findings += self._discriminator(step, discriminator)
        return findings

    def _nonsense(self, step: int, strange: Sequence[str]) -> list[Finding]:
        self._not_finite_since = self._not_finite_since if self._not_finite else step
        self._not_finite += 1
        if self._not_finite < self._patience or step - self._not_finite_since < self._patience_steps:
            return []
        self._not_finite = 0
        what = f"The loss ({', '.join(strange)})" if strange else "The gradient"
        sentence = (
            f"{what} became NaN or infinite at step {step}: numbers grew beyond what the precision can hold. "
            "Going back to the last good checkpoint, with a lower learning rate."
        )
        return [Finding("not-finite", sentence, roll_back=True)]

    def _gradients(self, step: int, norm: float) -> list[Finding]:
        findings = []
        if self._first_norm is not None:
            usual = statistics.median(self._norms)
            exploded = norm > _EXPLODED * usual > 0
            if self._alarms["exploding"].see(step, good=norm < _CALM * usual, bad=exploded):
                sentence = (
                    f"The gradients are exploding: {norm:.3g}, where {usual:.3g} was usual, at step {step}. "
                    "Going back to the last good checkpoint, with a lower learning rate."
                )
                findings.append(Finding("exploding", sentence, roll_back=True))
            vanished = norm < _VANISHED * self._first_norm
            if self._alarms["vanishing"].see(step, good=True, bad=vanished):
                sentence = (
                    f"The gradients have all but vanished: {norm:.3g}, where {self._first_norm:.3g} was usual. "
                    "The network is not learning any more; is there anything in the pictures that it could learn?"
                )
                findings.append(Finding("vanishing", sentence))
            if exploded:
                return findings  # and do not let it become usual
        self._norms = [*self._norms[1 - _MAX_NORMS :], norm]
        if self._first_norm is None and len(self._norms) >= _MIN_NORMS:
            self._first_norm = statistics.median(self._norms)
        return findings

    def _discriminator(self, step: int, now: DiscriminatorNumbers) -> list[Finding]:
        won = now.accuracy >= _WON_ACCURACY and now.loss <= _WON_LOSS * self._guessing
        lost = now.accuracy <= _LOST_ACCURACY
        if self._alarms["discriminator-won"].see(step, good=True, bad=won):
            since = self._alarms["discriminator-won"].since
            sentence = (
                f"The discriminator has won: since step {since} it is right in {now.accuracy:.0%} of its verdicts, and "
                f"its loss is near 0 ({now.loss:.2g}). Its verdicts now teach the generator little. The run "
                "continues; if results get worse, lower adversarial.discriminator_learning_rate or adversarial_weight, "
                "or set adversarial.r1_weight."
            )
            return [Finding("discriminator-won", sentence)]
        if self._alarms["discriminator-lost"].see(step, good=now.accuracy >= _ABLE_ACCURACY, bad=lost):
            sentence = (
                f"The discriminator has lost: since step {self._alarms['discriminator-lost'].since} it is right in "
                f"{now.accuracy:.0%} of its verdicts, no better than guessing, and has nothing to teach. The run "
                "continues; a higher adversarial.discriminator_learning_rate or more discriminator.channels would help."
            )
            return [Finding("discriminator-lost", sentence)]
        return []

    # ------------------------------------------------------------------------------------------------------ validations

    def validation(self, step: int, numbers: ValidationNumbers) -> list[Finding]:
        """What a validation shows. Comparisons with NaN are false, so that it sets off nothing."""
        if self._phase == "wear":  # the generator rests, and what it is given changes
            return []
        findings = [*self._below_bicubic(step, numbers), *self._collapse(step, numbers)]
        findings += self._colours(step, numbers)
        grid = numbers.grid
        if self._alarms["grid"].see(step, good=grid < 0.4, bad=grid > 0.8):
            sentence = (
                f"There is a grid in the results: dots of {grid:.1f} levels (of 255) on flat areas, as far apart as "
                "the scale. The run continues; less adversarial.adversarial_weight or more adversarial.pixel_weight "
                "makes it weaker."
            )
            findings.append(Finding("grid", sentence))
        return [*findings, *self._pattern(step, numbers.pattern_db)]

    def _pattern(self, step: int, pattern_db: float) -> list[Finding]:
        """Against the least so far too: beside targets that are smoother than photographs all results have some."""
        if not math.isnan(pattern_db):
            self._least_pattern_db = min(self._least_pattern_db, pattern_db)
        limit = max(_PATTERN_DB, self._least_pattern_db + _PATTERN_RISE_DB)
        if not self._alarms["pattern"].see(step, good=pattern_db < limit - 0.5, bad=pattern_db > limit):
            return []
        sentence = (
            f"There are fine dots or hatching in the results: at one frequency they have {pattern_db:.1f} dB more "
            "power than the originals. Look at the samples at 400 %. The run continues; adversarial.spectrum_weight "
            "(such as 2), less adversarial.adversarial_weight or a lower learning rate makes them weaker."
        )
        return [Finding("pattern", sentence)]

    def _below_bicubic(self, step: int, now: ValidationNumbers) -> list[Finding]:
        gain = now.psnr_y_db - now.bicubic_psnr_y_db + self._gap_db
        # The paper's own SRGAN ends 0.8 dB below bicubic (Ledig et al. 2017, table 2): that is no fault of phase 2.
        late = self._phase == "adversarial"
        below = self._alarms["below-bicubic"].see(step, good=gain >= 0, bad=not late and gain < -1)
        far = self._alarms["far-below-bicubic"].see(step, good=gain >= 0, bad=late and gain < -3)
        if not (below or far):
            return []
        sentence = (
            f"The results have become worse than plain bicubic enlargement ({now.psnr_y_db:.2f} dB, bicubic has "
            f"{now.bicubic_psnr_y_db:.2f} dB). Going back to the last good checkpoint, with a lower learning rate."
        )
        return [Finding("below-bicubic", sentence, roll_back=True)]

    def _collapse(self, step: int, now: ValidationNumbers) -> list[Finding]:
        self._latest_detail = now.detail
        fraction = now.detail / self._wanted_detail(now.detail)
        losses = []
        if self._alarms["no-detail"].see(step, good=fraction > 0.6, bad=fraction < 1 / 3):
            losses.append(f"only {fraction:.0%} of the original fine detail is left")
        if self._alarms["no-diversity"].see(step, good=now.diversity > 0.8, bad=now.diversity < 0.5):
            losses.append(f"results of different pictures differ {now.diversity:.0%} as much as they should")
        if not losses:
            return []
        sentence = (
            f"The generator has collapsed: {' and '.join(losses)}. "
            "Going back to the last good checkpoint, with a lower learning rate."
        )
        return [Finding("collapsed", sentence, roll_back=True)]

    def _wanted_detail(self, detail: float) -> float:
        """As much as the adversarial phase began with; half as much as it once had, since it may have begun with noise.

        NaN in the fidelity phase, where detail comes and noise goes, and both are as they should be.
        """
        if self._phase != "adversarial":
            return math.nan
        known = [value for value in (self._enough_detail, min(detail, 1.0) / 2) if not math.isnan(value)]
        self._enough_detail = max(known, default=math.nan)
        return max(self._enough_detail, 1e-6)

    def _colours(self, step: int, now: ValidationNumbers) -> list[Finding]:
        findings = []
        if self._alarms["colours"].see(step, good=now.colour_shift < 2, bad=now.colour_shift > 4):
            sentence = (
                f"Colours drift from the input: by {now.colour_shift:.1f} levels (of 255) on average. The run "
                "continues; more adversarial.pixel_weight or adversarial.consistency_weight holds them."
            )
            findings.append(Finding("colours", sentence))
        # Ledig et al.'s SRGAN is near 39 dB, networks trained for fidelity are above 50.
        # Of pictures full of detail, or whose input was noisy, even bicubic enlargement is not.
        border = min(35.0, now.bicubic_consistency_db) if math.isfinite(now.bicubic_consistency_db) else 35.0
        if self._alarms["inconsistent"].see(
            step, good=now.consistency_db > border + 2, bad=now.consistency_db < border
        ):
            sentence = (
                f"Results no longer agree with their input: downscaled, they agree to {now.consistency_db:.1f} dB "
                f"only, where {border:.0f} would be fine. The run continues; more adversarial.pixel_weight or "
                "adversarial.consistency_weight holds them together."
            )
            findings.append(Finding("inconsistent", sentence))
        return findings

    def noise(self, step: int, spread: float) -> list[Finding]:
        """How far results of one picture from two seeds are apart, in levels of 255, where noise is learned."""
        ignored = spread < _IGNORED_LEVELS
        if self._phase != "adversarial" or not self._alarms["noise-ignored"].see(step, good=not ignored, bad=ignored):
            return []
        sentence = (
            f"The generator ignores its noise: since step {self._alarms['noise-ignored'].since} results of one picture "
            f"from two seeds differ by {spread:.2f} levels (of 255) only, so that all variants look the same. The run "
            "continues; more adversarial.diversity_weight, or a longer run, may help."
        )
        return [Finding("noise-ignored", sentence)]

    # ------------------------------------------------------------------------------------------------------- the wearer

    def wear(self, step: int, now: WearNumbers) -> list[Finding]:
        """What a validation of the wearer shows, where wear is learned; the run continues in any case."""
        findings = []
        shift = now.colour_shift
        if self._alarms["wear-colours"].see(step, good=shift < 2, bad=shift > 4):
            sentence = (
                f"The learned wear moves colours by {shift:.1f} levels (of 255): the worn pictures show other colours "
                "than the sharp ones, and this is mistaken for wear. More adaptation.low_frequency_weight holds them."
            )
            findings.append(Finding("wear-colours", sentence))
        grain = now.real.noise
        little = _LITTLE_VARIATION * grain  # it begins with a level, which is too little for a grainy set
        if self._alarms["wear-alike"].see(
            step, good=now.variation > 2 * little, bad=now.variation < little and grain > 1
        ):
            sentence = (
                f"The wearer ignores its noise: what it makes of a picture differs by {now.variation:.2f} levels from "
                f"seed to seed, and the worn pictures have noise of {grain:.1f}. More adaptation.statistics_weight, or "
                "a longer run, may help."
            )
            findings.append(Finding("wear-alike", sentence))
        won = now.accuracy >= _WEAR_WON_ACCURACY
        if self._alarms["wear-discriminator-won"].see(step, good=True, bad=won):
            sentence = (
                f"The discriminator of low pictures has won: it is right in {now.accuracy:.0%} of its verdicts on what "
                "the wearer makes of held-out pictures. A lower adaptation.discriminator_learning_rate, or more "
                "adaptation.features, would help; compare the columns of the sheet before you trust the result."
            )
            findings.append(Finding("wear-discriminator-won", sentence))
        if self._alarms["wear-hidden"].see(step, good=now.hidden_db < 0.5, bad=now.hidden_db > 1.5):
            sentence = (
                f"The wearer may hide what the generator needs: noise of 2 levels over its results costs the generator "
                f"{now.hidden_db:.1f} dB. More adaptation.hidden_noise makes hiding useless."
            )
            findings.append(Finding("wear-hidden", sentence))
        if self._alarms["wear-returned"].see(step, good=now.returned_db < 0.5, bad=now.returned_db > 1.5):
            sentence = (
                "The generator may hide what the wearer needs to make its low pictures again: noise of 2 levels over "
                f"its results costs the wearer {now.returned_db:.1f} dB. More adaptation.hidden_noise makes hiding "
                "useless, and less adaptation.cycle_weight unnecessary."
            )
            findings.append(Finding("wear-returned", sentence))
        return findings

    # ------------------------------------------------------------------------------------------------- for checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values that `restore` takes back."""
        return {
            "not_finite": self._not_finite,
            "not_finite_since": self._not_finite_since,
            "norms": list(self._norms),
            "first_norm": self._first_norm,
            "phase": self._phase,
            "latest_detail": self._latest_detail,
            "enough_detail": self._enough_detail,
            "least_pattern_db": self._least_pattern_db,
            "alarms": {name: [a.armed, a.count, a.since] for name, a in self._alarms.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises `WeightsError` for what `state` never gave: it comes out of a file."""
        try:
            self._not_finite = stored.whole(state["not_finite"])
            self._not_finite_since = stored.whole(state.get("not_finite_since", 0))
            self._norms = [float(norm) for norm in state["norms"]]
            self._first_norm = None if state["first_norm"] is None else float(state["first_norm"])
            self._phase = state["phase"]
            self._latest_detail = float(state["latest_detail"])
            self._enough_detail = float(state["enough_detail"])
            self._least_pattern_db = float(state.get("least_pattern_db", math.inf))  # absent before version 1.0.0
            for name, (armed, count, since) in state["alarms"].items():
                alarm = self._alarms[name]
                alarm.armed, alarm.count, alarm.since = bool(armed), stored.whole(count), stored.whole(since)
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise WeightsError(f"the checkpoint is damaged: the monitor's state is not valid ({err})") from err
