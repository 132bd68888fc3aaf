"""Batch normalization as it is usually explained, statement by statement.

Notation: a mini-batch B of m values x_i per feature, gamma and beta, epsilon, and the momentum alpha of
the running averages.
"""

from __future__ import annotations

import numpy as np
import pytest

from bnfold import runtime

RNG = np.random.default_rng(7)
X = RNG.standard_normal((32, 4, 5, 5)) * np.array([1.0, 2.0, 5.0, 0.1])[:, None, None] + 3.0
GAMMA, BETA = RNG.uniform(0.5, 2, 4), RNG.standard_normal(4)
ZERO, ONE = np.zeros(4), np.ones(4)
EPSILON = 1e-5


def channel(values: np.ndarray) -> np.ndarray:
    return values[:, None, None]


class TestTheCoreIdea:
    def test_activations_get_zero_mean_and_unit_variance_for_each_channel(self) -> None:
        y = runtime.train(X, ONE, ZERO, ZERO, ONE, epsilon=0.0, backend="numpy").y
        for c in range(4):
            assert np.mean(y[:, c]) == pytest.approx(0.0, abs=1e-14)
            assert np.var(y[:, c]) == pytest.approx(1.0, rel=1e-13)

    def test_each_channel_is_normalized_on_its_own(self) -> None:
        before = runtime.train(X, GAMMA, BETA, ZERO, ONE, backend="numpy").y
        other = X.copy()
        other[:, 1] = RNG.standard_normal((32, 5, 5)) * 100
        after = runtime.train(other, GAMMA, BETA, ZERO, ONE, backend="numpy").y
        np.testing.assert_array_equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
        assert not np.allclose(after[:, 1], before[:, 1])

    def test_the_statistics_are_those_of_the_current_mini_batch(self) -> None:
        small = runtime.train(X[:8], GAMMA, BETA, ZERO, ONE, backend="numpy").y
        large = runtime.train(X, GAMMA, BETA, ZERO, ONE, backend="numpy").y[:8]
        assert not np.allclose(small, large)


class TestTraining:
    def test_step_1_the_mean_of_the_mini_batch(self) -> None:
        got = runtime.train(X, GAMMA, BETA, ZERO, ONE, backend="numpy").mean
        for c in range(4):
            values = X[:, c].ravel()
            assert got[c] == pytest.approx(sum(values) / len(values), rel=1e-13)

    def test_step_2_the_variance_divides_by_m(self) -> None:
        got = runtime.train(X, GAMMA, BETA, ZERO, ONE, backend="numpy").var
        for c in range(4):
            values = X[:, c].ravel()
            mean = sum(values) / len(values)
            assert got[c] == pytest.approx(sum((v - mean) ** 2 for v in values) / len(values), rel=1e-12)

    def test_step_3_normalize_with_epsilon(self) -> None:
        step = runtime.train(X, ONE, ZERO, ZERO, ONE, epsilon=0.25, backend="numpy")
        xhat = (X - channel(step.mean)) / np.sqrt(channel(step.var) + 0.25)
        np.testing.assert_allclose(step.y, xhat, rtol=0, atol=1e-14)

    def test_epsilon_keeps_a_constant_feature_finite(self) -> None:
        flat = np.full((8, 4, 2, 2), 5.0)
        assert np.isfinite(runtime.train(flat, GAMMA, BETA, ZERO, ONE, epsilon=1e-5, backend="numpy").y).all()
        assert np.isnan(runtime.train(flat, GAMMA, BETA, ZERO, ONE, epsilon=0.0, backend="numpy").y).all()

    def test_step_4_scale_and_shift(self) -> None:
        xhat = runtime.train(X, ONE, ZERO, ZERO, ONE, backend="numpy").y
        y = runtime.train(X, GAMMA, BETA, ZERO, ONE, backend="numpy").y
        np.testing.assert_allclose(y, channel(GAMMA) * xhat + channel(BETA), rtol=0, atol=1e-14)

    def test_gamma_and_beta_are_learned_by_gradients(self) -> None:
        # A target that the normalized activations reach with one gamma and one beta per channel.
        wanted_gamma, wanted_beta = np.array([2.0, 0.5, -1.0, 3.0]), np.array([0.0, 1.0, -2.0, 0.5])
        xhat = runtime.train(X, ONE, ZERO, ZERO, ONE, backend="numpy").y
        target = channel(wanted_gamma) * xhat + channel(wanted_beta)
        gamma, beta = ONE, ZERO
        for _ in range(60):
            step = runtime.train(X, gamma, beta, ZERO, ONE, backend="numpy")
            dy = 2 * (step.y - target) / (X.size / 4)
            slope = runtime.backward(dy, X, gamma, mean=step.mean, var=step.var, backend="numpy")
            gamma, beta = gamma - 0.25 * slope.dscale, beta - 0.25 * slope.dbias
        np.testing.assert_allclose(gamma, wanted_gamma, atol=1e-9)
        np.testing.assert_allclose(beta, wanted_beta, atol=1e-9)


class TestWhyScaleAndShift:
    def test_gamma_and_beta_can_undo_the_normalization(self) -> None:
        step = runtime.train(X, ONE, ZERO, ZERO, ONE, epsilon=EPSILON, backend="numpy")
        gamma, beta = np.sqrt(step.var + EPSILON), step.mean
        y = runtime.train(X, gamma, beta, ZERO, ONE, epsilon=EPSILON, backend="numpy").y
        np.testing.assert_allclose(y, X, rtol=0, atol=1e-13)

    def test_they_set_any_mean_and_spread(self) -> None:
        y = runtime.train(X, GAMMA, BETA, ZERO, ONE, epsilon=0.0, backend="numpy").y
        np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), BETA, rtol=0, atol=1e-14)
        np.testing.assert_allclose(y.std(axis=(0, 2, 3)), GAMMA, rtol=1e-13)


class TestInference:
    def test_running_averages_follow_the_momentum_formula(self) -> None:
        alpha, mean, var = 0.8, ZERO, ONE
        expected_mean, expected_var = [0.0] * 4, [1.0] * 4
        for batch in np.split(X, 8):
            step = runtime.train(batch, GAMMA, BETA, mean, var, momentum=alpha, backend="numpy")
            mean, var = step.running_mean, step.running_var
            for c in range(4):
                expected_mean[c] = alpha * expected_mean[c] + (1 - alpha) * float(np.mean(batch[:, c]))
                expected_var[c] = alpha * expected_var[c] + (1 - alpha) * float(np.var(batch[:, c]))
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-13)
        np.testing.assert_allclose(var, expected_var, rtol=1e-13)

    def test_running_averages_come_to_the_population(self) -> None:
        rng = np.random.default_rng(1)
        mean, var = ZERO, ONE
        for _ in range(400):
            batch = rng.normal(3.0, 2.0, (256, 4))
            step = runtime.train(batch, GAMMA, BETA, mean, var, momentum=0.97, backend="numpy")
            mean, var = step.running_mean, step.running_var
        # An average over about 1/0.03 batches of 256: standard errors of 2/sqrt(256*65) = 0.016 and 0.045.
        np.testing.assert_allclose(mean, 3.0, atol=5 * 0.016)
        np.testing.assert_allclose(var, 4.0, atol=5 * 0.045)

    def test_a_sample_alone_gets_the_same_answer_as_in_a_batch(self) -> None:
        mean, var = X.mean(axis=(0, 2, 3)), X.var(axis=(0, 2, 3))
        batch = runtime.infer(X, GAMMA, BETA, mean, var, backend="numpy")
        for i in range(len(X)):
            alone = runtime.infer(X[i : i + 1], GAMMA, BETA, mean, var, backend="numpy")
            assert alone.tobytes() == batch[i : i + 1].tobytes()

    def test_mini_batch_statistics_of_one_sample_say_nothing(self) -> None:
        features = np.random.default_rng(0).standard_normal((1, 4))
        step = runtime.train(features, GAMMA, BETA, ZERO, ONE, backend="numpy")
        np.testing.assert_array_equal(step.y[0], BETA)

    def test_population_statistics_normalize_and_gamma_and_beta_still_apply(self) -> None:
        mean, var = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 0.25])
        y = runtime.infer(X, GAMMA, BETA, mean, var, epsilon=EPSILON, backend="numpy")
        xhat = (X - channel(mean)) / np.sqrt(channel(var) + EPSILON)
        np.testing.assert_allclose(y, channel(GAMMA) * xhat + channel(BETA), rtol=0, atol=1e-13)

    def test_with_the_statistics_of_the_batch_inference_is_training(self) -> None:
        step = runtime.train(X, GAMMA, BETA, ZERO, ONE, backend="numpy")
        y = runtime.infer(X, GAMMA, BETA, step.mean, step.var, backend="numpy")
        np.testing.assert_array_equal(y, step.y)


class TestPlacement:
    def test_between_a_linear_layer_and_its_activation_it_disappears_at_inference(self) -> None:
        # Fully connected -> batch normalization -> ReLU, as one layer with other weights.
        rng = np.random.default_rng(3)
        z, weight, offset = rng.standard_normal((6, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4)
        mean, var = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
        normalized = runtime.infer(z @ weight.T + offset, GAMMA, BETA, mean, var, backend="numpy")
        a = runtime.affine_of(GAMMA, BETA, mean, var)
        folded = z @ (a.scale[:, None] * weight).T + (a.scale * offset + a.shift)
        np.testing.assert_allclose(np.maximum(folded, 0), np.maximum(normalized, 0), rtol=0, atol=1e-13)

    def test_a_bias_in_front_of_it_has_no_effect_in_training(self) -> None:
        with_bias = runtime.train(X + channel(BETA) * 10, GAMMA, BETA, ZERO, ONE, backend="numpy").y
        without = runtime.train(X, GAMMA, BETA, ZERO, ONE, backend="numpy").y
        np.testing.assert_allclose(with_bias, without, rtol=0, atol=1e-11)
