"""Hidden squares: which, by what key, and what counts of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error, r2_score

from m2net.bags import InputSpec
from m2net.batch import BagBatch, Output
from m2net.errors import ConfigError
from m2net.objectives import RestorationObjective
from tests.objectives.test_objectives import batch


def pictures(bags: int = 2, slices: int = 3, size: int = 20) -> BagBatch:
    """Random slices and six channels of coordinates."""
    generator = torch.Generator().manual_seed(3)
    return replace(batch(bags, size=size), instances=torch.rand((2 * bags, slices + 6, size, size), generator=generator) * 2 - 1)


def objective(share: float = 0.4, square: int = 8) -> RestorationObjective:
    made = RestorationObjective(share, square)
    made.slices = 3
    return made


def test_whole_squares_are_hidden_by_the_draws_key() -> None:
    b = pictures()
    hidden = objective(0.4, 5).hidden(b)
    cells = hidden.view(4, 4, 5, 4, 5).float().mean((2, 4))
    assert set(cells.unique().tolist()) == {0.0, 1.0}
    assert cells.sum((1, 2)).tolist() == [6] * 4  # 0.4 of 16
    assert len({tuple(one.flatten().tolist()) for one in cells}) > 1
    assert torch.equal(hidden, objective(0.4, 5).hidden(b))
    assert not torch.equal(hidden, objective(0.4, 5).hidden(replace(b, draws=b.draws + 10)))
    alone = objective(0.4, 5).hidden(replace(pictures(1), draws=b.draws[1:]))
    torch.testing.assert_close(alone, hidden[2:])  # whatever is beside a bag, its key decides


def test_squares_that_the_picture_cuts_off_are_hidden_too() -> None:
    hidden = objective(0.99, 8).hidden(pictures())  # 3 x 3 squares, the last of 4 pixels
    assert hidden.shape == (4, 20, 20)
    assert all(int(one.sum()) in (400 - 64, 400 - 32, 400 - 16) for one in hidden)  # all squares but one


def test_hiding_leaves_the_rest_and_the_coordinates() -> None:
    b = pictures()
    one = objective()
    hidden, seen = one.hidden(b), one.hide(b)
    assert torch.equal(seen.instances[:, 3:], b.instances[:, 3:])
    shown = ~hidden[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(seen.instances[:, :3][shown], b.instances[:, :3][shown])
    square = seen.instances[0, :3][:, hidden[0]]
    assert not torch.isclose(square, b.instances[0, :3][:, hidden[0]]).any()
    assert torch.equal(square[0], square[1])
    assert square.abs().max() <= 1
    cells = torch.nn.functional.pad(hidden, (0, 4, 0, 4)).view(4, 3, 8, 3, 8).any(4).any(2)
    values = {round(float(value), 5) for value in seen.instances[:, 0][hidden]}
    assert len(values) == int(cells.sum())  # one value a square


def test_the_mirror_image_is_turned_back() -> None:
    b = pictures()
    answer = Output(b.instances[:, 1:2])
    mirrored = Output(answer.logits.flip(3))
    torch.testing.assert_close(answer.mean_with(objective().turned_back(mirrored)).logits, answer.logits)


def test_the_loss_is_of_hidden_pixels_of_the_middle_slice() -> None:
    b = pictures()
    one = objective()
    logits = torch.randn(4, 1, 20, 20, requires_grad=True)
    hidden = one.hidden(b).numpy()
    said, truth = logits.detach()[:, 0].numpy()[hidden], b.instances[:, 1].numpy()[hidden]
    loss = one.loss(Output(logits), b)
    assert loss.item() == pytest.approx(mean_squared_error(truth, said), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, 0] != 0, torch.from_numpy(hidden))


def test_figures_are_of_the_pixels_that_an_instance_stands_for(rng: np.random.Generator) -> None:
    one = objective()
    truths, answers = [], []
    for _ in range(3):
        b = replace(pictures(1), owned=torch.from_numpy(rng.random((2, 20, 20)) < 0.7), draws=torch.tensor([int(rng.integers(1000))]))
        said = b.instances[:, 1] + torch.from_numpy(rng.normal(0, 0.3, (2, 20, 20))).float()
        one.update(Output(said[:, None]), b)
        counted = (one.hidden(b) & b.owned).numpy()
        truths.append(b.instances[:, 1].numpy()[counted])
        answers.append(said.numpy()[counted])
    figures = one.compute()
    truth, answer = np.concatenate(truths), np.concatenate(answers)
    assert figures["r2"] == pytest.approx(r2_score(truth, answer), rel=1e-5)
    assert figures["rmse"] == pytest.approx(mean_squared_error(truth, answer) ** 0.5, rel=1e-5)
    assert figures["n"] == 3
    one.reset()
    assert np.isnan(one.compute()["r2"])


@pytest.mark.parametrize(("share", "square"), [(0.0, 8), (1.0, 8), (0.5, 0), (0.5, 8.5)])
def test_impossible_settings(share: float, square: int) -> None:
    with pytest.raises(ConfigError, match="restoration of a share"):
        RestorationObjective(share, square)


def test_a_square_of_the_whole_patch_would_leave_nothing_to_go_by() -> None:
    RestorationObjective(square=31).look_at(InputSpec(patch=32))
    with pytest.raises(ConfigError, match=r"squares of 32 pixels on a patch of 32; expected squares smaller"):
        RestorationObjective(square=32).look_at(InputSpec(patch=32))
