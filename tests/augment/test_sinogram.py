"""The projector and its inverse: against paper, scikit-image and each other."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import shepp_logan_phantom
from skimage.transform import iradon, radon, resize

from penumbra.augment import sinogram
from penumbra.augment.sinogram import (
    Scanner,
    fan_scanner,
    fbp,
    parallel_scanner,
    project,
)

UNIT = (1.0, 1.0)


def disc(n: int, radius: float, spacing: float = 1.0, centre: tuple[float, float] = (0, 0)):
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * spacing
    r = torch.hypot(axis[:, None] - centre[0], axis[None] - centre[1])
    return ((radius - r) / spacing + 0.5).clamp(0, 1)[None, None]


def rms(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt())


def test_the_projector_matches_scikit_image_within_one_percent() -> None:
    n, angles = 129, 60
    noise = np.random.default_rng(0).random((n, n))
    y, x = np.mgrid[:n, :n] - n // 2
    smooth = gaussian_filter(noise, 2) * (x**2 + y**2 < (n // 2 - 8) ** 2)
    image = gaussian_filter(smooth, 1)
    theirs = radon(image, np.arange(angles) * 180 / angles, circle=True).T
    turned = torch.from_numpy(np.rot90(image, 3).copy())[None, None]  # their axes
    ours = project(turned, Scanner(angles, n, 1.0), UNIT)[0, 0].numpy()
    assert np.linalg.norm(ours - theirs) < 0.01 * np.linalg.norm(theirs)


@pytest.mark.parametrize("fan", [False, True])
def test_a_disc_projects_to_its_chords(fan: bool) -> None:
    n, radius, centre = 81, 25.0, (9.0, -7.0)
    image = disc(n, radius, centre=centre)
    scanner = fan_scanner((n, n), UNIT, 200.0) if fan else parallel_scanner((n, n), UNIT)
    theta, s = scanner.rays()
    offset = s - centre[0] * theta.cos() - centre[1] * theta.sin()
    chords = 2 * (radius**2 - offset**2).clamp(min=0).sqrt()
    seen = project(image, scanner, UNIT)[0, 0]
    assert rms(seen, chords) < 0.01 * 2 * radius


def test_every_parallel_view_carries_the_whole_mass() -> None:
    image = disc(90, 25.0, centre=(7.0, 3.0))
    scanner = parallel_scanner((90, 90), UNIT)
    mass = project(image, scanner, UNIT).sum(-1) * scanner.pitch
    assert (mass / image.sum() - 1).abs().max() < 0.01


def test_back_projection_reconstructs_a_phantom_as_well_as_scikit_image() -> None:
    n = 81
    truth = resize(shepp_logan_phantom(), (n, n), anti_aliasing=True)
    y, x = np.mgrid[:n, :n] - n // 2
    truth[x**2 + y**2 > (n // 2 - 1) ** 2] = 0
    image = torch.from_numpy(truth)[None, None]
    scanner = parallel_scanner((n, n), UNIT)
    ours = fbp(project(image, scanner, UNIT), scanner, (n, n), UNIT)
    degrees = np.arange(scanner.angles) * 180 / scanner.angles
    theirs = iradon(radon(truth, degrees, circle=True), degrees, circle=True)
    known = math.sqrt(np.mean((theirs - truth) ** 2))
    assert rms(ours, image) < 1.05 * known
    assert abs(float(ours.mean() / image.mean()) - 1) < 0.005


def test_the_fan_beam_reconstructs_what_the_parallel_beam_does() -> None:
    n = 64
    image = disc(n, 25.0, centre=(5.0, -3.0)) + 0.5 * disc(n, 6.0, centre=(-10.0, 8.0))
    parallel, fan = parallel_scanner((n, n), UNIT), fan_scanner((n, n), UNIT, 130.0)
    a = fbp(project(image, parallel, UNIT), parallel, (n, n), UNIT)
    b = fbp(project(image, fan, UNIT), fan, (n, n), UNIT)
    assert rms(a, b) < 0.02
    inside = disc(n, 20.0, centre=(5.0, -3.0)) > 0.5
    assert abs(float(b[inside].mean() / image[inside].mean()) - 1) < 0.005


@pytest.mark.parametrize(("shape", "spacing"), [((40, 64), (2.0, 1.0)), ((51, 33), (1.0, 1.5))])
def test_anisotropic_voxels_are_seen_at_their_true_size(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    x = (torch.arange(shape[0], dtype=torch.float64) - (shape[0] - 1) / 2) * spacing[0]
    y = (torch.arange(shape[1], dtype=torch.float64) - (shape[1] - 1) / 2) * spacing[1]
    image = torch.exp(-(x[:, None] ** 2 + y[None] ** 2) / (2 * 6.0**2))[None, None]
    scanner = parallel_scanner(shape, spacing, angles=40)
    seen = project(image, scanner, spacing)[0, 0]
    expected = 6.0 * math.sqrt(2 * math.pi) * torch.exp(-(scanner.offsets() ** 2) / (2 * 6.0**2))
    assert (seen - expected).abs().max() < 0.015 * expected.max()
    dense = parallel_scanner(shape, spacing)
    assert rms(fbp(project(image, dense, spacing), dense, shape, spacing), image) < 0.01


@pytest.mark.parametrize("fan", [False, True])
def test_the_projector_is_differentiable_and_linear(fan: bool) -> None:
    make = fan_scanner if fan else parallel_scanner
    scanner = make((7, 6), UNIT, angles=5)
    image = torch.rand(1, 1, 7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: project(x, scanner, UNIT), (image,))
    rays = torch.rand(1, 1, 5, scanner.detectors, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fbp(x, scanner, (7, 6), UNIT), (rays,))


def test_chunks_of_views_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = disc(30, 9.0)
    scanner = parallel_scanner((30, 30), UNIT)
    whole = project(image, scanner, UNIT)
    back = fbp(whole, scanner, (30, 30), UNIT)
    monkeypatch.setattr(sinogram, "_ENTRIES", 5_000)
    torch.testing.assert_close(project(image, scanner, UNIT), whole)
    torch.testing.assert_close(fbp(whole, scanner, (30, 30), UNIT), back)


def test_images_of_a_batch_do_not_mix() -> None:
    a, b = disc(20, 5.0), disc(20, 3.0, centre=(2.0, 0.0))
    scanner = parallel_scanner((20, 20), UNIT)
    both = project(torch.cat([torch.cat([a, b], 1), torch.cat([b, b], 1)]), scanner, UNIT)
    torch.testing.assert_close(both[0, 0], project(a, scanner, UNIT)[0, 0])
    torch.testing.assert_close(both[1, 1], project(b, scanner, UNIT)[0, 0])


def test_a_source_inside_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"source at 50\.0 mm lies inside"):
        fan_scanner((100, 100), UNIT, 50.0)
