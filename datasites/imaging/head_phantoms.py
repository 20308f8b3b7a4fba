"""MR head phantoms drawn by code, so that the demo needs no head from outside.

A phantom is an axial T2-FLAIR series of nobody, after Shepp and Logan: nested ellipsoids for scalp,
skull, grey and white matter and ventricles, here with soft edges, a folded cortex and per-patient
shape, seen through a coil with its own shading and noise. A lesion is a bright, irregular blob in
the white matter. Both classes share what could be taken for one, or hide one: small white spots of
age, caps on the ventricles, uneven coils.

Patient coordinates: x from -1 (image left, the patient's right) to 1, y from -1 (front) to 1, z
from -1 (feet) to 1, each in half extents of the field of view. Anatomy, lesion and noise of a head
come from three random streams of its own: the same seed gives the same head at every size, with and
without a lesion, and the slices of a series cut one and the same head.

References:
    Shepp and Logan, The Fourier reconstruction of a head section, IEEE Transactions on Nuclear
    Science 1974, doi 10.1109/TNS.1974.6499235.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datasites.imaging.phantoms import check_in_range

Field = npt.NDArray[np.float32]

CLEAR, LESION = 0, 1
MIN_SIZE, MAX_SIZE = 64, 256
MIN_SLICES, MAX_SLICES = 3, 12
# Slices lie between these heights: from the lower ventricles to above their roof.
_LOWEST, _HIGHEST = -0.22, 0.42
# Signal on T2-FLAIR, as a share of the brightest tissue: fluid is suppressed, fat is bright.
_SCALP, _SKULL, _GREY, _WHITE, _FLUID = 0.80, 0.08, 0.58, 0.46, 0.10


def draw_head_phantoms(
    count: int, *, seed: int, size: int = 96, slices: int = 5, positive_share: float = 0.5
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draws MR series of heads, some of them with a lesion.

    Args:
        count: number of heads N, at least 1.
        seed: not negative; the same seed gives the same bytes.
        size: height and width in pixels, 64 to 256.
        slices: slices S of each head, 3 to 12, from feet to head at equal distances.
        positive_share: share of heads with a lesion, 0 to 1; rounded to whole heads.

    Returns:
        images: (N, S, size, size) uint8, fat bright and air dark (MONOCHROME2).
        labels: (N,) int64, 0 clear, 1 lesion, in random order. A lesion is in at least one slice.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_in_range("count", count, 1, None, "draw_head_phantoms")
    check_in_range("seed", seed, 0, None, "draw_head_phantoms")
    check_in_range("size", size, MIN_SIZE, MAX_SIZE, "draw_head_phantoms")
    check_in_range("slices", slices, MIN_SLICES, MAX_SLICES, "draw_head_phantoms")
    check_in_range("positive_share", positive_share, 0, 1, "draw_head_phantoms")

    label_stream, *patients = np.random.SeedSequence(seed).spawn(count + 1)
    labels = np.full(count, CLEAR, dtype=np.int64)
    labels[: round(count * positive_share)] = LESION
    np.random.default_rng(label_stream).shuffle(labels)

    images = np.empty((count, slices, size, size), dtype=np.uint8)
    for index, patient in enumerate(patients):
        images[index] = _draw_series(patient, labels[index] == LESION, size, slices)
    return images, labels


def slice_heights(slices: int) -> npt.NDArray[np.float64]:
    """Heights z of the slices of a series, (S,), in half extents of the field of view."""
    return np.linspace(_LOWEST, _HIGHEST, slices)


@dataclass(frozen=True, slots=True)
class _Blob:
    """A soft ball in patient coordinates; its strength is added to the signal."""

    x: float
    y: float
    z: float
    radius: float
    strength: float

    def draw(self, x: Field, y: Field, z: float) -> Field:
        squared = ((x - self.x) ** 2 + (y - self.y) ** 2 + (z - self.z) ** 2) / self.radius**2
        ball: Field = np.float32(self.strength) * np.exp(-(squared**2))
        return ball


@dataclass(frozen=True, slots=True)
class _Head:
    """The shape of a head: half extents of the brain, thicknesses, folds and ventricles."""

    turn: float
    offset: tuple[float, float]
    half_width: float
    half_length: float
    half_height: float
    scalp: float
    skull: float
    fluid: float
    cortex: float
    folds: tuple[tuple[int, float, float], ...]
    ventricle: tuple[float, float, float]
    contrast: float
    spots: tuple[_Blob, ...]

    def place(self, size: int) -> tuple[Field, Field]:
        """Head coordinates of each pixel, (size, size)."""
        across = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        column, row = np.meshgrid(across - self.offset[0], across - self.offset[1])
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        return column * cos + row * sin, row * cos - column * sin

    def draw(self, x: Field, y: Field, z: float) -> tuple[Field, Field]:
        """Signal of one slice without lesion, and how much of each pixel is white matter."""
        narrowing = float(np.sqrt(max(1 - (z / self.half_height) ** 2, 0.05)))
        half_width, half_length = self.half_width * narrowing, self.half_length * narrowing
        radius = np.sqrt((x / half_width) ** 2 + (y / half_length) ** 2)
        depth = (1 - radius) * half_width  # below the surface of the brain
        folding = self._fold(np.arctan2(y / half_length, x / half_width), z)

        signal = _SCALP * _step((depth + self.fluid + self.skull + self.scalp) / 0.012)
        signal += (_SKULL - _SCALP) * _step((depth + self.fluid + self.skull) / 0.012)
        signal += (_FLUID - _SKULL) * _step((depth + self.fluid) / 0.012)
        grey = _step((depth - 0.035 * np.maximum(folding, 0)) / 0.016)
        white = _step((depth - self.cortex + 0.05 * folding) / 0.022)
        cleft = np.exp(-((x / 0.016) ** 2)) * _step((np.abs(y) - 0.40 * half_length) / 0.05)
        white, grey = white * (1 - cleft), grey * (1 - 0.7 * cleft)
        signal += (_GREY - _FLUID) * grey
        signal += self.contrast * (_WHITE - _GREY) * white
        signal, white = self._draw_depths(signal, white, x, y, z)
        for spot in self.spots:
            signal += spot.draw(x, y, z) * white
        return signal, white

    def _fold(self, angle: Field, z: float) -> Field:
        """Folds of the cortex around the head, about -1 to 1; they wander with the height."""
        folding = np.zeros_like(angle)
        for waves, phase, wander in self.folds:
            folding += np.sin(waves * angle + np.float32(phase + wander * z))
        return folding / np.float32(len(self.folds))

    def _draw_depths(
        self, signal: Field, white: Field, x: Field, y: Field, z: float
    ) -> tuple[Field, Field]:
        """Adds the ventricles with their bright caps, and the deep grey nuclei beside them."""
        width, length, roof = self.ventricle
        opening = max(1 - (z / roof) ** 2, 0.0) if z > 0 else 1 + z
        side = np.abs(x)
        nuclei = _step((1 - _ellipse(side - 0.20, y - 0.02, 0.11, 0.20)) / 0.4) * max(0.4 - z, 0)
        signal = signal + (_GREY - _WHITE) * 2 * nuclei * white
        if opening <= 0.02:
            return signal, white
        bow = side - 0.085 - 0.55 * (y - 0.02) ** 2
        outline = _ellipse(bow, y, width * opening, length * opening)
        inside = _step((1 - outline) / 0.5)
        caps = np.exp(-((outline - 1.6) ** 2)) * _step((np.abs(y) - 0.7 * length * opening) / 0.05)
        signal += 0.10 * caps * white * (1 - inside)
        signal += (_FLUID - signal) * inside
        return signal, white * (1 - inside) * (1 - nuclei)


def _shape_head(rng: np.random.Generator) -> _Head:
    half_width = rng.uniform(0.60, 0.68)
    return _Head(
        turn=rng.normal(0, 0.06),
        offset=(rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)),
        half_width=half_width,
        half_length=half_width * rng.uniform(1.14, 1.24),
        half_height=rng.uniform(0.68, 0.78),
        scalp=rng.uniform(0.035, 0.06),
        skull=rng.uniform(0.045, 0.07),
        fluid=rng.uniform(0.010, 0.035),
        cortex=rng.uniform(0.08, 0.11),
        folds=tuple(
            (int(waves), rng.uniform(0, 6.28), rng.uniform(-9, 9))
            for waves in rng.choice(np.arange(7, 30), size=4, replace=False)
        ),
        ventricle=(rng.uniform(0.045, 0.085), rng.uniform(0.24, 0.34), rng.uniform(0.30, 0.40)),
        contrast=rng.uniform(0.8, 1.3),
        spots=tuple(
            _Blob(
                *_place_in_white_matter(rng),
                radius=rng.uniform(0.018, 0.035),
                strength=rng.uniform(0.08, 0.30),
            )
            for _ in range(rng.integers(0, 9))
        ),
    )


def _place_in_white_matter(rng: np.random.Generator) -> tuple[float, float, float]:
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.30, 0.42)
    x, y = reach * float(np.cos(angle)), 1.15 * reach * float(np.sin(angle))
    return x, y, float(rng.uniform(_LOWEST, _HIGHEST))


def _place_lesion(rng: np.random.Generator, slices: int) -> list[_Blob]:
    """Three to five lobes around a slice; one lesion in eight is faint."""
    x, y, _ = _place_in_white_matter(rng)
    z = float(slice_heights(slices)[int(rng.uniform(0, 1) * slices)])
    radius = rng.uniform(0.09, 0.16)
    strength = rng.uniform(0.10, 0.16) if rng.random() < 0.125 else rng.uniform(0.22, 0.40)
    return [
        _Blob(
            x + rng.normal(0, 0.4 * radius),
            y + rng.normal(0, 0.4 * radius),
            z + rng.normal(0, 0.1 * radius),
            radius * rng.uniform(0.5, 0.9),
            strength,
        )
        for _ in range(rng.integers(3, 6))
    ]


def _draw_series(
    patient: np.random.SeedSequence, has_lesion: bool, size: int, slices: int
) -> npt.NDArray[np.uint8]:
    anatomy_rng, lesion_rng, coil_rng = map(np.random.default_rng, patient.spawn(3))
    head = _shape_head(anatomy_rng)
    lesion = _place_lesion(lesion_rng, slices) if has_lesion else []
    x, y = head.place(size)
    shading, noise = _shade(coil_rng, size), coil_rng.uniform(0.012, 0.030)
    series = np.empty((slices, size, size), dtype=np.uint8)
    for index, z in enumerate(slice_heights(slices)):
        signal, white = head.draw(x, y, float(z))
        swelling = np.zeros_like(signal)
        for lobe in lesion:
            swelling = np.maximum(swelling, lobe.draw(x, y, float(z)))
        signal += swelling * (0.25 + 0.75 * white) * _step((0.6 - np.hypot(x, y)) / 0.05)
        series[index] = _measure(coil_rng, signal * shading, noise)
    return series


def _shade(rng: np.random.Generator, size: int) -> Field:
    """Sensitivity of the coil, (size, size), 1 on average: stronger towards one side and outside.

    It lies in the coordinates of the scanner, not of the head.
    """
    across = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    column, row = np.meshgrid(across, across)
    slopes = rng.uniform(-0.12, 0.12, size=2).astype(np.float32)
    rim = np.float32(rng.uniform(0.0, 0.15))
    shading: Field = 1 + slopes[0] * column + slopes[1] * row + rim * (column**2 + row**2 - 0.6)
    return shading


def _measure(rng: np.random.Generator, signal: Field, noise: float) -> npt.NDArray[np.uint8]:
    """Magnitude of a signal with complex Gaussian noise (Rician), as grey values of 8 bits."""
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    magnitude = np.hypot(signal + np.float32(noise) * real, np.float32(noise) * imaginary)
    grey: npt.NDArray[np.uint8] = np.clip(magnitude * 230, 0, 255).astype(np.uint8)
    return grey


def _step(signed_distance: Field) -> Field:
    """Soft step from 0 (negative) to 1 (positive), about one unit wide."""
    step: Field = np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(2) * signed_distance)
    return step


def _ellipse(right: Field, down: Field, half_width: float, half_length: float) -> Field:
    """Squared distance from the centre in units of the half axes; 1 on the outline."""
    return (right / half_width) ** 2 + (down / half_length) ** 2
