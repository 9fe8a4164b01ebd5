"""Cross-entropy with the sample weights of the two stages of Shen et al. 2019."""

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
