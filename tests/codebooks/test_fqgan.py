"""FQGAN by hand, against brute force and an independent library, and as a panel, on tokenizers that know nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlab import guard, pictures, spec, views
from tokenlab.codebooks import fqgan
from tokenlab.codebooks.fqgan import FAR, FactorizedQuantizer, FactorizedTokenizer, Plan
from tokenlab.codebooks.quantizers import TokenBatch
from tokenlab.codebooks.stats import CodebookStats
from tokenlab.errors import UserError


def seeded(make, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def by_hand(**weights: float) -> FactorizedQuantizer:
    """Two books in the plane: east and north; north, west and one between north and east."""
    quantizer = FactorizedQuantizer(4, (2, 3), **weights)
    with torch.no_grad():
        quantizer.books[0].copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        quantizer.books[1].copy_(torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]]))
    return quantizer


# ---- the quantiser


def test_two_tokens_by_hand():
    quantizer = by_hand().eval()
    # Token 1 points east and west, token 2 north (and is short) and somewhat north of east.
    out = quantizer(torch.tensor([[[3.0, 1.0, -2.0, 0.1], [0.01, 0.05, 7.0, 7.0]]]))
    assert out.ids.tolist() == [[[0, 1], [1, 2]]]
    torch.testing.assert_close(out.zq, torch.tensor([[[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.6, 0.8]]]))
    assert out.loss == 0
    torch.testing.assert_close(quantizer.lookup(out.ids), out.zq)


def test_the_loss_by_hand():
    # Vectors (0.8, 0.6) -> (1, 0) and (-0.8, 0.6) -> (-1, 0): squared errors 0.04 + 0.36, over two numbers 0.2.
    # Codebook and commitment: 2 * (1 + 0.25) * 0.2; the two codes are opposite, so the squared cosine is 1.
    z = torch.tensor([[[0.8, 0.6, -0.8, 0.6]]])
    assert by_hand(entropy=0.0).train()(z).loss.item() == pytest.approx(0.5 + 0.1)
    assert by_hand(entropy=0.0, disentangle=0.0).train()(z).loss.item() == pytest.approx(0.5)
    assert by_hand(entropy=0.0, commitment=1.0, disentangle=0.0).train()(z).loss.item() == pytest.approx(0.8)
    # Distances over 0.01: one token is sure, and that is all there is, so the entropy term is 0 - 0.
    assert by_hand(entropy=1.0, disentangle=0.0).train()(z).loss.item() == pytest.approx(0.5, abs=1e-5)


def test_the_entropy_term_by_hand():
    far = 10.0
    both_used = torch.tensor([[0.0, far], [far, 0.0]])
    one_used = torch.tensor([[0.0, far], [0.0, far]])
    unsure = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    assert fqgan.entropy_term(both_used).item() == pytest.approx(-math.log(2), abs=1e-5)
    assert fqgan.entropy_term(one_used).item() == pytest.approx(0.0, abs=1e-5)
    assert fqgan.entropy_term(unsure).item() == pytest.approx(0.0, abs=1e-5)
    # exp(-0.01 ln 3 / 0.01) = 1/3: shares 3/4 and 1/4, for the second token the other way round; their mean is even.
    skewed = torch.tensor([[0.0, 0.01 * math.log(3)], [0.01 * math.log(3), 0.0]])
    one = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert fqgan.entropy_term(skewed).item() == pytest.approx(one - math.log(2), abs=1e-5)


def test_squared_cosines_by_hand():
    east, north, between = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.6, 0.8]])
    assert fqgan.squared_cosines([east, -east]).item() == 1.0
    assert fqgan.squared_cosines([east, north]).item() == 0.0
    assert fqgan.squared_cosines([east, between]).item() == pytest.approx(0.36)
    assert fqgan.squared_cosines([east, north, between]).item() == pytest.approx((0 + 0.36 + 0.64) / 3)
    two_tokens = [torch.cat((east, east)), torch.cat((east, north))]
    assert fqgan.squared_cosines(two_tokens).item() == 0.5
    assert fqgan.squared_cosines([east]).item() == 0.0


def test_disentangling_reaches_codes_and_vectors():
    def gradients(weight: float) -> tuple[torch.Tensor, torch.Tensor]:
        quantizer = by_hand(entropy=0.0, disentangle=weight).train()
        z = torch.tensor([[[0.8, 0.6, 0.6, 0.8]]], requires_grad=True)
        quantizer(z).loss.backward()
        return quantizer.books[0].grad, z.grad

    (codes, vectors), (free_codes, free_vectors) = gradients(1.0), gradients(0.0)
    # d (c . e)^2 for c = (1, 0) and e = (0.6, 0.8): 2 * 0.6 * 0.8 along north.
    torch.testing.assert_close((codes - free_codes)[0], torch.tensor([0.0, 0.96]))
    torch.testing.assert_close((codes - free_codes)[1], torch.zeros(2))  # not chosen
    assert (vectors - free_vectors).norm() > 0.1


def test_the_decoders_gradient_goes_straight_through_to_the_vectors():
    quantizer = by_hand(entropy=0.0).train()
    z = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]], requires_grad=True)
    quantizer(z).zq[..., 1].sum().backward()
    assert z.grad.tolist() == [[[0.0, 1.0, 0.0, 0.0]]]
    assert all(book.grad is None for book in quantizer.books)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3), width=st.integers(2, 5))
def test_against_brute_force(seed, sizes, width):
    rng = np.random.default_rng(seed)
    quantizer = seeded(lambda: FactorizedQuantizer(width * len(sizes), tuple(sizes)), seed).eval()
    z = rng.normal(size=(2, 3, width * len(sizes)))
    out = quantizer(torch.from_numpy(z).float())
    for b, n, h in itertools.product(range(2), range(3), range(len(sizes))):
        vector = z[b, n, h * width : (h + 1) * width]
        book = quantizer.books[h].detach().double().numpy()
        distances = [((vector / np.linalg.norm(vector) - c / np.linalg.norm(c)) ** 2).sum() for c in book]
        assert distances[out.ids[b, n, h]] <= min(distances) + 1e-5
    assert out.zq.norm(dim=-1).numpy() == pytest.approx(math.sqrt(len(sizes)), rel=1e-4)


def test_the_same_ids_as_the_library_with_the_same_books():
    from vector_quantize_pytorch import VectorQuantize

    quantizer = seeded(lambda: FactorizedQuantizer(16, (32, 32))).eval()
    library = VectorQuantize(
        8, 32, heads=2, separate_codebook_per_head=True, codebook_dim=8, use_cosine_sim=True
    ).eval()
    library.project_in = library.project_out = torch.nn.Identity()
    library.codebook = torch.stack([quantizer.codebook(h).detach() for h in range(2)])
    z = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(1))
    _, ids, _ = library(z)
    assert torch.equal(quantizer(z).ids, ids)
    assert torch.equal(quantizer.frozen()(z)[1], ids)
    assert torch.equal(quantizer.logits(z).argmax(-1), ids)


def test_dead_codes_move_onto_vectors_and_others_stay():
    quantizer = by_hand().train()
    quantizer(torch.tensor([[[1.0, 0.0, 0.0, 1.0]]]))  # uses code 0 of both books
    before = [book.detach().clone() for book in quantizer.books]
    offered = torch.tensor([[0.0, -3.0, 0.0, -5.0]])
    assert quantizer.reset(offered, torch.Generator().manual_seed(0)) == 3
    for book, old in zip(quantizer.books, before, strict=True):
        assert torch.equal(book[0], old[0])
        assert all(torch.equal(row, torch.tensor([0.0, -1.0])) for row in book[1:])
    assert quantizer.reset(offered, torch.Generator()) == 5  # nothing was seen since


def test_bits_and_look_ups_by_hand():
    assert (Plan((64, 64)).bits, Plan((64, 64)).lookups) == (12, 128)
    assert (Plan((4096,)).bits, Plan((4096,)).lookups) == (12, 4096)
    assert (Plan((16, 16, 16)).bits, Plan((16, 16, 16)).lookups) == (12, 48)
    assert Plan((256, 256)).lookups == Plan((512,)).lookups


# ---- the tokenizer


@pytest.fixture(scope="module")
def toy() -> FactorizedTokenizer:
    return fqgan.rounded(seeded(lambda: FactorizedTokenizer(Plan((8, 4), base=8))))


def test_pictures_of_other_sizes(toy):
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    tokens, out = toy.encode(x)
    assert tokens.shape == (2, 3) and tokens.ids.shape == (2, 6, 2)
    assert (tokens.ids >= 0).all() and (tokens.ids < torch.tensor([8, 4])).all()
    torch.testing.assert_close(toy.decode(tokens), toy(x)[0])
    assert toy.decode(tokens).shape == x.shape
    assert toy.bits(tokens).tolist() == [30, 30]


def test_keeping_leading_branches_zeroes_the_others(toy):
    tokens = TokenBatch(torch.tensor([[[1, 2]] * 4]), "grid", (2, 2))
    zq = toy.quantizer.lookup(tokens.ids)
    zq[..., 8:] = 0
    torch.testing.assert_close(toy.decode(tokens, keep=1), toy.decode(zq, shape=(2, 2)))
    torch.testing.assert_close(toy.decode(tokens, keep=2), toy.decode(tokens))


def test_a_branch_changes_what_its_code_changes(toy):
    """Swapping branch 2 leaves the ids of branch 1 what they are, and filling replaces exactly the other branches."""
    parts = [torch.full((1, 4, 2), 1.0), torch.arange(8.0).view(1, 4, 2)]
    means = [torch.tensor([5.0, 6.0]), torch.tensor([7.0, 8.0])]
    generator = torch.Generator().manual_seed(0)
    first, second, third = (fqgan.filled(parts, 0, means, fill, generator) for fill in fqgan.FILLINGS)
    for zq in (first, second, third):
        assert torch.equal(zq[..., :2], parts[0])
    assert torch.equal(first[..., 2:], means[1].expand(1, 4, 2))
    assert sorted(second[0, :, 2:].tolist()) == parts[1][0].tolist()
    assert torch.equal(third[..., 2:], torch.zeros(1, 4, 2))


def test_without_codes_nothing_is_lost_between_encoder_and_decoder():
    model = seeded(lambda: FactorizedTokenizer(Plan((), base=8))).eval()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens, out = model.encode(x)
    assert torch.equal(out.zq, model.vectors(x)) and tokens.ids.shape == (1, 4, 0)


# ---- representation learning


def test_info_nce_by_hand():
    same = torch.eye(2)
    assert fqgan.info_nce(same, same).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert fqgan.info_nce(same, same.flip(0)).item() == pytest.approx(math.log(1 + math.e))
    assert fqgan.info_nce(3 * same, 7 * same).item() == pytest.approx(math.log(1 + math.exp(-1)))  # cosines
    # The floor: all others opposite, which only works for B = 2, is ln(1 + e^-2).
    best = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert fqgan.info_nce(best, best).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_a_teacher_changes_what_is_learned():
    bank = np.random.default_rng(0).integers(256, size=(8, 16, 16, 3), dtype=np.uint8)
    plan = Plan((4, 4), base=8, steps=2, batch=4)
    asked = []

    def teacher(crops: np.ndarray) -> torch.Tensor:
        asked.append(crops.shape)
        return torch.from_numpy(crops.reshape(len(crops), -1)[:, :8]).float()

    plain, taught = fqgan.train(plan, bank), fqgan.train(plan, bank, teacher)
    assert asked == [(1, 16, 16, 3), (4, 16, 16, 3), (4, 16, 16, 3)]
    assert not torch.equal(plain.adapters[1][1].weight, taught.adapters[1][1].weight)


# ---- FAR


@pytest.fixture(scope="module")
def writer() -> FAR:
    model = seeded(lambda: FAR((3, 2), classes=2, length=3, d=16, depth=1, head_depth=1, heads=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # as initialised, all codes are nearly as likely
            parameter.mul_(3)
    return model.requires_grad_(False)


def test_the_probabilities_of_all_pictures_sum_to_one(writer):
    tokens = list(itertools.product(range(3), range(2)))
    everything = torch.tensor(list(itertools.product(tokens, repeat=3)))
    assert everything.shape == (216, 3, 2)
    for known in range(3):
        nll = writer.nll(everything, torch.full((216,), known)).sum((0, 2))
        assert (-nll.double()).exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert nll.std() > 0.1


def test_nothing_is_predicted_from_what_comes_later(writer):
    generator = torch.Generator().manual_seed(0)
    ids = torch.stack([torch.randint(size, (1, 3), generator=generator) for size in (3, 2)], -1)
    classes = torch.tensor([1])
    before = writer.nll(ids, classes)[:, 0]  # (book, position)

    def changed(position: int, book: int) -> torch.Tensor:
        other = ids.clone()
        other[0, position, book] = (other[0, position, book] + 1) % (3, 2)[book]
        return (writer.nll(other, classes)[:, 0] - before).abs() > 1e-6

    second = changed(1, 1)  # code 2 of the middle token: itself, and what follows
    assert second.tolist() == [[False, False, True], [False, True, True]]
    first = changed(1, 0)
    assert first.tolist() == [[False, True, True], [False, True, True]]


def test_independent_heads_do_not_see_the_first_code():
    model = seeded(lambda: FAR((3, 2), 1, 2, d=16, depth=1, head_depth=1, heads=2, chained=False)).eval()
    ids = torch.tensor([[[0, 1], [0, 0]]]), torch.tensor([[[2, 1], [0, 0]]])
    with torch.no_grad():
        one, two = (model.nll(x, torch.tensor([0])) for x in ids)
    assert one[1, 0, 0] == two[1, 0, 0] and one[1, 0, 1] != two[1, 0, 1]


def test_samples_come_up_as_often_as_the_model_says(writer):
    short = seeded(lambda: FAR((3, 2), 1, 1, d=16, depth=1, head_depth=1, heads=2), 3).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in short.parameters():
            parameter.mul_(2)
    n = 4000
    drawn = short.sample(torch.zeros(n, dtype=torch.int64), (1.0, 1.0), torch.Generator().manual_seed(0))
    tokens = torch.tensor(list(itertools.product(range(3), range(2))))
    expected = (-short.nll(tokens[:, None], torch.zeros(6, dtype=torch.int64)).sum((0, 2))).exp()
    for token, p in zip(tokens, expected, strict=True):
        share = (drawn[:, 0] == token).all(-1).double().mean()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_temperature_zero_is_the_likeliest_and_a_seed_says_the_rest(writer):
    classes = torch.tensor([0, 1])
    cold = [writer.sample(classes, (0, 0), torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert torch.equal(*cold)
    context = writer.contexts(cold[0][:, :0], classes)[:, -1]
    first = writer.logits(context, torch.zeros(2, 0, dtype=torch.int64))[0].argmax(-1)
    assert torch.equal(cold[0][:, 0, 0], first)
    warm = [writer.sample(classes.repeat(8), (5, 5), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(warm[0], warm[1]) and not torch.equal(warm[0], warm[2])


def test_the_factorised_head_learns_what_a_token_s_codes_share():
    rng = np.random.default_rng(0)
    first = rng.integers(4, size=(64, 2))
    ids, classes = np.stack([first, first], -1), np.zeros(64, np.int64)  # the second code repeats the first
    nats = {}
    for chained in (True, False):
        model = fqgan.train_far(ids, classes, (4, 4), 1, chained, steps=60, batch=16, rate=5e-3)
        with torch.no_grad():
            nats[chained] = model.nll(torch.from_numpy(ids), torch.from_numpy(classes)).mean((1, 2))
    assert nats[True][1] < 0.1 and nats[False][1] > 0.9


# ---- data and training


def test_halves_by_hand():
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0], image[0, 1], image[1, 0], image[1, 1] = 10, 20, 30, 40
    whole, half = fqgan.halvings(image, 2)
    assert whole is image and half.shape == (2, 2, 3)
    assert half[0, 0].tolist() == [25] * 3 and half[1, 1].tolist() == [0] * 3
    assert len(fqgan.halvings(np.zeros((500, 400, 3), np.uint8), 48)) == 3
    assert len(fqgan.halvings(np.zeros((500, 95, 3), np.uint8), 48)) == 1


def test_held_out_photographs_are_never_trained_on():
    assert not set(fqgan.TRAINING) & set(fqgan.HELD_OUT)
    assert set(fqgan.TRAINING) | set(fqgan.HELD_OUT) <= set(pictures.PHOTOS)


def test_crops_are_parts_of_their_photographs():
    found, sources = fqgan.crops(("moon", "brick"), 6, seed=1)
    assert found.shape == (6, 48, 48, 3) and set(sources.tolist()) <= {0, 1}
    again, _ = fqgan.crops(("moon", "brick"), 6, seed=1)
    assert np.array_equal(found, again)
    levels = [fqgan.halvings(pictures.load(f"photo:{name}"), 48) for name in ("moon", "brick")]
    for crop, source in zip(found, sources, strict=True):
        mirrored = (crop, crop[:, ::-1])
        assert any(_contains(level, one) for level in levels[source] for one in mirrored)


def _contains(image: np.ndarray, crop: np.ndarray) -> bool:
    rows = np.lib.stride_tricks.sliding_window_view(image[..., 0], 48, 1)
    for top, left in np.argwhere((rows == crop[0, :, 0]).all(-1)):
        if np.array_equal(image[top : top + 48, left : left + 48], crop):
            return True
    return False


def test_training_repeats_itself_and_leaves_the_global_seed_alone():
    bank, _ = fqgan.crops(("moon",), 8)
    plan = Plan((8, 8), base=8, steps=3, batch=4)
    state = torch.random.get_rng_state()
    one, two, other = (
        fqgan.train(plan, bank),
        fqgan.train(plan, bank),
        fqgan.train(dataclasses.replace(plan, seed=1), bank),
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    for key, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[key])
    assert not torch.equal(one.mix.weight, other.mix.weight)
    assert all(torch.equal(weight.half().float(), weight) for weight in one.parameters())


def test_training_makes_pictures_better():
    bank, _ = fqgan.crops(("brick", "coins"), 16)
    plan = Plan((8, 8), base=8, batch=8, rate=5e-3)
    start, end = (fqgan.train(dataclasses.replace(plan, steps=steps), bank) for steps in (1, 40))
    before, after = (fqgan.judge(model, bank) for model in (start, end))
    assert fqgan.psnr(after.errors) > fqgan.psnr(before.errors) + 0.8


def test_what_was_trained_is_not_trained_again(tmp_path):
    bank, _ = fqgan.crops(("moon",), 4)
    plan = Plan((8,), base=8, steps=1, batch=2)
    work = fqgan.Work(tmp_path)
    made, seconds = fqgan.trained(plan, bank, work)
    (path,) = tmp_path.glob("*")
    assert path.suffix == ".safetensors" and seconds > 0
    written = path.stat().st_mtime_ns
    again, same = fqgan.trained(plan, bank, fqgan.Work(tmp_path))
    assert same == seconds and path.stat().st_mtime_ns == written
    for key, weight in made.state_dict().items():
        assert torch.equal(weight, again.state_dict()[key])
    for other in (dataclasses.replace(plan, seed=1), dataclasses.replace(plan, disentangle=0.0)):
        assert fqgan.digest(other, bank) != path.stem
    assert fqgan.digest(plan, bank[:3]) != fqgan.digest(plan, bank) == path.stem


def test_words_about_the_code_do_not_make_it_another():
    one = "def f(x):\n    'Doubles.'\n    return 2 * x  # twice\n"
    assert fqgan.bare(one) == fqgan.bare("def f(x):\n    return 2 * x\n") == "def f(x):\n    return 2 * x"
    assert fqgan.bare(one) != fqgan.bare(one.replace("2", "3"))
    assert fqgan.bare("class A:\n    'Nothing.'\n") == "class A:\n    pass"


def test_a_training_that_was_stopped_leaves_nothing_behind(tmp_path):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fqgan.Work(tmp_path).keep("name", stopped, stopped)
    assert not list(tmp_path.glob("*.safetensors"))


# ---- judging


def test_psnr_by_hand():
    assert fqgan.psnr(np.array([0.01, 0.01])) == pytest.approx(20)
    assert fqgan.psnr(np.array([0.015, 0.005])) == pytest.approx(20)


def test_the_judge_counts_every_token(toy):
    images, _ = fqgan.crops(("moon",), 5)
    judged = fqgan.judge(toy, images)
    assert judged.errors.shape == judged.random.shape == (5,) and judged.ids.shape == (5, 36, 2)
    assert judged.stats.counted(0) == judged.stats.counted(1) == 180
    assert judged.used == min(judged.stats.used_fraction(0), judged.stats.used_fraction(1))
    books = [toy.quantizer.codebook(h).numpy() for h in range(2)]
    cosines = (books[0][judged.ids[..., 0]] * books[1][judged.ids[..., 1]]).sum(-1) ** 2
    assert judged.cosines == pytest.approx(cosines.mean(), rel=1e-4)


def judged(sizes: tuple[int, ...], codes: int, error: float, cosines: float = 0.1) -> fqgan.Judged:
    """A tokenizer that uses the first `codes` codes of each book evenly, with this error on each of 8 crops."""
    stats = CodebookStats(sizes)
    ids = np.arange(8 * 512).reshape(8, 512, 1) % codes
    ids = np.concatenate([np.minimum(ids, size - 1) for size in sizes], -1) if sizes else ids[..., :0]
    if sizes:
        stats.update(ids)
    return fqgan.Judged(np.full(8, error), np.full(8, 0.1), stats, cosines, ids)


def claim(one_codes: int, one_error: float, two_codes: int, two_error: float, seeds: int = 2):
    found = {name: judged(plan.sizes, 4, 0.01) for name, plan in fqgan.VARIANTS.items()}
    found["2 x 64, not disentangled"] = judged((64, 64), 64, two_error, 0.5)
    found["1 x 4096"] = judged((4096,), one_codes, one_error)
    found["2 x 64"] = judged((64, 64), two_codes, two_error)
    trials = {
        (name, again): fqgan.Trial(None, value, 1.0)
        for name, value in found.items()
        for again in range(seeds if name in ("2 x 64", "1 x 4096") else 1)
    }
    written = fqgan.Written(None, {"chained": (3.0, 2.0), "parallel": (3.0, 3.0)}, 1.0)
    return fqgan.verdict(0, fqgan.VARIANTS, trials, written, 8, 12.0, seeds)


def test_the_verdict_follows_the_bars():
    good = claim(one_codes=1024, one_error=0.01, two_codes=64, two_error=0.009)
    assert good.holds and good.value == pytest.approx(10 * math.log10(0.01 / 0.009))
    assert good.low == pytest.approx(good.value) == pytest.approx(good.high)
    assert good.random == pytest.approx(-10.0) and good.n == 8 and good.seconds == 12.0
    assert "4.0 times as much" in good.reason and "5 times less" in good.reason and "The claim holds" in good.reason
    assert not claim(1024, 0.01, 64, 0.0095).holds  # 0.22 dB
    assert not claim(1500, 0.01, 64, 0.009).holds  # 2.7 times as full
    worse = claim(1024, 0.009, 64, 0.01)
    assert not worse.holds and "does not hold" in worse.reason and "entropy term alone" not in worse.reason
    assert "entropy term alone keeps 49% of the large book in use, against 0%" in claim(2000, 0.01, 64, 0.009).reason
    json.dumps(good.to_json())


def test_the_whole_experiment_on_next_to_nothing(tmp_path):
    plans = {
        name: dataclasses.replace(plan, sizes=tuple(size // 4 for size in plan.sizes), base=8, steps=1, batch=2)
        for name, plan in fqgan.VARIANTS.items()
    }
    found = fqgan.experiment(0, plans, tmp_path, count=8, held=4, far_steps=1, seeds=1)
    assert found.n == 4 and found.full is not None and found.figures and found.seconds > 0
    assert len(list(tmp_path.glob("*.safetensors"))) == len(plans) + 2
    again = fqgan.experiment(0, plans, tmp_path, count=8, held=4, far_steps=1, seeds=1)
    assert again.reason == found.reason and again.value == found.value


# ---- the panel


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A folder as the recipe leaves it, of tokenizers that were trained for no time."""
    folder = tmp_path_factory.mktemp("fqgan")
    images, _ = fqgan.crops(fqgan.HELD_OUT, 4)
    told = {}
    for name, plan in fqgan.VARIANTS.items():
        model = fqgan.rounded(seeded(lambda plan=plan: FactorizedTokenizer(dataclasses.replace(plan, base=8))))
        told[name] = fqgan.fact_sheet(fqgan.judge(model, images), model.plan, 1.0)
        fqgan.write(folder / fqgan.file_name(name), model, 1.0)
    writer = fqgan.rounded(seeded(lambda: FAR(fqgan.VARIANTS[fqgan.MAIN].sizes, len(fqgan.TRAINING), 36)))
    fqgan.write(folder / fqgan.FAR_WEIGHTS, writer, 1.0)
    nats = {"chained": [4.1, 4.0], "parallel": [4.1, 4.1]}
    (folder / "facts.json").write_text(json.dumps({"tokenizers": told, "far": nats}), "utf-8")
    return folder


@pytest.fixture
def panel(shipped, monkeypatch):
    monkeypatch.setattr(fqgan, "FOLDER", shipped)
    for cached in (fqgan.tokenizer, fqgan.far, fqgan.facts):
        cached.cache_clear()
    yield
    for cached in (fqgan.tokenizer, fqgan.far, fqgan.facts):
        cached.cache_clear()


def answer(**values) -> dict:
    return guard.last(fqgan, values).result


def test_file_names_differ_and_are_plain():
    names = [fqgan.file_name(name) for name in fqgan.VARIANTS]
    assert len(set(names)) == len(names) and all(
        set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyz-.") for name in names
    )
    assert fqgan.file_name("2 x 64, not disentangled") == "2x64-not-disentangled.safetensors"


def test_the_default_run(panel):
    found = answer(side=48)
    assert list(found) == list(spec.result_views(fqgan.run)) and all(found.values())
    names = [item["name"] for item in found["pictures"]["items"]]
    assert names[:4] == ["original", "reconstruction", "branch 1 only", "branch 2 only"]
    assert names[4:] == ["branch 1 of Flower", "branch 2 of Flower"]
    levels = found["codes"]["levels"]
    assert [level["size"] for level in levels] == [64, 64] and all(len(level["ids"]) == 36 for level in levels)
    assert all(set(level["ids"]) <= {c for c, tile in enumerate(level["decoded"]) if tile >= 0} for level in levels)
    assert len(found["samples"]["items"]) == 7
    assert len(found["compared"]["rows"]) == len(fqgan.VARIANTS) + 1


@pytest.mark.parametrize("variant", ["1 x 4096", "3 x 16", "2 x 256"])
def test_other_tokenizers(panel, variant):
    found = answer(variant=variant, side=48, seed=2)
    plan = fqgan.VARIANTS[variant]
    assert len(found["codes"]["levels"]) == len(plan.sizes)
    assert (found["together"] is None) == (len(plan.sizes) == 1) and found["samples"] is None
    assert len(found["pictures"]["items"]) == 2 + (2 * len(plan.sizes) if len(plan.sizes) > 1 else 0)


def test_a_run_repeats_itself(panel):
    values = {"side": 48, "fill": fqgan.FILLINGS[1], "subject": "moon", "samples": 2}
    one, two = (views.result_to_json(list(fqgan.run(**values))[-1]) for _ in range(2))
    assert one["pictures"] == two["pictures"] and one["codes"] == two["codes"]
    assert one["samples"]["items"] == two["samples"]["items"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"variant": "no codes"}, "is not one of"),
        ({"variant": "<img src=x onerror=alert(1)>"}, "is not one of"),
        ({"side": 49_000}, "outside"),
        ({"samples": 0}, "outside"),
        ({"temperature1": "nan"}, "finite"),
        ({"subject": "coffee"}, "is not one of"),
        ({"picture": "photo:nobody"}, "picture"),
        ({"picture": "upload:0123456789abcdef"}, "upload"),
        ({"other": ""}, "picture"),
    ],
)
def test_hostile_values_are_one_sentence(panel, values, says):
    with pytest.raises(UserError, match=says):
        answer(**values)


def test_a_picture_of_one_pixel(panel):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (1, 1), "red").save(file, "PNG")
    ref = pictures.register_bytes(file.getvalue(), "<b>.png")
    found = answer(picture=ref, other=ref, side=48)
    assert len(found["codes"]["levels"][0]["ids"]) == 36


def test_missing_weights_are_one_sentence(tmp_path, panel, monkeypatch):
    monkeypatch.setattr(fqgan, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="recipes/fqgan.py"):
        answer(side=48, seed=99)


# ---- what ships


FOLDER = fqgan.FOLDER


def session(name: str, weights: str):
    from tokenlab.models import onnx

    return onnx.session(FOLDER, f"{name}.onnx", weights)


def test_the_graphs_of_the_tokenizer_are_the_tokenizer():
    model = fqgan.tokenizer(fqgan.MAIN)
    weights = fqgan.file_name(fqgan.MAIN)
    for size in ((1, 8, 8), (3, 48, 64)):
        batch, height, width = size
        x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
        tokens, _ = model.encode(x)
        (ids,) = session("encode", weights).run(None, {"pixels": x.numpy()})
        grid = tokens.ids.unflatten(1, tokens.shape).numpy()
        assert ids.shape == grid.shape and (ids == grid).mean() > 0.999
        (painted,) = session("decode", weights).run(None, {"ids": grid})
        np.testing.assert_allclose(painted, model.decode(tokens).numpy(), atol=1e-4)
        grid[..., 1] = -1
        (painted,) = session("decode", weights).run(None, {"ids": grid})
        np.testing.assert_allclose(painted, model.decode(tokens, keep=1).numpy(), atol=1e-4)


def test_the_graphs_of_far_are_far():
    model = fqgan.far()
    context, head = (session(name, fqgan.FAR_WEIGHTS) for name in ("context", "head"))
    generator = torch.Generator().manual_seed(0)
    for n in (0, 1, 7, 35):
        ids = torch.randint(64, (2, n, 2), generator=generator)
        classes = torch.tensor([0, len(fqgan.TRAINING)])
        (h,) = context.run(None, {"ids": ids.numpy(), "classes": classes.numpy()})
        expected = model.contexts(ids, classes)[:, -1]
        np.testing.assert_allclose(h, expected.numpy(), atol=1e-4)
        first = torch.randint(64, (2, 1), generator=generator)
        found = head.run(None, {"h": h, "codes": first.numpy()})
        for logits, wanted in zip(found, model.logits(expected, first), strict=True):
            np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-3)


def test_what_ships_is_what_the_facts_say():
    told = fqgan.facts()["tokenizers"]
    assert list(told) == list(fqgan.VARIANTS)
    for name, plan in fqgan.VARIANTS.items():
        assert Plan(**{**told[name]["plan"], "sizes": tuple(told[name]["plan"]["sizes"])}) == plan
        assert fqgan.tokenizer(name).plan == plan
        assert [len(counts) for counts in told[name]["counts"]] == list(plan.sizes)
        assert all(sum(counts) == told[name]["tokens"] == 36 * fqgan.HELD for counts in told[name]["counts"])
    images, _ = fqgan.crops(fqgan.HELD_OUT, fqgan.HELD, 1)
    few = fqgan.judge(fqgan.tokenizer(fqgan.MAIN), images[:64])
    assert abs(fqgan.psnr(few.errors) - told[fqgan.MAIN]["psnr"]) < 2
    assert told[fqgan.MAIN]["psnr"] > told[fqgan.MAIN]["psnr_random"] + 4
