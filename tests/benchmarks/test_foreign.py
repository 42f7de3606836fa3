"""The foreign networks: what they take, the heartbeats that are made up, and a training that goes on."""

from dataclasses import replace

import pytest
import torch

from benchmarks.foreign import encrypted, training, tuned
from benchmarks.foreign.data import Task, beats
from benchmarks.foreign.registry import FOREIGN, Foreign, foreign
from benchmarks.support.records import known_records
from heinfer.convert import Tuning
from heinfer.errors import SettingError

SHAPES = {
    "lenet5": ((1, 28, 28), 10),
    "vgg": ((3, 32, 32), 10),
    "resnet8": ((3, 32, 32), 10),
    "ecg": ((1, 187), 5),
    "tabular": ((30,), 2),
    "records": ((30,), 2),
}


def test_every_network_takes_its_inputs():
    assert SHAPES.keys() == FOREIGN.keys()
    for name, (shape, classes) in SHAPES.items():
        assert foreign(name).build().eval()(torch.zeros(2, *shape)).shape == (2, classes)
    with pytest.raises(SettingError, match="choose one of lenet5, "):
        foreign("alexnet")


def test_heartbeats_are_the_same_for_a_seed_and_differ_by_class():
    some, again, other = beats(400, 0), beats(400, 0), beats(400, 1)
    assert torch.equal(some.inputs, again.inputs)
    assert not torch.equal(some.inputs, other.inputs)
    assert some.inputs.shape == (400, 1, 187)
    assert sorted(set(some.labels.tolist())) == [0, 1, 2, 3, 4]
    means = [some.inputs[some.labels == label].mean(0) for label in range(5)]
    assert all((means[i] - means[j]).abs().max() > 0.05 for i in range(5) for j in range(i))


def test_a_training_goes_on_where_it_was_and_is_not_repeated(tmp_path, monkeypatch):
    parts = beats(600, 0), beats(100, 1), beats(100, 2)
    network = Foreign("ecg", foreign("ecg").build, lambda: Task(*parts), replace(foreign("ecg").recipe, batch_size=16))

    def stopping(self, epoch, module):
        if epoch == 2:
            raise KeyboardInterrupt

    whole = training.train(network, tmp_path / "whole", epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(training._Lines, "on_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            training.train(network, tmp_path / "parts", epochs=3)
    about = training.train(network, tmp_path / "parts", epochs=3)
    weights = [training.load("ecg", tmp_path / part).state_dict() for part in ("whole", "parts")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert about.test_accuracy == whole.test_accuracy > 0.3, "guessing has 0.2"
    monkeypatch.setattr(training, "fit", None)
    assert training.train(network, tmp_path / "parts", epochs=3) == about


@pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")
def test_a_tuned_network_runs_encrypted_as_in_cleartext(tmp_path, monkeypatch):
    network = replace(foreign("tabular"), recipe=replace(foreign("tabular").recipe, epochs=5))
    monkeypatch.setitem(FOREIGN, "tabular", network)
    monkeypatch.setitem(tuned.RECIPES, "tabular", tuned.TuningRecipe(Tuning(epochs=2, labels=0.3), noise=0.1))
    training.train(network, tmp_path)
    json = tmp_path / "foreign.json"
    encrypted.foreign_encrypted(json, ["tabular"], tmp_path, images=3, backend="tenseal")
    (record,) = known_records(json)
    assert record["agreements"] + record["exempted"] == record["images"] == 3
    assert record["degrees"] == "2 2"
    assert record["depth"] == 2
    assert record["test_inputs"] == 171
    assert record["accuracy"] > 0.8
    assert abs(record["accuracy_noisy"] - record["accuracy"]) < 0.02
    assert record["precision_bits_min"] > 3
    assert encrypted.fails(record | {"agreements": 1, "exempted": 1})
    assert encrypted.fails(record | {"agreements": 2, "exempted": 1})
