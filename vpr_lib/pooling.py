"""What several aggregators share."""

import torch
import torch.nn.functional as F


def unit(x: torch.Tensor) -> torch.Tensor:
    """(B, ...) -> (B, D) float32 of unit L2 norm; half precision would lose small differences between photos."""
    return F.normalize(x.float().flatten(1), dim=1)


def generalized_mean(x: torch.Tensor, p: torch.Tensor, eps: float) -> torch.Tensor:
    """The mean of each channel's p-th powers, to the power of 1/p; call it outside of autocast.

    Args:
        x: (B, C, H, W) float32; values below `eps` count as `eps`.
        p: (1,) float32, the exponent.
        eps: above 0; the gradient of a power is infinite at 0 for p below 1.

    Returns:
        (B, C) float32.

    Source: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation (TPAMI 2018), eq. 3.
    """
    x = x.clamp(min=eps)
    # Activations are divided by their maximum: from p = 7.5 on, the power of 1e-6 would underflow to 0, whose root has
    # an infinite gradient. The maximum cancels out of the result, so it needs no gradient.
    maximum = x.detach().amax((2, 3), keepdim=True)  # (B, C, 1, 1)
    return maximum.flatten(1) * (x / maximum).pow(p).mean((2, 3)).pow(1 / p)
