"""What a notebook shows of what a user meets: short, whatever is in it."""

import gc
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest
from exported import is_plain, met_types
from hypothesis import given
from hypothesis import strategies as st
from small_model import small_model

from heinfer import errors
from heinfer.brief import LONGEST, brief_repr
from heinfer.ckks.parameters import Parameters
from heinfer.costs.tables import load_costs
from heinfer.formats import bundle
from heinfer.zoo import bundle_path, digits

MET = sorted(met_types(), key=lambda kind: (kind.__module__, kind.__name__))

_MET = frozenset(MET)


def test_the_types_that_are_met_are_found():
    names = {kind.__name__ for kind in MET}
    assert names >= {"Bundle", "Circuit", "CompiledModel", "CostTable", "Layout", "LinearMap", "Manifest", "Network"}
    assert names >= {"Parameters", "Plan", "Prediction", "Report", "Simulation", "Requirements", "RankReport"}


@pytest.mark.parametrize("kind", MET, ids=lambda kind: kind.__name__)
def test_what_may_hold_much_shows_little(kind):
    assert kind.__repr__ is brief_repr or is_plain(kind)


@pytest.fixture(scope="module")
def things() -> list[object]:
    """Everything with fields that there is after a model was compiled, reported on, simulated, saved and opened."""
    model = small_model()
    shipped = bundle.load(bundle_path("mnist-ffconv"))
    x = np.zeros((1, *model.network.input_shape))
    held = (
        x,
        model,
        model.report,
        model.simulate(x),
        shipped,
        shipped.manifest.to_parameters(),
        digits(),
        load_costs(),
    )
    return [*held, *(thing for thing in gc.get_objects() if type(thing) in _MET)]


def test_every_object_of_a_compiled_model_is_shown_short(things):
    assert {type(thing).__name__ for thing in things} >= {"Bundle", "Circuit", "Layout", "LinearMap", "Plan", "Op"}
    too_long = {
        type(thing).__name__: repr(thing) for thing in things if type(thing) in _MET and len(repr(thing)) > LONGEST
    }
    assert not too_long


def test_what_is_shown_says_what_it_is():
    shipped = bundle.load(bundle_path("mnist-ffconv"))
    assert repr(shipped).startswith("<Bundle mnist-ffconv 1: ")
    assert "N=8192" in repr(shipped)
    assert "(1, 28, 28) to (10,)" in repr(shipped.manifest)
    assert "39 rotate" in repr(shipped.circuit)
    assert "1 x 4096 slots" in repr(shipped.manifest.output.layout.to_layout())


class Word(StrEnum):
    ONE = "one"


@dataclass
class Thing:
    name: object
    other: object
    third: object = None
    __repr__ = brief_repr


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.binary() | st.just(Word.ONE),
    lambda inner: st.lists(inner, max_size=90) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=100,
)


@given(VALUES, VALUES, VALUES)
def test_a_repr_is_short_and_of_one_line_for_all_values(name, other, third):
    shown = repr(Thing(name, other, third))
    assert len(shown) <= LONGEST
    assert shown.startswith("Thing(name=")
    assert "\n" not in shown


def test_a_repr_shows_plain_values_whole_and_of_others_the_size():
    shown = repr(Thing((1, 2.5, "x"), np.zeros((3, 4)), Word.ONE))
    assert shown == "Thing(name=(1, 2.5, 'x'), other=<ndarray of shape (3, 4)>, third='one')"
    assert repr(Thing(b"abc", {1: 2}, Path("x"))) == "Thing(name=<3 bytes>, other=<dict of 1>, third=PosixPath('x'))"
    assert repr(Thing(Thing(1, 2), list(range(900)))) == "Thing(name=<Thing>, other=<list of 900>, third=None)"


def test_what_is_wrong_is_shown_all_the_same():
    wrong = object.__new__(Parameters)  # as a debugger sees it before its fields are there
    assert len(repr(wrong)) <= LONGEST
    with pytest.raises(errors.ParameterError):
        Parameters(8192, (-5,), 0)
