"""Monitors a training run: detects common failures of adversarial training early and describes them in a sentence.

The inputs are the numbers of a step (losses, gradient norms, the discriminator's accuracy) and those of a validation
(see `picture_numbers`); the outputs are findings. This module knows nothing about networks and changes nothing: the
trainer decides how to act on a finding.

Each condition has an alarm. It triggers when a value that has been good stays bad for a while, and can trigger again
only after the value has recovered. Problems are therefore reported once, and an untrained network reports none.
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

# Multiples of the median gradient norm. Ten times the median is an ordinary bad batch.
_EXPLODED, _CALM, _VANISHED = 100.0, 10.0, 1e-4
_MAX_NORMS = 200
_MIN_NORMS = 10
# The loss of a discriminator that can only guess: the mean over real plus the mean over fake verdicts. 2 ln 2 for a
# cross-entropy (Goodfellow et al. 2014, section 4.1), 2 for hinge, ½ · ¼ + ½ · ¼ for least squares.
_GUESSING: Mapping[Objective, float] = {
    "nonsaturating": 2 * math.log(2),
    "relativistic": 2 * math.log(2),
    "hinge": 2.0,
    "least-squares": 0.25,
}
_WON_ACCURACY, _WON_LOSS = 0.98, 0.1  # the loss as a fraction of that when guessing
_WEAR_WON_ACCURACY = 0.85
_LITTLE_VARIATION = 0.1  # between seeds, as a fraction of the real pictures' noise: less is too little
_LOST_ACCURACY, _ABLE_ACCURACY = 0.51, 0.6
_IGNORED_LEVELS = 0.1  # difference between results from two seeds; less disappears when they are rounded
_PATTERN_DB, _PATTERN_RISE_DB = 2.5, 2.0  # above photographs and good models; rise above the lowest value so far


@dataclass(frozen=True)
class Finding:
    """A problem to report. `kind`: a fixed identifier for programs. `roll_back`: return to the last good checkpoint."""

    kind: str
    sentence: str
    roll_back: bool = False


@dataclass(frozen=True)
class DiscriminatorNumbers:
    """`loss`: the sum over real and fake, without penalties. `accuracy`: the fraction of correct verdicts, 0 … 1.

    `gradient_norm`: the norm of all its gradients together, before clipping.
    """

    loss: float
    accuracy: float
    gradient_norm: float = 0.0


class _Alarm:
    """Triggers once, when a value that was good has been bad `times` times in a row and for at least `steps` steps."""

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
    """Monitors one run.

    `patience`: the number of consecutive observations with NaN or infinite values that triggers a rollback, provided
    that they span `patience_steps` steps; 1 except with a gradient scaler, which skips such steps itself.
    `window_steps`: how long a discriminator must have won, or noise been ignored, before it is reported. `gap_db`: how
    far below bicubic enlargement a student may be, because its teacher is.

    Call `begin` at the start of a phase, `step` whenever losses are read, and `validation` after each validation.
    After a rollback, pass the checkpoint's state to `restore`, which resets the alarms to that point.
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
        self._first_norm: float | None = None  # median of the first norms of the phase
        self._phase: Phase | None = None
        self._latest_detail = math.nan
        self._enough_detail = math.nan  # what the adversarial phase must keep
        self._least_pattern_db = math.inf
        self._alarms = {
            "exploding": _Alarm(times=3),
            "vanishing": _Alarm(times=5, steps=window_steps),
            "discriminator-won": _Alarm(times=5, steps=window_steps, armed=True),  # it may win from the start
            "discriminator-lost": _Alarm(times=5, steps=5 * window_steps),
            "below-bicubic": _Alarm(),
            "far-below-bicubic": _Alarm(times=2),
            "no-detail": _Alarm(),
            "no-diversity": _Alarm(),
            "colours": _Alarm(),
            "inconsistent": _Alarm(),
            "grid": _Alarm(times=2),
            "pattern": _Alarm(times=2, armed=True),
            "noise-ignored": _Alarm(times=3, steps=window_steps, armed=True),  # a generator ignores its noise at first
            "wear-colours": _Alarm(armed=True),
            "wear-alike": _Alarm(times=2, armed=True),
            "wear-discriminator-won": _Alarm(times=3, armed=True),
            "wear-hidden": _Alarm(times=2, armed=True),
            "wear-returned": _Alarm(times=2, armed=True),
        }

    def begin(self, phase: Phase) -> None:
        """Start a phase: its losses, and so its gradient norms, are new. No effect if that phase is already running."""
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
        """`losses`: by name. `gradient_norm`: the norm of all the generator's gradients together, before clipping."""
        watched = dict(losses)
        if discriminator is not None:
            watched |= {"discriminator": discriminator.loss, "discriminator's gradient": discriminator.gradient_norm}
        strange = [name for name, value in watched.items() if not math.isfinite(value)]
        if strange or not math.isfinite(gradient_norm):
            return self._nonsense(step, strange)
        self._not_finite = 0
        findings = self._gradients(step, gradient_norm)
        # In the wear phase a discriminator that can only guess is the goal; see `wear`.
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
            f"{what} became NaN or infinite at step {step}: values exceeded the range of the number format. "
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
                return findings  # do not let it into the median
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
        """Findings of a validation. Comparisons with NaN are false, so unknown values trigger no alarm."""
        if self._phase == "wear":  # the generator is not trained, and its inputs change
            return []
        findings = [*self._below_bicubic(step, numbers), *self._collapse(step, numbers)]
        findings += self._colours(step, numbers)
        grid = numbers.grid
        if self._alarms["grid"].see(step, good=grid < 0.4, bad=grid > 0.8):
            sentence = (
                f"The results show a grid: dots of {grid:.1f} levels (of 255) on flat areas, repeating with every px "
                "of the low picture. The run continues; a lower adversarial.adversarial_weight or a higher "
                "adversarial.pixel_weight reduces it."
            )
            findings.append(Finding("grid", sentence))
        return [*findings, *self._pattern(step, numbers.pattern_db)]

    def _pattern(self, step: int, pattern_db: float) -> list[Finding]:
        """The limit also depends on the lowest value so far: with very smooth targets, all results have some excess."""
        if not math.isnan(pattern_db):
            self._least_pattern_db = min(self._least_pattern_db, pattern_db)
        limit = max(_PATTERN_DB, self._least_pattern_db + _PATTERN_RISE_DB)
        if not self._alarms["pattern"].see(step, good=pattern_db < limit - 0.5, bad=pattern_db > limit):
            return []
        sentence = (
            f"The results show fine dots or hatching: at one frequency they have {pattern_db:.1f} dB more power than "
            "the originals. Look at the samples at 400 %. The run continues; adversarial.spectrum_weight (such as 2), "
            "a lower adversarial.adversarial_weight or a lower learning rate reduces them."
        )
        return [Finding("pattern", sentence)]

    def _below_bicubic(self, step: int, now: ValidationNumbers) -> list[Finding]:
        gain = now.psnr_y_db - now.bicubic_psnr_y_db + self._gap_db
        # The paper's SRGAN ends 0.8 dB below bicubic (Ledig et al. 2017, table 2), so that is normal in phase 2.
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
            losses.append(f"results of different pictures differ only {now.diversity:.0%} as much as they should")
        if not losses:
            return []
        sentence = (
            f"The generator has collapsed: {' and '.join(losses)}. "
            "Going back to the last good checkpoint, with a lower learning rate."
        )
        return [Finding("collapsed", sentence, roll_back=True)]

    def _wanted_detail(self, detail: float) -> float:
        """The detail at the start of the adversarial phase, or half of the most since (the start may have been noise).

        NaN in the fidelity phase, where detail may grow and noise may shrink.
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
                f"Colours drift away from the input, by {now.colour_shift:.1f} levels (of 255) on average. The run "
                "continues; a higher adversarial.pixel_weight or adversarial.consistency_weight reduces the drift."
            )
            findings.append(Finding("colours", sentence))
        # Ledig et al.'s SRGAN reaches about 39 dB, networks trained for fidelity more than 50. For pictures full of
        # detail or with noisy inputs, even bicubic enlargement may stay below 35, hence the lower limit.
        border = min(35.0, now.bicubic_consistency_db) if math.isfinite(now.bicubic_consistency_db) else 35.0
        if self._alarms["inconsistent"].see(
            step, good=now.consistency_db > border + 2, bad=now.consistency_db < border
        ):
            sentence = (
                "Results no longer match their input: downscaled, they reach a PSNR of only "
                f"{now.consistency_db:.1f} dB against it, where {border:.0f} dB is acceptable. The run continues; a "
                "higher adversarial.pixel_weight or adversarial.consistency_weight helps."
            )
            findings.append(Finding("inconsistent", sentence))
        return findings

    def noise(self, step: int, spread: float) -> list[Finding]:
        """`spread`: distance between results of one picture from two seeds, in levels of 255; for models with noise."""
        ignored = spread < _IGNORED_LEVELS
        if self._phase != "adversarial" or not self._alarms["noise-ignored"].see(step, good=not ignored, bad=ignored):
            return []
        sentence = (
            f"The generator ignores its noise: since step {self._alarms['noise-ignored'].since} results of one picture "
            f"from two seeds differ by only {spread:.2f} levels (of 255), so all variants look the same. The run "
            "continues; a higher adversarial.diversity_weight or a longer run may help."
        )
        return [Finding("noise-ignored", sentence)]

    # ------------------------------------------------------------------------------------------------------- the wearer

    def wear(self, step: int, now: WearNumbers) -> list[Finding]:
        """Findings of a validation in the wear phase; none of them stops the run."""
        findings = []
        shift = now.colour_shift
        if self._alarms["wear-colours"].see(step, good=shift < 2, bad=shift > 4):
            sentence = (
                f"The learned wear shifts colours by {shift:.1f} levels (of 255): the worn pictures have other colours "
                "than the sharp ones, and the difference is learned as wear. A higher "
                "adaptation.low_frequency_weight prevents this."
            )
            findings.append(Finding("wear-colours", sentence))
        grain = now.real.noise
        little = _LITTLE_VARIATION * grain  # variation starts near one level, which is too little for grainy pictures
        if self._alarms["wear-alike"].see(
            step, good=now.variation > 2 * little, bad=now.variation < little and grain > 1
        ):
            sentence = (
                f"The wearer ignores its noise: its results for one picture differ by only {now.variation:.2f} levels "
                f"(of 255) from seed to seed, but the worn pictures have noise of {grain:.1f} levels. A higher "
                "adaptation.statistics_weight or a longer run may help."
            )
            findings.append(Finding("wear-alike", sentence))
        won = now.accuracy >= _WEAR_WON_ACCURACY
        if self._alarms["wear-discriminator-won"].see(step, good=True, bad=won):
            sentence = (
                f"The discriminator of low pictures has won: it is right in {now.accuracy:.0%} of its verdicts on the "
                "wearer's results for held-out pictures. A lower adaptation.discriminator_learning_rate or more "
                "adaptation.features would help; compare the columns of the sheet before you trust the result."
            )
            findings.append(Finding("wear-discriminator-won", sentence))
        if self._alarms["wear-hidden"].see(step, good=now.hidden_db < 0.5, bad=now.hidden_db > 1.5):
            sentence = (
                "The wearer may be hiding a signal for the generator in its results: adding noise of 2 levels to them "
                f"costs the generator {now.hidden_db:.1f} dB. A higher adaptation.hidden_noise prevents this."
            )
            findings.append(Finding("wear-hidden", sentence))
        if self._alarms["wear-returned"].see(step, good=now.returned_db < 0.5, bad=now.returned_db > 1.5):
            sentence = (
                "The generator may be hiding a signal in its results from which the wearer restores the low pictures: "
                f"adding noise of 2 levels to them costs the wearer {now.returned_db:.1f} dB. A higher "
                "adaptation.hidden_noise makes hiding useless, a lower adaptation.cycle_weight makes it unnecessary."
            )
            findings.append(Finding("wear-returned", sentence))
        return findings

    # ------------------------------------------------------------------------------------------------- for checkpoints

    def state(self) -> dict[str, Any]:
        """The state as plain values, for `restore`."""
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
        """Restore what `state` returned. Raises `WeightsError` if the values, which come from a file, are not valid."""
        try:
            self._not_finite = stored.whole(state["not_finite"])
            self._not_finite_since = stored.whole(state.get("not_finite_since", 0))
            self._norms = [float(norm) for norm in state["norms"]]
            self._first_norm = None if state["first_norm"] is None else float(state["first_norm"])
            self._phase = state["phase"]
            self._latest_detail = float(state["latest_detail"])
            self._enough_detail = float(state["enough_detail"])
            self._least_pattern_db = float(state.get("least_pattern_db", math.inf))  # absent in older checkpoints
            for name, (armed, count, since) in state["alarms"].items():
                alarm = self._alarms[name]
                alarm.armed, alarm.count, alarm.since = bool(armed), stored.whole(count), stored.whole(since)
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise WeightsError(f"the checkpoint is damaged: the monitor's state is not valid ({err})") from err
