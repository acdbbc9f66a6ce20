"""How sure can one be? Quantiles of Student's t, its noncentral form, and the binomial, without any library.

The noncentral t is integrated as it is defined, ``T = (Z + δ) / S`` with ``S = √(χ²_ν / ν)``:
``P(T ≤ t) = ∫ Φ(t·s − δ) f_S(s) ds``. The tests compare it with an independent implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

from pytest_membudget.records.calibration import Breach

_NORMAL = NormalDist()
_REACH = 9.0  # standard deviations beyond which a normal tail is below 1e-18
_STEPS = 64  # Simpson intervals of one smooth piece; quantiles come out to five digits or more


def normal_quantile(share: float) -> float:
    """The value that a standard normal variable stays below with probability `share`."""
    return _NORMAL.inv_cdf(share)


def noncentral_t_cdf(t: float, freedom: int, noncentrality: float = 0.0) -> float:
    """P(T ≤ t) of the noncentral t with `freedom` degrees of freedom."""
    if t < 0:
        return 1.0 - noncentral_t_cdf(-t, freedom, -noncentrality)
    if t == 0:
        return _normal_cdf(-noncentrality)
    width = _REACH / math.sqrt(2 * freedom)
    low, high = max(0.0, 1 - width), 1 + width
    # Φ(t·s − δ) climbs from 0 to 1 around s = δ/t: that part gets its own steps.
    climb_from = min(max((noncentrality - _REACH) / t, low), high)
    climb_to = min(max((noncentrality + _REACH) / t, low), high)
    # The constant of the density of S.
    constant = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)

    def weighted(s: float) -> float:
        if s <= 0:
            return math.exp(constant) * _normal_cdf(-noncentrality) if freedom == 1 else 0.0
        density = math.exp(constant + (freedom - 1) * math.log(s) - freedom * s * s / 2)
        return density * _normal_cdf(t * s - noncentrality)

    middle = (climb_from + climb_to) / 2
    pieces = ((climb_from, middle), (middle, climb_to), (climb_to, (climb_to + high) / 2))
    inside = sum(_simpson(weighted, start, end) for start, end in (*pieces, ((climb_to + high) / 2, high)))
    return min(1.0, inside)


@lru_cache(maxsize=4096)
def noncentral_t_quantile(share: float, freedom: int, noncentrality: float = 0.0) -> float:
    """The t with P(T ≤ t) = `share`, found between the values that enclose it."""
    low, high = 0.0, max(1.0, 2 * noncentrality)
    if noncentral_t_cdf(0.0, freedom, noncentrality) >= share:
        return -noncentral_t_quantile(1 - share, freedom, -noncentrality)
    while noncentral_t_cdf(high, freedom, noncentrality) < share:
        low, high = high, 2 * high
    return _crossing(lambda t: noncentral_t_cdf(t, freedom, noncentrality) - share, low, high)


def t_quantile(share: float, freedom: int) -> float:
    """The quantile of Student's t."""
    return noncentral_t_quantile(share, freedom)


def curvature_p(f: float, freedom: int) -> float:
    """P(F ≥ f) for one and `freedom` degrees of freedom; F is the square of Student's t."""
    return 2 * (1 - noncentral_t_cdf(math.sqrt(f), freedom)) if f > 0 else 1.0


def tolerance_factor(leverage: float, freedom: int, *, content: float, confidence: float) -> float:
    """The factor k such that the fit + k·s covers the share `content` of new values with probability `confidence`.

    `leverage` is the variance of the fitted value in units of the variance of one new value there.
    k = √h · t′(confidence; ν, z_content / √h): D. B. Owen, "A survey of properties and applications of the
    noncentral t-distribution", Technometrics 10 (1968); for regression K. Krishnamoorthy and T. Mathew,
    "Statistical Tolerance Regions" (2009), section 3.2.
    """
    spread = math.sqrt(leverage)
    noncentrality = round(normal_quantile(content) / spread, 6)  # so that repeated questions meet the cache
    return spread * noncentral_t_quantile(confidence, freedom, noncentrality)


def rate_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval that holds the true rate, after C. J. Clopper and E. S. Pearson, Biometrika 26 (1934)."""
    if trials == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _crossing(lambda p: 1 - _binomial_cdf(hits - 1, trials, p) - tail, 0.0, 1.0)
    high = 1.0 if hits == trials else _crossing(lambda p: tail - _binomial_cdf(hits, trials, p), 0.0, 1.0)
    return low, high


def anytime_rate_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval that holds the true rate at all times at once, however often it is asked for.

    Under rate p the ratio ∫ q^k (1−q)^(n−k) dq / p^k (1−p)^(n−k) is a martingale that begins at 1, so by Ville's inequality
    it ever reaches 1/α with probability α at most. The rates where it has not are the interval: H. Robbins, "Statistical
    methods related to the law of the iterated logarithm", Annals of Mathematical Statistics 41 (1970).
    """
    if trials == 0:
        return 0.0, 1.0
    log_mixture = math.lgamma(hits + 1) + math.lgamma(trials - hits + 1) - math.lgamma(trials + 2)

    def excess(rate: float) -> float:
        """Above 0 where the rate is excluded."""
        if (hits and rate <= 0) or (trials > hits and rate >= 1):
            return math.inf
        log_likelihood = (hits * math.log(rate) if hits else 0.0) + (
            (trials - hits) * math.log1p(-rate) if trials > hits else 0.0
        )
        return log_mixture - log_likelihood + math.log(1 - confidence)

    middle = hits / trials
    return _edge(excess, 0.0, middle), _edge(excess, 1.0, middle)


_ALTERNATIVES = 6
"""Rates between the promised one and 1 that are bet on, at equal distances of their logarithms."""


class ExcessDetector:
    """Detects that more than the promised share of a stream exceeds, however long it was good before; it forgets.

    At every task t a bet of w_t = 1/(t(t+1)) on each rate q above the promised p begins. A bet is multiplied by q/p for a task
    that exceeds and by (1−q)/(1−p) for one that does not. The value V_t(q) = (V_{t−1}(q) + w_t) · factor of all bets on q
    loses on average while each task exceeds with probability p at most, given the tasks before it, and so does
    E_t = mean over q of V_t(q), plus the 1/(t+1) not yet placed, which is 1 at the start. By Ville's inequality it ever
    reaches 1/α with probability α at most. Bets that begin later are the e-processes started at consecutive times of
    J. Shin, A. Ramdas and A. Rinaldo, "E-detectors", New England Journal of Statistics in Data Science 2 (2024); the
    weights w_t buy a bound on any false alarm in place of their mean time between false alarms.
    """

    def __init__(self, promised: float, confidence: float = 0.99) -> None:
        self.breach: Breach | None = None
        self._promised, self._enough = promised, 1 / (1 - confidence)
        self._tasks = 0
        steps = range(1, _ALTERNATIVES + 1)
        self._bets = [_Bets(promised ** (step / (_ALTERNATIVES + 1))) for step in steps]

    def add(self, exceeded: bool) -> None:
        """Counts one more task; the first breach that is found stays, and ends the bets."""
        if self.breach is not None:
            return
        self._tasks += 1
        weight = 1 / (self._tasks * (self._tasks + 1))
        for bets in self._bets:
            bets.add(weight, exceeded, self._promised)
        if sum(bets.value for bets in self._bets) >= _ALTERNATIVES * self._enough:
            found = max(self._bets, key=lambda bets: bets.value)
            self.breach = Breach(tasks=found.tasks, exceeded=found.exceeded, last=self._tasks)


class _Bets:
    """All bets on one rate, and since when the largest of them runs."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.value = self._largest = 0.0
        self.tasks = self.exceeded = 0

    def add(self, weight: float, exceeded: bool, promised: float) -> None:
        if weight > self._largest:
            self._largest, self.tasks, self.exceeded = weight, 0, 0
        factor = self._rate / promised if exceeded else (1 - self._rate) / (1 - promised)
        self.value = (self.value + weight) * factor
        self._largest *= factor
        self.tasks += 1
        self.exceeded += exceeded


def _edge(excess: Callable[[float], float], outside: float, inside: float) -> float:
    """Where the interval ends between a rate that may be excluded and one that is not."""
    if excess(outside) <= 0:
        return outside
    for _ in range(60):
        middle = (outside + inside) / 2
        if excess(middle) > 0:
            outside = middle
        else:
            inside = middle
    return outside


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _simpson(function: Callable[[float], float], start: float, end: float) -> float:
    if end <= start:
        return 0.0
    step = (end - start) / _STEPS
    odd = sum(function(start + step * i) for i in range(1, _STEPS, 2))
    even = sum(function(start + step * i) for i in range(2, _STEPS, 2))
    return step / 3 * (function(start) + 4 * odd + 2 * even + function(end))


def _binomial_cdf(hits: int, trials: int, rate: float) -> float:
    if rate <= 0 or rate >= 1:
        return float(rate <= 0 or hits >= trials)
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    log_all = math.lgamma(trials + 1)
    return sum(
        math.exp(
            log_all
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * log_rate
            + (trials - k) * log_rest
        )
        for k in range(hits + 1)
    )


def _crossing(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is zero: false position with the Illinois step."""
    at_low, at_high = rising(low), rising(high)
    kept = 0  # the side that stayed last time; when it stays twice its value is halved, so that it moves
    for _ in range(100):
        if high - low <= 1e-9 * max(1.0, abs(high)) or at_high <= at_low:
            break
        guess = high - at_high * (high - low) / (at_high - at_low)
        value = rising(guess)
        if abs(value) < 1e-10:
            return guess
        if value < 0:
            low, at_low = guess, value
            at_high = at_high / 2 if kept > 0 else at_high
            kept = 1
        else:
            high, at_high = guess, value
            at_low = at_low / 2 if kept < 0 else at_low
            kept = -1
    return (low + high) / 2
