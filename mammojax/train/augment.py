"""Augmentation on the device, inside the jitted step (Shen et al. 2019, "Network training").

Horizontal and vertical flips, rotation in ±25°, zoom in 0.8 … 1.2 independently per axis, intensity shift in ±20 gray
values of 255; shear is the published code's addition. Nearest neighbour and edge fill are the published code's.
"""

import jax
import jax.numpy as jnp
import ml_collections

ORDERS = ("nearest", "linear")
BORDERS = ("edge", "reflect")


def affine_sample(
    images_BxHxWx1: jax.Array, matrices_Bx2x3: jax.Array, order: str, border: str = "edge"
) -> jax.Array:  # fmt: skip
    """Sample each image at matrix @ (row, column, 1) of every output pixel.

    Args:
        images_BxHxWx1: float32.
        matrices_Bx2x3: from output to input pixel coordinates, as scipy.ndimage.affine_transform takes them.
        order: "nearest" or "linear".
        border: outside the image the "edge" continues, or the image is mirrored at it ("reflect").

    Returns:
        float32 [B, H, W, 1].

    Raises:
        ValueError: an unknown order or border.
    """
    if order not in ORDERS:
        raise ValueError(f'config.augment.order is "{order}"; write "nearest" or "linear".')
    if border not in BORDERS:
        raise ValueError(f'config.augment.border is "{border}"; write "edge" or "reflect".')
    height, width = images_BxHxWx1.shape[1:3]
    rows, columns = jnp.arange(height, dtype=jnp.float32)[:, None], jnp.arange(width, dtype=jnp.float32)[None, :]

    def inside(place: jax.Array, size: int) -> jax.Array:
        if border == "reflect":  # the pixel at the edge comes twice
            turned = jnp.mod(place + 0.5, 2 * size)
            place = jnp.minimum(turned, 2 * size - turned) - 0.5
        return jnp.clip(place, 0, size - 1)

    def sample(image_HxW: jax.Array, m: jax.Array) -> jax.Array:
        y = inside(m[0, 0] * rows + m[0, 1] * columns + m[0, 2], height)
        x = inside(m[1, 0] * rows + m[1, 1] * columns + m[1, 2], width)
        flat = image_HxW.reshape(-1)
        if order == "nearest":
            return flat[jnp.floor(y + 0.5).astype(jnp.int32) * width + jnp.floor(x + 0.5).astype(jnp.int32)]
        y0, x0 = jnp.floor(y), jnp.floor(x)
        top, left = y0.astype(jnp.int32), x0.astype(jnp.int32)
        below, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
        dy, dx = y - y0, x - x0
        upper = flat[top * width + left] * (1 - dx) + flat[top * width + right] * dx
        lower = flat[below * width + left] * (1 - dx) + flat[below * width + right] * dx
        return upper * (1 - dy) + lower * dy

    return jax.vmap(sample)(images_BxHxWx1[..., 0], matrices_Bx2x3)[..., None]


def random_matrices(key: jax.Array, count: int, size: tuple[int, int], config: ml_collections.ConfigDict) -> jax.Array:
    """One random map from output to input pixels for each of `count` images, float32 [count, 2, 3].

    The map is about the centre of the image: flip, zoom, shear and rotation in one matrix, then the translation.
    """
    keys = jax.random.split(key, 5)

    def uniform(k: jax.Array, low: float, high: float, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(k, shape, jnp.float32, low, high)

    angle = jnp.deg2rad(uniform(keys[0], -config.rotation, config.rotation, (count,)))
    zoom_Bx2 = uniform(keys[1], config.zoom[0], config.zoom[1], (count, 2))
    shear = uniform(keys[2], -config.shear, config.shear, (count,))
    coins_Bx2 = jax.random.bernoulli(keys[3], 0.5, (count, 2))
    allowed = jnp.array([[config.flip_vertical, config.flip_horizontal]])
    signs_Bx2 = jnp.where(coins_Bx2 & allowed, -1.0, 1.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.stack(
        [jnp.stack([cos, -jnp.sin(angle + shear)], -1), jnp.stack([sin, jnp.cos(angle + shear)], -1)], 1
    )
    linear_Bx2x2 = rotation * (zoom_Bx2 * signs_Bx2)[:, None, :]
    centre = (jnp.array(size, jnp.float32) - 1) / 2
    offset_Bx2 = centre[None, :] - jnp.einsum("bij,j->bi", linear_Bx2x2, centre)
    most = config.get("translation", 0.0)  # absent from the configs of older runs
    offset_Bx2 += uniform(keys[4], -most, most, (count, 2)) * jnp.array([size], jnp.float32)
    return jnp.concatenate([linear_Bx2x2, offset_Bx2[..., None]], -1)


def augment(key: jax.Array, images_BxHxWx1: jax.Array, config: ml_collections.ConfigDict) -> jax.Array:
    """Augment a batch; every image draws its own map and shift.

    Args:
        key: a JAX random key.
        images_BxHxWx1: float32 on the 0 … 255 scale.
        config: flip_horizontal, flip_vertical (bool), rotation (degrees), zoom (low, high), shear (radians),
            translation (the largest move, as a share of each side; in neither paper), intensity (gray
            values of 255), contrast (the least and the largest factor of the distances from an image's mean; in neither
            paper), saturate (bool: what the shift takes out of 0 … 255 is clipped), order "nearest" or "linear", border
            "edge" or "reflect".

    Returns:
        float32 [B, H, W, 1]; without `saturate` the shift may leave 0 … 255.
    """
    count, height, width = images_BxHxWx1.shape[:3]
    map_key, shift_key = jax.random.split(key)
    low, high = config.get("contrast", (1.0, 1.0))  # absent from the configs of older runs
    matrices = random_matrices(map_key, count, (height, width), config)
    images = affine_sample(images_BxHxWx1, matrices, config.order, config.get("border", "edge"))
    shift = jax.random.uniform(shift_key, (count, 1, 1, 1), jnp.float32, -config.intensity, config.intensity)
    if low != high:
        factor = jax.random.uniform(jax.random.fold_in(shift_key, 1), (count, 1, 1, 1), jnp.float32, low, high)
        mean = images.mean((1, 2, 3), keepdims=True)
        images = mean + factor * (images - mean)
    return jnp.clip(images + shift, 0, 255) if config.get("saturate", False) else images + shift
