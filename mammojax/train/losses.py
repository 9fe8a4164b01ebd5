"""Cross-entropy: with the sample weights of Shen et al. 2019, and summed over the halves of Wu et al. 2019."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def balanced_weights(labels_B: jax.Array, classes: int) -> jax.Array:
    """Weights that balance the classes inside one batch.

    w_i = N / n_class(i), over the classes present: labels [0, 0, 0, 1] give [4/3, 4/3, 4/3, 4]. Shen et al. 2019,
    "Network training": "the sample weights were adjusted within each batch to balance the five classes".

    Args:
        labels_B: int32 [B], values in 0 … classes - 1.
        classes: number of classes.

    Returns:
        float32 [B].
    """
    counts_K = jnp.zeros(classes, jnp.float32).at[labels_B].add(1.0)
    return labels_B.shape[0] / counts_K[labels_B]


def cross_entropy(logits_BxK: jax.Array, labels_B: jax.Array) -> jax.Array:
    """Cross-entropy of each example, float32 [B] in nats; logits float32 [B, K], labels int32 [B]."""
    log_p_BxK = jax.nn.log_softmax(logits_BxK.astype(jnp.float32))
    return -jnp.take_along_axis(log_p_BxK, labels_B[:, None], axis=1)[:, 0]


def exam_loss(predictions: Mapping[str, jax.Array], labels_BxR: jax.Array) -> jax.Array:
    """The loss of each exam, summed over its labels and over the halves that predict separately.

    Wu et al. 2019, section IV-A.1: "the model is actually trained to optimize the loss, which treats the predictions
    for the two views separately": eight binary cross-entropies for a view-wise network, of CC and of MLO.

    Args:
        predictions: logits float32 [B, R, K] by half, see `multi_view.MultiView`.
        labels_BxR: int32, values in 0 … K - 1.

    Returns:
        float32 [B] in nats.
    """
    halves = [jax.nn.log_softmax(logits.astype(jnp.float32)) for logits in predictions.values()]
    losses = [-jnp.take_along_axis(log_p, labels_BxR[..., None], axis=-1).sum(axis=(1, 2)) for log_p in halves]
    return jnp.sum(jnp.stack(losses), axis=0)


def exam_classes(predictions: Mapping[str, jax.Array]) -> jax.Array:
    """The classes of the highest probability, averaged over the halves: int [B, R]; see `exam_loss`."""
    halves = [jnp.exp(jax.nn.log_softmax(logits.astype(jnp.float32))) for logits in predictions.values()]
    return jnp.argmax(jnp.mean(jnp.stack(halves), axis=0), axis=-1)
