"""Training learns, resumes bitwise, shares its work, and never leaves half a file."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robustbias import manifest, training
from robustbias.networks import checkpoints, zoo
from robustbias.utils import UserError
from toy_networks import entry as toy_entry
from toy_networks import network
from toy_source import Dots
from train_toy import without_dropout

HERE = Path(__file__).parent
TOY = training.Recipe(
    epochs=4, batch=32, rate=0.01, eps=0.5, steps=1, test_eps=0.1, test_images=16, bfloat16=False,
    warm=0.25, ramp=0.25, average=0.9,
)  # fmt: skip


def trained(folder=None, how=TOY, source=None):
    net = network(classes=4)
    rows = training.train(net, source or Dots(), how, folder=folder, progress=False)
    return net, rows


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


class Interrupted(Dots):
    """Stops before the third epoch, as Ctrl-C would."""

    def train(self, epoch=0, seed=0):
        if epoch == 2:
            raise KeyboardInterrupt
        return super().train(epoch, seed)


def test_a_network_learns_and_the_record_says_how():
    how = training.Recipe(
        epochs=8, batch=32, rate=0.05, test_eps=0.1, test_images=64, test_every=4, bfloat16=False
    )
    _, rows = trained(how=how)
    assert list(rows["epoch"]) == list(range(1, 9))
    assert rows["loss"].iloc[-1] < 0.7 * rows["loss"].iloc[0]
    assert rows["clean"].iloc[-1] > 0.9
    assert list(rows["clean"].notna()) == [False, False, False, True] * 2
    assert (rows["adversarial"].dropna() <= rows["clean"].dropna()).all()
    assert (rows["images_per_second"] > 0).all()


def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(tmp_path):
    unbroken, rows = trained(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", source=Interrupted())
    resumed, again = trained(tmp_path / "b")
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(resumed)[name]), name
    same = ["epoch", "loss", "clean", "adversarial", "rate"]
    assert rows[same].equals(again[same])


def test_the_average_is_what_is_tested_and_kept(monkeypatch):
    """Against the definition: a_0 = w_0, a <- d a + (1 - d) w after every step."""
    tested, latest = [], []
    step = torch.optim.SGD.step

    def recorded(optimizer, *args, **kwargs):
        step(optimizer, *args, **kwargs)
        latest.append(optimizer.param_groups[0]["params"][0].detach().clone())

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    monkeypatch.setattr(
        training,
        "_tested",
        lambda net, test, how: tested.append(next(net.parameters()).clone()) or {},
    )
    expected = next(network(classes=4).parameters()).clone()
    net, _ = trained()
    for k, value in enumerate(latest):
        decay = min(0.9, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(next(net.parameters()), expected)
    torch.testing.assert_close(tested[-1], expected)
    assert not torch.allclose(expected, latest[-1], atol=1e-5)


def test_a_warm_start_trains_on_clean_images_and_costs_no_attack(monkeypatch):
    radii = []
    perturbed = training.attacks.perturbed

    def seen(net, pixels, labels, **how):
        radii.append(how["eps"])
        return perturbed(net, pixels, labels, **how)

    monkeypatch.setattr(training.attacks, "perturbed", seen)
    monkeypatch.setattr(training, "_tested", lambda *_: {})
    _, rows = trained()
    batches = len(Dots().train()) // TOY.batch
    assert len(radii) < 3 * batches + 1  # the first of four epochs is clean
    assert radii == sorted(radii)
    assert max(radii) == TOY.eps
    assert rows["eps"].tolist() == [0.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("accuracies", "still"),
    [([0.3, 0.5, 0.5, 0.5], True), ([0.3, 0.4, 0.5, 0.6], False), ([0.5, 0.5], False)],
)
def test_a_plateau_is_three_robust_accuracies_within_one_standard_error(accuracies, still):
    how = training.Recipe(epochs=len(accuracies), eps=0.5, test_images=100)
    rows = [
        {"epoch": k + 1, "clean": 0.9, "adversarial": value} for k, value in enumerate(accuracies)
    ]
    assert training.plateau(rows, how) is still
    ending = training.ending(rows, how)
    assert ("robust accuracy stood still" in ending) is still
    assert f"{accuracies[-1]:.3f})" in ending


def test_training_stops_when_robust_accuracy_stands_still(monkeypatch):
    monkeypatch.setattr(training, "_tested", lambda *_: {"clean": 1.0, "adversarial": 0.5})
    how = dataclasses.replace(TOY, epochs=12, patience=2)
    _, rows = trained(how=how)
    # the first test under the full radius is that of epoch 6; two more bring nothing better
    assert len(rows) == 8


def test_a_loss_that_is_not_finite_stops_with_one_error(tmp_path):
    with pytest.raises(UserError, match=r"diverged.*smaller learning rate"):
        trained(tmp_path, how=dataclasses.replace(TOY, rate=1e12, average=0.0))


@pytest.mark.parametrize(
    "wrong", [{"average": 1.0}, {"warm": 0.8, "ramp": 0.4}, {"warm": -0.1}, {"average": -1.0}]
)
def test_a_recipe_out_of_range_is_refused(wrong):
    with pytest.raises(UserError, match="expected"):
        training.Recipe(epochs=1, **wrong)


@pytest.mark.faults
def test_a_killed_process_goes_on_with_identical_weights(tmp_path, counted):
    def start(folder, **options):
        how = dataclasses.asdict(dataclasses.replace(TOY, epochs=12))
        command = [sys.executable, HERE / "train_toy.py", folder, json.dumps(how)]
        return subprocess.Popen(command, **options)

    assert start(tmp_path / "whole").wait(240) == 0
    process = start(tmp_path / "killed")
    state = tmp_path / "killed" / "toy.state.safetensors"
    deadline = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "final.safetensors").exists()
    done = len(json.loads(checkpoints.metadata(state)["rows"]))
    assert 1 <= done < 12
    assert start(tmp_path / "killed").wait(240) == 0
    files = [tmp_path / run / "final.safetensors" for run in ("whole", "killed")]
    counted(1, files[0].read_bytes() == files[1].read_bytes())


def test_two_processes_go_on_from_one_and_end_with_the_weights_of_one(tmp_path):
    """Random shifts, flips and starts of attacks are drawn for whole batches."""
    how = dataclasses.replace(TOY, shift=3, flip=True)
    whole, killed = (without_dropout(network(classes=4)) for _ in range(2))
    training.train(whole, Dots(), how, progress=False)
    with pytest.raises(KeyboardInterrupt):
        training.train(killed, Interrupted(), how, folder=tmp_path, progress=False)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(HERE / "train_toy.py"), str(tmp_path), json.dumps(dataclasses.asdict(how)), "plain",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    shares = [checkpoints.read(tmp_path / f"final{rank}.safetensors") for rank in range(2)]
    for name, value in whole.body.state_dict().items():
        assert torch.equal(shares[0][name], shares[1][name])
        # weights are stored in half precision
        torch.testing.assert_close(shares[0][name].float(), value, rtol=2e-3, atol=2e-4)


def test_validation_takes_images_of_all_classes_from_an_ordered_set(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "_tested", lambda _, test, how: seen.append(test) or {})
    ordered = Dots()
    val = ordered.val()
    sorted_by_class = val.take(val.labels.argsort())
    monkeypatch.setattr(ordered, "val", lambda: sorted_by_class)
    how = training.Recipe(epochs=1, batch=64, test_images=32, bfloat16=False)
    training.train(network(classes=4), ordered, how, progress=False)
    assert set(seen[0].labels.tolist()) == {0, 1, 2, 3}


def test_two_halves_of_a_batch_are_the_batch():
    """The mean over processes of the gradients of batch[rank::world] is the whole's gradient."""
    net, images = network(classes=4).eval(), Dots().train()
    pixels = images.pixels[:32].float() / 255

    def gradient(index):
        net.zero_grad()
        logits = net(pixels[index])
        torch.nn.functional.cross_entropy(logits, images.labels[:32][index]).backward()
        return net.body.features[0].weight.grad.clone()

    both = (gradient(slice(0, None, 2)) + gradient(slice(1, None, 2))) / 2
    torch.testing.assert_close(both, gradient(slice(None)))


def test_batchnorm_sees_no_image_of_the_attack(monkeypatch):
    net = network(architecture="googlenet", width=0.06, classes=4)
    modes = []
    original = net.body.conv1.bn.forward
    net.body.conv1.bn.forward = lambda x: modes.append(net.body.conv1.bn.training) or original(x)
    how = training.Recipe(epochs=1, batch=64, eps=0.5, steps=3, test_images=1, bfloat16=False)
    training.train(net, Dots(128), how, progress=False)
    # one pass more measures how many images fit into memory
    assert modes[1:9] == [False, False, False, True] * 2


def test_rates_follow_the_schedule():
    one = training.Recipe(epochs=1, rate=0.4, warmup=0.25)
    assert one.rate_at(0.125) == pytest.approx(0.2)
    assert one.rate_at(0.25) == pytest.approx(0.4)
    assert one.rate_at(0.625) == pytest.approx(0.2)
    assert one.rate_at(1.0) == pytest.approx(0.0, abs=1e-6)
    step = training.Recipe(epochs=1, rate=0.4, schedule="step")
    assert [step.rate_at(p) for p in (0.0, 0.4, 0.7)] == pytest.approx([0.4, 0.04, 0.004])


def test_the_radius_grows_over_the_ramp():
    how = training.Recipe(epochs=1, eps=0.8, ramp=0.5)
    assert [how.eps_at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.0, 0.4, 0.8, 0.8])
    assert training.Recipe(epochs=1, eps=0.8).eps_at(0.0) == 0.8


def test_augmentation_shifts_mirrors_and_flips_every_image_by_its_own_amount():
    pixels = torch.arange(5 * 6 * 7).reshape(1, 1, 15, 14).remainder(251).to(torch.uint8)
    pixels = pixels.expand(40, 3, -1, -1).contiguous()
    how = training.Recipe(epochs=1, shift=3, flip=True)
    found = training.augmented(pixels, how, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(pixels.float(), (3, 3, 3, 3), mode="reflect") / 255
    crops = {
        crop.numpy().tobytes()
        for i in range(7)
        for j in range(7)
        for crop in (padded[0, :, i : i + 15, j : j + 14].contiguous(),)
        for crop in (crop, crop.flip(2).contiguous())
    }
    got = [image.contiguous().numpy().tobytes() for image in found]
    assert set(got) <= crops
    assert len(set(got)) > 15
    plain = training.augmented(pixels, training.Recipe(epochs=1), torch.Generator())
    torch.testing.assert_close(plain, pixels.float() / 255)


def test_a_recipe_is_the_studys_then_the_architectures_then_the_networks_then_ours():
    study = manifest.study("iconworld")
    google = manifest.network("iconworld-googlenet-r-1")
    assert training.recipe(google, study).rate == study.training["rate"]
    assert training.recipe(google, study).eps == google.eps
    alex = manifest.network("iconworld-alexnet-s-1")
    assert training.recipe(alex, study).rate == study.training["alexnet"]["rate"]
    assert training.recipe(alex, study).eps == 0
    assert training.recipe(alex, study, epochs=3).epochs == 3
    with pytest.raises(UserError, match=r"unknown training parameter\(s\) \['epoch'\]; valid"):
        training.recipe(alex, study, epoch=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -1.0}, "eps = -1.0"),
        ({"epochs": 0}, "epochs, batch"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'; valid: one-cycle, step"),
    ],
)
def test_wrong_recipes_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        training.Recipe(**{"epochs": 1} | change)


def test_a_state_of_another_recipe_or_a_damaged_one_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, source=Interrupted())
    other = training.Recipe(epochs=5, batch=32, bfloat16=False)
    with pytest.raises(UserError, match="of a run with another recipe"):
        trained(tmp_path, how=other)
    other = Dots()
    other.digest = "other dots"
    with pytest.raises(UserError, match=r"is of a run on other images; delete it"):
        trained(tmp_path, source=other)
    state = tmp_path / "toy.state.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"is damaged.*delete it"):
        trained(tmp_path)


def test_a_call_that_was_killed_keeps_its_finished_networks(monkeypatch, tmp_path):
    """Two networks; the second is interrupted. The same call again trains that one alone."""
    epochs, names = [], ["iconworld-alexnet-s-1", "iconworld-alexnet-r-1"]

    class Counted(Dots):
        def __init__(self, stops):
            super().__init__()
            self.stops = stops

        def train(self, epoch=0, seed=0):
            epochs.append(epoch)
            if len(epochs) == self.stops:
                raise KeyboardInterrupt
            return super().train(epoch, seed)

    published, build = [], zoo.untrained

    def named(entry, seed):
        made = toy_entry(classes=4)
        return build(dataclasses.replace(made, name=entry.name), seed)

    monkeypatch.setattr(training, "STATES", tmp_path)
    monkeypatch.setattr(training, "recipe", lambda *_, **__: TOY)
    monkeypatch.setattr(training.studies, "source", lambda *_: Counted(6))
    monkeypatch.setattr(training.zoo, "untrained", named)
    monkeypatch.setattr(training, "publish", lambda net, report: published.append(report))

    with pytest.raises(KeyboardInterrupt):
        training.train_study("iconworld", networks=names, device="cpu")
    assert epochs == [0, 1, 2, 3, 0, 1]
    training.train_study("iconworld", networks=names, device="cpu")
    assert epochs == [0, 1, 2, 3, 0, 1, 1, 2, 3]
    assert [report["network"] for report in published] == [names[0], *names]
    assert list(tmp_path.glob("*.safetensors")) == []


def test_bfloat16_trains_as_well():
    how = training.Recipe(
        epochs=8, batch=32, rate=0.05, test_images=64, test_every=8, bfloat16=True
    )
    assert trained(how=how)[1]["clean"].iloc[-1] > 0.9


def test_a_published_network_is_loaded_with_the_hash_of_its_record(tmp_path, monkeypatch):
    from robustbias import training

    folder = tmp_path / "data_manifest" / "networks"
    folder.mkdir(parents=True)
    (folder / "toy.toml").write_text(
        '[network.toy]\ntitle = "Toy"\narchitecture = "alexnet"\nregime = "standard"\n'
        'classes = 4\nsize = 64\nlayers = []\ndataset = "d"\n'
        'weights = "checkpoints/toy.safetensors"\n'
        'licence = "MIT"\nsource = "s"\nwidth = 0.05\nstem = 4\n'
    )
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    manifest._network_tables.cache_clear()
    net, rows = trained()
    report = training.record(net, TOY, rows, "digest")
    digest = training.publish(net, report)
    try:
        own = manifest.network("toy")
        assert own.sha256 == digest
        loaded = zoo.load(own)
        for name, value in net.body.state_dict().items():
            torch.testing.assert_close(loaded.body.state_dict()[name], value, atol=2e-3, rtol=1e-3)
        table = training.records(["toy"])
        assert list(table["epoch"]) == [1, 2, 3, 4]
        assert set(table["network"]) == {"toy"}
        assert report["recipe"]["eps"] == 0.5
        assert report["data"] == "digest"
        assert len(report["commit"]) >= 7
    finally:
        manifest._network_tables.cache_clear()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["rate", "eps", "ramp", "average"])
def test_a_training_parameter_is_finite(name, value):
    with pytest.raises(UserError, match=f"{name} = .*expected a finite number"):
        training.recipe(
            manifest.network("iconworld-alexnet-r-1"), manifest.study("iconworld"), **{name: value}
        )


@pytest.mark.parametrize(
    ("name", "subset"),
    [("tiny-imagenet-painter", "entry-level"), ("tiny-imagenet-alexnet-s-1", "all")],
)
def test_a_network_trains_on_its_own_classes_else_on_its_studys(name, subset, monkeypatch):
    def stopped(study, *_):
        raise InterruptedError(study.subset)

    monkeypatch.setattr(training.studies, "source", stopped)
    with pytest.raises(InterruptedError, match=f"^{subset}$"):
        training.train_study("tiny-imagenet", networks=[name], device="cpu")
