"""A 3-D thorax with findings of a given severity, as path lengths along the beam."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from penumbra.data.phantom_shapes import ellipsoid, grid_mm, smooth_field, tilted

EXTENT_MM = (340.0, 340.0, 240.0)  # rows (head to foot), columns (right to left), depth
FINDINGS = (
    "Cardiomegaly",
    "Lung Opacity",
    "Consolidation",
    "Pneumothorax",
    "Pleural Effusion",
)
LUNG_DENSITY = 0.26
"""Of inflated lung relative to soft tissue (ICRU-44: 0.26 g/cm3)."""

Volume = Float[np.ndarray, "r c k"]


def thorax(
    body: np.random.Generator,
    disease: np.random.Generator,
    severities: Mapping[str, float],
    *,
    shape: tuple[int, int],
    magnification: float,
) -> tuple[dict[str, Float[np.ndarray, "r c"]], dict[str, Bool[np.ndarray, "r c"]]]:
    """Path lengths in cm of soft tissue (at unit density) and bone, and the regions that show.

    Regions are named as in chest-film annotation sets; those of findings exist only when the
    severity is above 0. ``magnification`` enlarges the heart as an AP view does.
    """
    depth = max(16, shape[1] // 2)
    points, spacing = grid_mm((*shape, depth), EXTENT_MM)
    size = body.normal(1.0, 0.04, 3).clip(0.92, 1.08)
    z, x, y = -points[0] / size[0], points[1] / size[1], points[2] / size[2]
    p = np.stack([x, y, z]).astype(np.float32)  # x > 0: patient's left, y > 0: front, z > 0: head
    voxel = float(np.mean(spacing[:2]))

    def filled(distance: Volume) -> Volume:
        return np.clip(0.5 - distance / voxel, 0, 1)

    enlarged = magnification * (1 + 0.5 * severities["Cardiomegaly"]) * body.uniform(0.92, 1.02)
    heart = _heart(p, enlarged)
    vessels = np.minimum(
        ellipsoid(p, (0, -5, 60), (27, 36, 95)), ellipsoid(p, (26, -12, 62), (16, 20, 17))
    )
    mediastinum = np.minimum(heart, vessels)
    trunk = _trunk(p, body)
    cage = ellipsoid(p, (0, 0, -30), (136, 100, 190))
    lung = {s: _lung(p, s, cage, mediastinum, body.normal(0, 5)) for s in ("right", "left")}

    density = filled(trunk)
    markings = 1 + 0.3 * smooth_field(body, points.shape[1:], spacing, 4.0).clip(-1.5, 2.5)
    air = filled(ellipsoid(p[:2], (0, -10), (8, 7))) * filled(30 - z)  # trachea
    bubble = ellipsoid(p, (58, 20, -112), (26, 22, 16))  # gas in the stomach
    lungs = sum((filled(d) for d in lung.values()), np.zeros_like(density))
    density = density * (1 - lungs) + lungs * LUNG_DENSITY * markings
    regions = {f"{s}_lung": _shadow(filled(d), spacing) for s, d in lung.items()}
    regions["cardiomediastinum"] = _shadow(filled(mediastinum), spacing)
    density, found = _diseased(density, lung, p, severities, disease, spacing)
    density *= (1 - air) * (1 - filled(bubble))
    regions |= found

    bone = _bones(p, cage, voxel) * filled(trunk)
    step_cm = spacing[2] / 10
    soft_cm = (density * (1 - bone)).sum(-1) * step_cm
    soft_cm += _bronchovascular(body, shape, spacing) * _thickness(lungs, step_cm)
    return {"soft": soft_cm, "bone": bone.sum(-1) * step_cm * 0.6}, regions


def _shadow(occupancy: Volume, spacing: tuple[float, ...]) -> Bool[np.ndarray, "r c"]:
    """Where at least 4 mm of a solid lie along the beam."""
    return occupancy.sum(-1) * spacing[2] > 4.0


def _thickness(occupancy: Volume, step_cm: float) -> Float[np.ndarray, "r c"]:
    return (occupancy.sum(-1) * step_cm / 8).clip(0, 1)


def _trunk(p: Float[np.ndarray, "d r c k"], body: np.random.Generator) -> Volume:
    """Trunk, shoulders and neck."""
    fat = body.uniform(-4, 14)
    side = np.stack([np.abs(p[0]), p[1], p[2]])
    trunk = ellipsoid(p, (0, 0, -90), (164 + fat, 108 + fat, 260))
    shoulder = tilted(side, (100, -10, 78), (125, 72, 62), axes=(0, 2), degrees=-25.0)
    neck = np.maximum(ellipsoid(p[:2], (0, -15), (54, 54)), 60 - p[2])
    return np.minimum(np.minimum(trunk, shoulder), neck)


def _heart(p: Float[np.ndarray, "d r c k"], scale: float) -> Volume:
    """Long axis down and to the patient's left; enlargement grows mostly leftwards."""
    centre = (16 + 26 * (scale - 1), 28.0, -52.0)
    radii = (61 * scale, 46 * scale, 46 * scale)
    return tilted(p, centre, radii, axes=(0, 2), degrees=-35.0)


def _lung(
    p: Float[np.ndarray, "d r c k"], side: str, cage: Volume, mediastinum: Volume, level: float
) -> Volume:
    """One lung: inside the cage, above the diaphragm, beside the mediastinum."""
    sign = -1.0 if side == "right" else 1.0
    height = -98.0 + level + (8.0 if side == "right" else 0.0)
    outline = ellipsoid(p, (sign * 66, 0, -10), (62, 88, 132))
    diaphragm = ellipsoid(p, (sign * 64, 6, height - 40), (68, 96, 62))
    inner = np.maximum(outline, cage + 8)
    return np.maximum(np.maximum(inner, -diaphragm), -mediastinum)


def _diseased(
    density: Volume,
    lung: Mapping[str, Volume],
    p: Float[np.ndarray, "d r c k"],
    severities: Mapping[str, float],
    rng: np.random.Generator,
    spacing: tuple[float, ...],
) -> tuple[Volume, dict[str, Bool[np.ndarray, "r c"]]]:
    """Density with the lung findings put in, and the region of each that is there.

    Sides and places are drawn whether or not a finding is present, so severities alone decide.
    """
    regions: dict[str, Bool[np.ndarray, "r c"]] = {}
    sides = dict(zip(FINDINGS, rng.choice(["right", "left"], len(FINDINGS)), strict=True))
    rough = smooth_field(rng, density.shape, spacing, 9.0)

    for name, region, radius, fill in (
        ("Lung Opacity", "ground_glass_opacities", 62.0, 0.55),
        ("Consolidation", "consolidation", 42.0, 0.95),
    ):
        severity, side = severities[name], sides[name]
        sign = -1.0 if side == "right" else 1.0
        centre = (sign * rng.uniform(55, 85), rng.uniform(-40, 40), rng.uniform(-60, 60))
        blob = ellipsoid(p, centre, (radius * (0.4 + 0.6 * severity),) * 3) + 8 * rough
        if severity > 0:
            soft = np.clip(0.5 - blob / 14, 0, 1) * (lung[side] < 0)
            density = density + soft * (fill - density).clip(0)
            regions[region] = _shadow(soft, spacing)

    side = sides["Pneumothorax"]
    collapse = severities["Pneumothorax"]
    if collapse > 0:
        sign = -1.0 if side == "right" else 1.0
        extent = collapse**1.5
        centre = (sign * (66 - 26 * extent), -8 * extent, -10 - 24 * extent)
        kept = ellipsoid(p, centre, [r * (1 - 0.35 * extent) for r in (62, 88, 132)])
        gas = (lung[side] < 0) & (kept > 0)
        line = (lung[side] < 0) & (np.abs(kept) < 2.5)
        density = np.where(line, 0.8, np.where(gas, 0.0, density))
        regions["pneumothorax"] = np.any(gas, axis=-1) & np.all(kept >= 0, axis=-1)

    side = sides["Pleural Effusion"]
    amount = severities["Pleural Effusion"]
    if amount > 0:
        lateral = ((np.abs(p[0]) - 40) / 90).clip(0, 1)
        meniscus = -118 + 95 * amount + 26 * lateral**3
        fluid = np.clip(0.5 - (p[2] - meniscus) / spacing[0], 0, 1) * (lung[side] < 0)
        density = density * (1 - fluid) + fluid
        regions["pleural_effusion"] = _shadow(fluid, spacing)
    return density, regions


def _bones(p: Float[np.ndarray, "d r c k"], cage: Volume, voxel: float) -> Volume:
    """Ribs as tilted hoops in the wall of the cage, vertebrae, clavicles."""
    x, y, z = p
    hoop = np.cos(2 * np.pi * (z + 0.45 * y - 0.12 * np.abs(x)) / 27.0)
    wall = np.clip(0.5 - (np.abs(cage) - 4.0) / voxel, 0, 1)
    ribs = 1.6 * wall * np.clip((hoop - 0.5) * 3, 0, 1) * (z < 118) * (z > -125)
    ribs = ribs * ~((y > 30) & (np.abs(x) < 45))
    spine = np.clip(0.5 - ellipsoid(p[:2], (0, -66), (17, 16)) / voxel, 0, 1)
    spine = spine * (0.45 + 0.35 * (np.cos(2 * np.pi * z / 25.0) < 0.6))
    side = np.stack([np.abs(x), y, z])
    collar = tilted(side, (80, 52, 110), (62, 6.5, 6.5), axes=(0, 2), degrees=14.0)
    clavicle = np.clip(0.5 - collar / voxel, 0, 1)
    return np.maximum(np.maximum(ribs, spine), clavicle)


def _bronchovascular(
    rng: np.random.Generator, shape: tuple[int, int], spacing: tuple[float, ...]
) -> Float[np.ndarray, "r c"]:
    """Chord lengths in cm of vessels that leave each hilum and taper towards the periphery."""
    points, _ = grid_mm(shape, (shape[0] * spacing[0], shape[1] * spacing[1]))
    z, x = -points[0], points[1]
    chord_cm = np.zeros(shape, np.float32)
    for sign in (-1.0, 1.0):
        for angle in rng.uniform(-1.2, 1.2, 11):
            length, radius = rng.uniform(35, 85), rng.uniform(2.5, 5.0)
            dx, dz = sign * np.cos(angle), np.sin(angle)
            u, v = x - sign * 30, z - 5 * sign
            along = (u * dx + v * dz).clip(0, length)
            away = np.hypot(u - along * dx, v - along * dz)
            taper = radius * (1 - 0.8 * along / length)
            chord_cm += 0.2 * np.sqrt((taper**2 - away**2).clip(0))
        hilum = np.hypot((x - sign * 34) / 14, (z + 2) / 24)
        chord_cm += 1.6 * np.sqrt((1 - hilum**2).clip(0))
    return chord_cm
