"""The live pair: few images, the same in every epoch, an S and an R."""

import toy_networks
import toy_study
from robustbias.adversarial_training import measure
from toy_source import Dots


def test_a_live_pair_has_a_record_of_both_regimes():
    entries = [
        toy_networks.entry(name="s", classes=4),
        toy_networks.entry(name="r", classes=4, regime="robust", norm="l2", eps=0.5),
    ]
    study = toy_study.study(source=Dots(64), entries=entries)
    records = measure.live_pair(
        study, architecture="alexnet", epochs=1, n_images=32, batch=16, steps=1, bfloat16=False
    )
    assert records["regime"].tolist() == ["standard", "robust"]
    assert set(records["architecture"]) == {"alexnet"}
    assert records["clean"].between(0, 1).all()


def test_the_excerpt_is_the_same_in_every_epoch_and_of_the_first_classes():
    source = measure.excerpt(toy_study.study(source=Dots(64)), 10, 2)
    assert len(source.train(0, 0)) == 10
    assert source.train(3, 1) is source.train(0, 0)
    assert set(source.train(0, 0).labels.tolist()) == {0, 1}
    assert set(source.val().labels.tolist()) == {0, 1}
