"""PGD against closed forms, against independent libraries, and against its own promises."""

import warnings

import pytest
import torch
from torch import nn

from robustbias import attacks
from robustbias.utils import UserError
from toy_networks import small


class Linear(nn.Module):
    """logits = pixels . weights: the best attack is known in closed form."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, pixels):
        return pixels.flatten(1) @ self.weight.T


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return 0.3 + 0.4 * torch.rand(12, 3, 8, 8, generator=generator)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_on_a_linear_network_pgd_finds_the_best_perturbation(images, norm):
    weight = torch.randn(2, 192, generator=generator())
    network, labels, eps = Linear(weight), torch.zeros(12, dtype=torch.long), 0.05
    found = attacks.pgd(
        network, images, labels, norm=norm, eps=eps, steps=20, step_size=eps, generator=generator()
    )
    away = weight[1] - weight[0]
    best = away / away.norm() if norm == "l2" else away.sign()
    torch.testing.assert_close(
        (found.pixels - images).flatten(1), (eps * best).expand(12, -1), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(found.norm, torch.full((12,), eps), atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("eps", [0.1, 2.0])
def test_images_stay_in_the_ball_and_in_the_box(images, norm, eps):
    found = attacks.pgd(
        small(), images, torch.arange(12) % 4, norm=norm, eps=eps, steps=4, generator=generator()
    )
    assert found.norm.max() <= eps * (1 + 1e-5)
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    p = 2 if norm == "l2" else torch.inf
    torch.testing.assert_close(found.norm, (found.pixels - images).flatten(1).norm(p, dim=1))


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_random_starts_fill_the_ball(norm):
    pixels = torch.full((4000, 1, 1, 2), 0.5)
    delta = attacks.random_start(norm, pixels.shape, 0.2, generator(), pixels.device)
    p = 2 if norm == "l2" else torch.inf
    length = delta.flatten(1).norm(p, dim=1)
    assert length.max() <= 0.2 * (1 + 1e-6)
    # L2 starts are uniform in length, Linf starts in volume: (r / eps)^2 of them lie within r
    share = 0.5 if norm == "l2" else 0.25
    assert (length < 0.1).float().mean() == pytest.approx(share, abs=0.03)
    assert delta.mean().abs() < 0.01


def test_more_restarts_and_more_steps_never_help_the_defender(images):
    network, labels = small(), small()(images).argmax(1)

    def fooled(**options):
        found = attacks.pgd(
            network, images, labels, eps=0.3, generator=generator(), **{"steps": 3} | options
        )
        return found.fooled

    once, often = fooled(), fooled(restarts=5)
    assert (often | ~once).all()  # the first restart is the same run
    assert fooled(steps=30).sum() >= fooled(steps=1).sum()


def test_the_worst_of_all_steps_is_kept(images):
    """A step so long that every other image is bad: the good one in between must be kept."""
    weight = torch.randn(2, 192, generator=generator())
    network = Linear(weight)
    labels = network(images).argmax(1)
    seen = []
    attacks.perturbed(
        network, images, labels, norm="l2", eps=0.4, steps=6, step_size=3.0,
        generator=generator(), visit=lambda x, logits: seen.append((x.detach(), logits.detach())),
    )  # fmt: skip
    found = attacks.pgd(
        network, images, labels, eps=0.4, steps=6, step_size=3.0, generator=generator()
    )
    margins = torch.stack([attacks._margin(logits, labels) for _, logits in seen])
    own = attacks._margin(network(found.pixels), labels)
    assert (own <= margins.amin(0) + 1e-6).all()
    assert torch.equal(found.fooled, own < 0)


def test_eps_zero_is_the_clean_image(images):
    labels = small()(images).argmax(1)
    found = attacks.pgd(small(), images, labels, eps=0.0, steps=5)
    assert torch.equal(found.pixels, images)
    assert not found.fooled.any()
    assert found.norm.max() == 0


def test_the_network_is_left_as_it_was(images):
    network = small().train()
    before = {n: v.clone() for n, v in network.state_dict().items()}
    attacks.pgd(network, images, torch.zeros(12, dtype=torch.long), eps=0.5, steps=3)
    assert all(torch.equal(before[n], v) for n, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert all(m.training for m in network.modules())

    def fail(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        attacks.perturbed(
            network, images, torch.zeros(12, dtype=torch.long), norm="l2", eps=0.5, steps=1,
            visit=fail,
        )  # fmt: skip
    assert all(m.training for m in network.modules())


def test_the_same_generator_gives_the_same_attack(images):
    labels = torch.zeros(12, dtype=torch.long)
    runs = [
        attacks.pgd(small(), images, labels, eps=0.5, steps=2, generator=generator(7)).pixels
        for _ in range(2)
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "eps = -0.1; expected a radius of at least 0"),
        ({"steps": 0}, "steps = 0"),
        ({"norm": "l1"}, "unknown norm 'l1'; valid: l2, linf"),
        ({"restarts": 0}, "0 restarts"),
    ],
)
def test_wrong_requests_are_refused(images, change, message):
    with pytest.raises(UserError, match=message):
        attacks.pgd(
            small(), images, torch.zeros(12, dtype=torch.long), **{"eps": 0.1, "steps": 1} | change
        )


def test_no_images_are_refused():
    with pytest.raises(UserError, match="0 images"):
        attacks.pgd(
            small(), torch.empty(0, 3, 8, 8), torch.empty(0, dtype=torch.long), eps=0.1, steps=1
        )


# -- the evaluation ----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_on_a_linear_network_apgd_finds_the_best_perturbation(images, norm):
    class Sure(Linear):  # of class 0, so that every path goes to its end
        def forward(self, pixels):
            return super().forward(pixels) + torch.tensor([100.0, 0.0])

    weight, eps = torch.randn(2, 192, generator=generator()), 0.05
    found = attacks.apgd(
        Sure(weight), images, torch.zeros(12, dtype=torch.long), norm=norm, eps=eps, steps=40,
        loss=lambda logits, *_: logits[:, 1] - logits[:, 0], generator=generator(),
    )  # fmt: skip
    away = weight[1] - weight[0]
    best = away / away.norm() if norm == "l2" else away.sign()
    torch.testing.assert_close(
        (found - images).flatten(1), (eps * best).expand(12, -1), atol=2e-4, rtol=0
    )


def test_checkpoints_come_ever_closer():
    assert sorted(attacks._checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("work", ["worst_case", "random_search"])
@pytest.mark.parametrize("norm", attacks.NORMS)
@pytest.mark.parametrize("eps", [0.1, 2.0])
def test_evaluation_stays_in_the_ball_and_in_the_box_and_says_who_is_fooled(
    images, work, norm, eps
):
    network, labels = small(), torch.arange(12) % 4
    steps = {"steps": 4} if work == "worst_case" else {"queries": 20}
    found = getattr(attacks, work)(
        network, images, labels, norm=norm, eps=eps, generator=generator(), **steps
    )
    assert found.norm.max() <= eps * (1 + 1e-5)
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1
    with torch.no_grad():
        assert torch.equal(found.fooled, network(found.pixels).argmax(1) != labels)
    assert not any(module.training for module in network.modules())


def test_evaluation_costs_at_most_six_times_pgd_on_two_losses_and_leaves_who_is_fooled(images):
    """An image that nothing fools pays for everything; one that is fooled at once, for little."""

    class Counted(nn.Module):
        seen = 0

        def forward(self, pixels):
            self.seen += len(pixels)
            logits = torch.zeros(len(pixels), 16) + 1e-6 * pixels.mean((1, 2, 3))[:, None]
            return logits + torch.eye(16)[0] * self.lead

    cost, labels, steps = Counted(), torch.zeros(12, dtype=torch.long), 20
    for cost.lead, most in ((1.0, 6 * 2.25 * steps), (-1.0, 2)):
        cost.seen = 0
        found = attacks.worst_case(cost, images, labels, norm="l2", eps=0.5, steps=steps)
        assert cost.seen / len(images) <= most
        assert found.fooled.all() == (cost.lead < 0)


def test_the_worst_case_of_a_restart_is_no_better_for_the_defender(trained):
    network, images, labels = trained
    how = {"norm": "l2", "eps": 0.3, "steps": 4}
    once, often = (
        attacks.worst_case(
            network, images[:80], labels[:80], generator=generator(), restarts=n, **how
        ).fooled
        for n in (1, 3)
    )
    assert (often | ~once).all()


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.3), ("linf", 0.02)])
def test_the_union_of_independent_attacks_takes_no_more_than_one_image_in_a_hundred(
    trained, norm, eps
):
    import torchattacks

    network, images, labels = trained
    images, labels = images[:200], labels[:200]
    ours = ~attacks.worst_case(
        network, images, labels, norm=norm, eps=eps, steps=20, generator=generator()
    ).fooled
    kind, left = {"l2": "L2", "linf": "Linf"}[norm], ours.clone()
    how = {"eps": eps, "norm": kind, "seed": 0}
    others = [
        torchattacks.APGD(network, steps=20, loss="ce", **how),
        torchattacks.APGDT(network, steps=20, n_classes=4, **how),
        torchattacks.FAB(network, steps=10, n_classes=4, **how),
        torchattacks.Square(network, n_queries=100, **how),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for other in others:
            found = other(images, labels).detach()
            near = (found - images).flatten(1).norm(2 if norm == "l2" else torch.inf, dim=1)
            with torch.no_grad():
                wrong = network(found).argmax(1) != labels
            left &= ~(wrong & (near <= eps * (1 + 1e-4)))
    assert 0 < ours.float().mean() < 0.99
    assert (ours.sum() - left.sum()) / len(images) <= 0.01


# -- independent libraries ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """A network that tells 500 noisy images of 4 kinds apart, with the images it is right on."""
    g = generator(3)
    means = 0.5 + 0.12 * torch.randn(4, 3, 8, 8, generator=g)
    labels = torch.arange(500) % 4
    images = (means[labels] + 0.08 * torch.randn(500, 3, 8, 8, generator=g)).clamp(0, 1)
    network = small().train()
    optimizer = torch.optim.SGD(network.parameters(), 0.2, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.eval()
    assert (network(images).argmax(1) == labels).float().mean() > 0.95
    return network, images, labels


def theirs(library, norm, network, images, labels, eps, steps, size):
    """Adversarial images of another library, with the same radius, steps and step length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "torchattacks":
            import torchattacks

            if norm == "l2":
                attack = torchattacks.PGDL2(network, eps=eps, alpha=size, steps=steps)
            else:
                attack = torchattacks.PGD(network, eps=eps, alpha=size, steps=steps)
            return attack(images, labels)
        import foolbox

        kind = foolbox.attacks.L2PGD if norm == "l2" else foolbox.attacks.LinfPGD
        attack = kind(abs_stepsize=size, steps=steps, random_start=True)
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        return attack(model, images, labels, epsilons=eps)[1]


@pytest.mark.parametrize("library", ["torchattacks", "foolbox"])
@pytest.mark.parametrize(
    ("norm", "eps"), [("l2", 0.3), ("l2", 0.45), ("linf", 0.02), ("linf", 0.05)]
)
def test_pgd_is_never_weaker_than_that_of_an_independent_library(trained, library, norm, eps):
    network, images, labels = trained
    steps, size = 10, 2.5 * eps / 10
    torch.manual_seed(0)
    other = theirs(library, norm, network, images, labels, eps, steps, size)
    with torch.no_grad():
        peer = (network(other).argmax(1) == labels).float().mean().item()
    found = attacks.pgd(
        network, images, labels, norm=norm, eps=eps, steps=steps, step_size=size,
        generator=generator(),
    )  # fmt: skip
    ours = 1 - found.fooled.float().mean().item()
    assert 0 < ours < 0.99  # the radius is one where it matters
    assert ours <= peer + 0.01


@pytest.mark.parametrize("loss", attacks.LOSSES)
def test_either_loss_finds_the_best_perturbation_of_a_linear_network(images, loss):
    weight = torch.randn(2, 192, generator=generator())
    found = attacks.pgd(
        Linear(weight), images, torch.zeros(12, dtype=torch.long),
        norm="linf", eps=0.05, steps=10, step_size=0.05, loss=loss, generator=generator(),
    )  # fmt: skip
    best = 0.05 * (weight[1] - weight[0]).sign().view(3, 8, 8)
    torch.testing.assert_close(
        found.pixels - images, best.expand(12, -1, -1, -1), atol=1e-4, rtol=0
    )


def test_an_unknown_loss_is_refused_with_the_known_ones(images):
    with pytest.raises(UserError, match="unknown loss 'hinge'; valid: margin, cross-entropy"):
        attacks.pgd(
            small(), images, torch.zeros(12, dtype=torch.long), eps=1.0, steps=1, loss="hinge"
        )


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_a_batch_that_does_not_fit_into_memory_is_attacked_in_parts_alike(norm, monkeypatch):
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.rand(7, 3, 4, 4)
    labels = torch.arange(7) % 3
    how = {"norm": norm, "eps": 0.3, "steps": 4}
    whole = attacks.pgd(network, images, labels, generator=generator(), **how)
    monkeypatch.setattr(attacks, "fitting", lambda *_, **__: 3)
    parts = attacks.pgd(network, images, labels, generator=generator(), **how)
    torch.testing.assert_close(parts.pixels, whole.pixels)
