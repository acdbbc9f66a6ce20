"""Weighted least squares over a few columns, without any library."""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEAST_NEWS = 1e-7  # a column that differs less than this from the others is their copy


def weighted_least_squares(
    rows: Sequence[tuple[float, ...]], peaks: Sequence[float], noise: Sequence[float]
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]] | None:
    """Coefficients β and (XᵀWX)⁻¹ with W = 1 / noise², by Gram-Schmidt; `None` where a column adds nothing."""
    target = [peak / scale for peak, scale in zip(peaks, noise, strict=True)]
    width = len(rows[0])
    basis: list[list[float]] = []  # orthonormal columns
    mixtures: list[list[float]] = []  # each of them as a combination of the original columns
    for index in range(width):
        column = [row[index] / scale for row, scale in zip(rows, noise, strict=True)]
        mixture = [float(index == other) for other in range(width)]
        length = math.sqrt(dot(column, column))
        for _ in range(2):  # a second pass removes what rounding left
            for known, recipe in zip(basis, mixtures, strict=True):
                share = dot(known, column)
                column = [value - share * part for value, part in zip(column, known, strict=True)]
                mixture = [value - share * part for value, part in zip(mixture, recipe, strict=True)]
        left = math.sqrt(dot(column, column))
        if left <= _LEAST_NEWS * length:
            return None
        basis.append([value / left for value in column])
        mixtures.append([value / left for value in mixture])
    shares = [dot(known, target) for known in basis]
    coefficients = tuple(dot(shares, [recipe[i] for recipe in mixtures]) for i in range(width))
    inverse = tuple(
        tuple(sum(recipe[i] * recipe[j] for recipe in mixtures) for j in range(width)) for i in range(width)
    )
    return coefficients, inverse


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """The sum of the products."""
    return sum(a * b for a, b in zip(left, right, strict=True))
