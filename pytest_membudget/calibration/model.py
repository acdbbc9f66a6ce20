"""A calibration: measured points, what they predict, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_membudget.calibration.law import (
    Law,
    SizeLaw,
    check_file,
    checked_share,
    fit_law,
    least_margin_bytes,
    leave_one_out,
    proven_bound,
    proven_content,
    runs_of,
    runs_to_prove,
    used_predictors,
    with_terms,
)
from pytest_membudget.errors import UsageError
from pytest_membudget.records.calibration import CalibrationFile, CalibrationPoint, CalibrationQuality
from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.scale import CurvePoint
from pytest_membudget.stats.fitting import LEAST_BYTES, MATERIAL_SHARE, PeakFit
from pytest_membudget.stats.surfaces import EXTRAPOLATION, Values
from pytest_membudget.units import format_as_written, format_count, format_number, format_share

if TYPE_CHECKING:
    from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
    from pytest_membudget.runtime.prediction.predictors import Predictor
    from pytest_membudget.stats.learning import Aim

_CURVE_POINTS = 24
_MOST_BYTES = 2**62
"""Of any answer: numbers in files hold no more, and no machine has it."""
_POOR_ERROR = 0.25
"""Mean error of the estimates of inputs that were left out, beyond which the law is a poor guide."""

_NAME_OTHERS = 'name what it follows: predictors={"pages": count_pages}, --predictor pages=MODULE:FUNCTION'

JUDGED_INPUTS = 3
"""Different inputs from which predictors can be judged: one that is left out, and two for a line."""


class Calibration:
    """What one task adds to a warm worker, for any input: a central estimate and a tolerance bound.

    All figures are bytes. `base_bytes`, the warm worker itself, is in none of the estimates. An input is given by its
    size, as the item itself (a path, a folder, a tuple of paths, whatever the predictors take), or by a mapping of
    predictors, such as ``{"pages": 12}``.

    Args:
        file: what was measured.
        predictors: the functions of those that the file names. Without one only a mapping will do; the size in bytes
            needs none.
    """

    def __init__(
        self, file: CalibrationFile, predictors: Mapping[str, Predictor | None] | None = None
    ) -> None:
        from pytest_membudget.runtime.prediction.predictors import BYTES, Predictors

        check_file(file)
        self.file = with_terms(file)
        names = file.predictors or (BYTES,)
        unknown = sorted(set(predictors or {}) - set(names))
        if unknown:
            raise UsageError(f"the calibration has no predictor {unknown[0]!r}; it has {', '.join(names)}")
        self._predictors = Predictors({name: (predictors or {}).get(name) for name in names})
        self._runs = runs_of(self.file)
        self._law: Law = fit_law(self.file)

    @property
    def points(self) -> tuple[CalibrationPoint, ...]:
        """What was measured, as (size_bytes, peak_bytes)."""
        return self.file.points

    @property
    def content(self) -> float:
        """The share of tasks that the bound covers, with `confidence`."""
        return self.file.content

    @property
    def confidence(self) -> float:
        """How often, over repeated calibrations, the bound covers that share."""
        return self.file.confidence

    @property
    def base_bytes(self) -> int:
        """A warm worker less a bare interpreter: charged once per worker, from its start."""
        return self.file.base_bytes

    @property
    def first_call_bytes(self) -> int:
        """What the first call in a process takes beyond the estimate, which is of a warm worker."""
        return self.file.first_call_bytes

    @property
    def predictors(self) -> tuple[str, ...]:
        """Names of what the peak follows: "bytes" alone by default; none where it is the same for every input."""
        return used_predictors(self.file)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of predictors that were given and do not help."""
        return tuple(name for name in self.file.predictors if name not in self.predictors)

    @property
    def overhead_bytes(self) -> int:
        """The fitted peak of an empty input, never below 0."""
        fit = self._line
        nothing = (0.0,) * len(self.predictors)
        return round(max(0.0, fit.intercept_bytes) if fit else self._law.expect(nothing))

    @property
    def gamma(self) -> float:
        """Bytes of peak per byte of input; where the fit is curved, its mean slope over the calibrated sizes.

        0 where the peak follows something else than the size in bytes.
        """
        fit = self._line
        if fit is None or self.predictors != ("bytes",):
            return 0.0
        if not self.curved:
            return max(0.0, fit.slope)
        smallest = min(point.size_bytes for point in self.points)
        rise = fit.expect(self.max_size_bytes) - fit.expect(smallest)
        return max(0.0, rise / (self.max_size_bytes - smallest))

    @property
    def curved(self) -> bool:
        """Whether the peak grows faster than the size, or than the one predictor that it follows."""
        return self._line is not None and self._line.curved

    @property
    def max_size_bytes(self) -> int:
        """The largest calibrated size."""
        return max(point.size_bytes for point in self.points)

    @property
    def seconds_per_mb(self) -> float | None:
        """Time per 10⁶ bytes, total over total; `None` where no times were taken."""
        size_bytes = sum(point.size_bytes for point in self.points)
        return sum(self.file.durations_s) / size_bytes * 1e6 if self.file.durations_s and size_bytes else None

    @property
    def proven_content(self) -> float:
        """The share of tasks that the largest of the runs covers, with `confidence`, however peaks scatter."""
        return proven_content(len(self.points), self.confidence)

    @property
    def runs_to_prove(self) -> int:
        """How many runs would show `content` by themselves, without a law that joins them."""
        return runs_to_prove(self.content, self.confidence)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Plain sentences of doubt, empty where there is none."""
        fitted = []
        follows = " and ".join(self.predictors)
        distinct = len(set(self.file.values))
        if self.left_out and 1 < distinct < JUDGED_INPUTS:
            fitted.append(
                f"{format_count(distinct, 'different input')} cannot show whether {' and '.join(self.left_out)} help to "
                f"predict, so the estimate is the same for all; measure at least {JUDGED_INPUTS}"
            )
        elif self.left_out and self.file.peak_of == "task":
            fitted.append(
                f"left out, since {'it does' if len(self.left_out) == 1 else 'they do'} not help to predict: "
                f"{', '.join(self.left_out)}"
            )
        places = len({run.values for run in self._runs})
        if places == 1 and self.predictors:
            fitted.append(
                f"all points have one size, so nothing is known of how the peak grows with {_size(follows)}"
            )
        elif places == 2 and self.predictors:
            fitted.append(
                "a line goes through any two inputs, so the bound shows only what repeats of the same input differ by; measure at "
                f"least {JUDGED_INPUTS} different ones"
            )
        if self.curved:
            fitted.append(
                f"the peak grows faster than {_size(follows)}: no single γ describes it, ask bound(size)"
            )
        if self._line is not None and self._line.flattens:
            fitted.append(
                f"the peak grows ever less as {_size(follows)} grows: expect(size) follows that, while γ and bound(size) keep "
                "to the line, as nothing says where it ends"
            )
        return (*self.file.caveats, *fitted, *self.doubts_of_law)

    @property
    def doubts_of_law(self) -> tuple[str, ...]:
        """The caveats that say what predicting each input from the others shows against the law."""
        return tuple(self._doubts_of_law(_size(" and ".join(self.predictors))))

    def _doubts_of_law(self, follows: str) -> Iterator[str]:
        found, largest_bytes = self.quality, max(run.peak_bytes for run in self._runs)
        if found is None or largest_bytes < LEAST_BYTES:
            return
        if self._falls():
            yield (
                f"the peak falls as {follows} grows, so the estimate is the same for all and the bound wide; {_NAME_OTHERS}"
            )
        elif found.error > _POOR_ERROR:
            yield (
                f"predicted from the others a peak is {format_share(found.error)} off on average: {follows} alone does not "
                f"predict it; {_NAME_OTHERS}"
            )
        if found.under_predicted > found.under_extrapolated:
            yield (
                f"{found.under_predicted} of {found.judged} runs lay above the bound that follows from the other inputs, so the "
                "bound may be too low for inputs between those that were run; run more different ones"
            )
        elif found.under_predicted:
            yield (
                f"{found.under_predicted} of {found.judged} runs, all beyond the others, lay above the bound that follows from "
                "these; run inputs as large as those to come"
            )

    def _falls(self) -> bool:
        """Whether peaks fall, by more than runs differ, where the law can only be constant."""
        if self._line is None or len(self._line.powers) > 1:
            return False
        first, last = (
            max(run.peak_bytes for run in self._runs if run.values == values)
            for values in (end(run.values for run in self._runs) for end in (min, max))
        )
        return last < (1 - MATERIAL_SHARE) * first - LEAST_BYTES

    def features(self, item: Any) -> int | dict[str, float]:
        """What the law is a function of, for an item: its size in bytes, or the predictors by name. `expect` and `bound` take these.

        Raises:
            UsageError: it has no size, or a predictor fails on it.
        """
        if self.predictors == ("bytes",):
            return round(self._values(item)[0])
        return self._predictors.values(item, self.predictors)

    def describe(self, item: Any) -> str:
        """The same in words: its size, or its predictors."""
        features = self.features(item)
        if isinstance(features, int):
            return format_as_written(features)
        return ", ".join(f"{name} {format_number(value)}" for name, value in features.items()) or "any input"

    def expect(self, item: Any) -> int:
        """The central estimate for a size, an item, or a mapping of predictors."""
        return self._whole(item, self._law.expect)

    def bound(self, item: Any, *, content: float | None = None) -> int:
        """The tolerance bound likewise, never below a peak that was seen with no predictor larger."""
        share = self.content if content is None else checked_share("content", content)
        return self._whole(
            item,
            lambda values: proven_bound(
                self._law,
                self._runs,
                values,
                content=share,
                confidence=self.confidence,
                least_margin_bytes=least_margin_bytes(self.file),
            ),
        )

    def _whole(self, item: Any, law: Callable[[Values], float]) -> int:
        values = self._values(item)
        try:
            return min(round(law(values)), _MOST_BYTES)
        except (OverflowError, ValueError):  # of an infinite sum, or of the difference of two
            return _MOST_BYTES

    def is_extrapolated(self, item: Any) -> bool:
        """Whether it is beyond 1.25 × the largest that was calibrated: its size, or a product of its predictors."""
        return self._law.is_extrapolated(self._values(item))

    @cached_property
    def quality(self) -> CalibrationQuality | None:
        """Each size, or each distinct input, predicted from the others alone; `None` with fewer than three."""
        return leave_one_out(self.file)

    def estimator(self, aim: Aim = "safe") -> MemoryEstimator:
        """An estimator that starts from these points and learns from every task it is given.

        "safe" allocates so that few tasks run out; "cheap" so that the expected waste, failed attempts
        included, is least, which is for callers who can retry. With predictors it takes items or mappings.
        """
        from pytest_membudget.runtime.prediction.estimator import MemoryEstimator
        from pytest_membudget.stats.learning import AllocationLearner

        if aim not in ("safe", "cheap"):
            raise UsageError(f'aim={aim!r} is neither "safe" nor "cheap"')
        by_size = self.predictors == ("bytes",)
        learner = AllocationLearner(aim=aim)
        for run, duration_s in zip(self._runs, self._durations(), strict=True):
            size = run.values[0] if by_size else round(self._law.expect(run.values))
            learner.observe(size, run.peak_bytes, duration_s)
        return MemoryEstimator(
            self.gamma,
            self.overhead_bytes,
            self.base_bytes,
            learner=learner,
            predictors=None if by_size else self,
            first_call_bytes=self.first_call_bytes,
        )

    def picture(self, name: str = "") -> CalibrationPicture:
        """The calibration as a report shows it."""
        last = EXTRAPOLATION * self.max_size_bytes
        by_size = self.predictors == ("bytes",)  # else there is no curve over the size
        sizes = [round(last * step / _CURVE_POINTS) for step in range(_CURVE_POINTS + 1)] if by_size else []
        return CalibrationPicture(
            name=name or self.file.function,
            gamma=self.gamma,
            overhead_bytes=self.overhead_bytes,
            base_bytes=self.base_bytes,
            curved=self.curved,
            points=tuple((point.size_bytes, point.peak_bytes) for point in self.points),
            curve=tuple(CurvePoint(size, self.expect(size), self.bound(size)) for size in sizes),
            caveats=self.caveats,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the calibration as JSON, whole or not at all.

        Raises:
            OSError: the folder is missing, not writable or full.
        """
        from pytest_membudget.records.storage import encode_json, write_atomically

        write_atomically(path, encode_json(self.file))

    @property
    def _line(self) -> PeakFit | None:
        """The fit of a law of one predictor."""
        return self._law.fit if isinstance(self._law, SizeLaw) else None

    def _values(self, item: Any) -> Values:
        from pytest_membudget.runtime.prediction.predictors import BYTES, size_of_item

        if self.predictors == (BYTES,) and (not self.file.predictors or isinstance(item, int | str)):
            return (float(size_of_item(item)),)
        named = self._predictors.values(item, self.predictors)
        return tuple(named[name] for name in self.predictors)

    def _durations(self) -> Sequence[float | None]:
        return self.file.durations_s or (None,) * len(self.points)

    def __repr__(self) -> str:
        return (
            f"<Calibration of {self.file.function or 'given points'} by {' and '.join(self.predictors) or 'nothing'}: "
            f"γ={self.gamma:.3g}, overhead_bytes={self.overhead_bytes}, {format_count(len(self.points), 'point')}>"
        )


def _size(follows: str) -> str:
    return "the size" if follows == "bytes" else follows
