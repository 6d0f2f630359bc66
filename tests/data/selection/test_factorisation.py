import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from tests.data.selection.planted import planted_clusters
from trl_prune.data.selection.diffusion import DiffusionSettings, diffusion_map
from trl_prune.data.selection.factorisation import factorise, mean_size, relative_error, update_columns, with_constant


@pytest.fixture
def coordinates():
    vectors, _ = planted_clusters(150, 4, noise=1.2)
    return diffusion_map(vectors, 3, DiffusionSettings()).coordinates


def test_the_error_is_that_of_the_dense_matrices(coordinates):
    x, generator = with_constant(coordinates, 1.0), np.random.default_rng(0)
    w, h = generator.random((150, 4)), generator.random((150, 4))
    affinity = x @ x.T
    expected = np.linalg.norm(affinity - w @ h.T) / np.linalg.norm(affinity)
    assert relative_error(x, w, h) == pytest.approx(expected)


def test_the_factorisation_is_as_good_as_that_of_the_dense_affinity(coordinates):
    x = with_constant(coordinates, mean_size(coordinates))
    affinity = np.maximum(x @ x.T, 0)
    model = NMF(4, init="nndsvda", max_iter=2000, tol=1e-7)
    dense = model.fit_transform(affinity), model.components_.T
    result = factorise(coordinates, 4, seed=0, num_starts=3)
    assert result.error <= 1.01 * relative_error(x, *dense)
    assert result.error == pytest.approx(relative_error(x, result.w, result.h))
    assert result.w.min() >= 0
    assert result.h.min() >= 0


def test_separate_clusters_are_factorised_exactly():
    coordinates = diffusion_map(planted_clusters(200, 5, noise=0.3)[0], 4, DiffusionSettings()).coordinates
    assert factorise(coordinates, 5, seed=0).error < 1e-3


def test_an_update_never_raises_the_error(coordinates):
    x, generator = with_constant(coordinates, 1.0), np.random.default_rng(0)
    w, h = generator.random((150, 4)), generator.random((150, 4))
    errors = [relative_error(x, w, h)]
    for _ in range(10):
        update_columns(w, x @ (x.T @ h), h.T @ h)
        errors.append(relative_error(x, w, h))
    assert (np.diff(errors) <= 1e-12).all()


def test_rows_are_predicted_by_non_negative_least_squares(coordinates):
    result = factorise(coordinates[:100], 4, seed=0)
    constant = mean_size(coordinates[:100])
    affinity = with_constant(coordinates[100:], constant) @ with_constant(coordinates[:100], constant).T
    expected = [nnls(result.h, row)[0].argmax() for row in affinity]
    np.testing.assert_array_equal(result.predict(coordinates[100:]), expected)


def test_the_factorised_rows_are_predicted_as_they_are(coordinates):
    result = factorise(coordinates, 4, seed=0)
    assert (result.predict(coordinates) == result.w.argmax(axis=1)).mean() > 0.98


def test_the_seed_determines_the_result(coordinates):
    first, second = (factorise(coordinates, 6, seed=2) for _ in range(2))
    np.testing.assert_array_equal(first.w, second.w)


def test_the_constant_coordinate_is_as_large_as_the_others_on_average():
    coordinates = np.array([[3.0, 1], [-3, 1]])
    assert mean_size(coordinates) == 2
    assert with_constant(coordinates, 2.0).tolist() == [[2, 3, 1], [2, -3, 1]]
    assert mean_size(np.zeros((2, 2))) == 1
