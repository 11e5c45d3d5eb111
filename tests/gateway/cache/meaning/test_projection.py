"""This file is about projections keeping what they promise, on disk too."""

from pathlib import Path

import numpy as np
import pytest

from epidote_gateway.cache.meaning.projection import (
    BadProjection,
    Projection,
    fit_discriminants,
    fit_principal,
    unit_rows,
)
from epidote_gateway.cache.protocols import Vectors


def clouds(seed: int = 0) -> tuple[Vectors, list[str]]:
    """Six labels, told apart in two of twelve directions; the others are louder noise."""
    rng = np.random.default_rng(seed)
    labels = [f"l{number % 6}" for number in range(300)]
    angle = np.arange(300) % 6 * (np.pi / 3)
    signal = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    noise = rng.normal(scale=1.5, size=(300, 10))
    rows = np.concatenate([signal + rng.normal(scale=0.1, size=signal.shape), noise], axis=1)
    return rows.astype(np.float32), labels


def share_of_right_neighbours(vectors: Vectors, labels: list[str]) -> float:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2.0)
    return float(np.mean([labels[row] == labels[n] for row, n in enumerate(cosines.argmax(1))]))


def test_discriminants_find_the_directions_that_tell_labels_apart() -> None:
    vectors, labels = clouds()
    fitted = fit_discriminants(vectors, labels, 2, model="m", shrinkage=0.1)
    fresh, fresh_labels = clouds(seed=1)
    raw = share_of_right_neighbours(unit_rows(fresh), fresh_labels)
    projected = share_of_right_neighbours(fitted(fresh), fresh_labels)
    assert raw < 0.8 < 0.95 < projected


def test_all_principal_components_keep_cosines_about_the_mean() -> None:
    vectors, _ = clouds()
    fitted = fit_principal(vectors, 12, model="m")
    centred = unit_rows(vectors - vectors.mean(axis=0))
    np.testing.assert_allclose(fitted(vectors) @ fitted(vectors).T, centred @ centred.T, atol=1e-4)


def test_projected_vectors_have_unit_length() -> None:
    vectors, labels = clouds()
    for fitted in (
        fit_principal(vectors, 3, model="m"),
        fit_discriminants(vectors, labels, 3, model="m"),
    ):
        np.testing.assert_allclose(np.linalg.norm(fitted(vectors), axis=1), 1.0, atol=1e-5)


def test_a_saved_projection_is_the_same_again(tmp_path: Path) -> None:
    vectors, _ = clouds()
    fitted = fit_principal(vectors, 5, model="m")
    fitted.save(tmp_path / "pca.npz")
    loaded = Projection.load(tmp_path / "pca.npz", model="m")
    assert np.array_equal(loaded(vectors), fitted(vectors))
    assert loaded.digest == fitted.digest


def test_a_projection_of_another_model_is_refused(tmp_path: Path) -> None:
    fit_principal(clouds()[0], 5, model="one").save(tmp_path / "pca.npz")
    with pytest.raises(BadProjection, match="was made for one, the embedder is another"):
        Projection.load(tmp_path / "pca.npz", model="another")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(BadProjection, match=r"embedder\.projection: .* can't be read"):
        Projection.load(tmp_path / "p", model="m")


@pytest.mark.parametrize("dimensions", [0, 13])
def test_impossible_dimensions_are_refused(dimensions: int) -> None:
    with pytest.raises(ValueError, match="dimensions: must be from 1 to 12"):
        fit_principal(clouds()[0], dimensions, model="m")


def test_discriminants_need_more_labels_than_dimensions() -> None:
    with pytest.raises(ValueError, match="below the number of labels, 6, got 6"):
        fit_discriminants(*clouds(), 6, model="m")
