"""Rewriting a torch model into one that runs well encrypted."""

from heinfer.convert.circulant import circulant
from heinfer.convert.factorize import Factorization, factorize
from heinfer.convert.polynomialize import Polynomialized, polynomialize
from heinfer.convert.polynomials.report import PolynomialReport
from heinfer.convert.polynomials.tuning import Tuning
from heinfer.convert.rank_choice import choose_ranks
from heinfer.convert.rank_report import Budget, LayerChoice, RankReport

__all__ = [
    "Budget",
    "Factorization",
    "LayerChoice",
    "PolynomialReport",
    "Polynomialized",
    "RankReport",
    "Tuning",
    "choose_ranks",
    "circulant",
    "factorize",
    "polynomialize",
]
