"""Rectified flow: straight paths from noise to data, a velocity to learn, Euler steps to follow it.

After Liu et al., "Flow Straight and Fast" (https://arxiv.org/abs/2209.03003): x_t = (1 - t) x_0 + t e (Eq. 1, with time
running backwards here, as in MONAI), the velocity is x_0 - e.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.networks.schedulers import RFlowScheduler

LEVELS = 1000  # discrete times; a network is told t * LEVELS
LEAST = 0.25  # of the way

# x_t (B, C, ...) and times (B,) -> velocity like x_t
Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def path(data: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The points of straight paths at these times (B,), in 0 ... `LEVELS`, and the velocity to learn there."""
    return _scheduler().add_noise(data, noise, times), data - noise


def velocity(guess: torch.Tensor, at: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The velocity at points of paths that a network's guess means: (guess - x_t) / t, with t at least `LEAST`.

    The guess is of the data; nearer to them than `LEAST` it is of the point that lies so far on, since the division by
    a small t would let errors there drown all others. Guessing the data is the easier task where data are smooth and
    noise is not (Li and He, "Back to Basics: Let Denoising Generative Models Denoise", 2025).
    """
    return (guess - at) / _share(at, times).clamp(min=LEAST)


def bounded_velocity(guess: torch.Tensor, at: torch.Tensor, times: torch.Tensor, most: float) -> torch.Tensor:
    """The same, toward data of at most `most` on either side of 0. times: above 0."""
    share = _share(at, times)
    data = at + share * velocity(guess, at, times)
    return (data.clamp(-most, most) - at) / share


def _share(at: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """t of Eq. 1, to be multiplied with images."""
    return (times.to(at.dtype) / LEVELS).view(-1, *[1] * (at.ndim - 1))


def follow(velocity: Velocity, noise: torch.Tensor, steps: int) -> torch.Tensor:
    """Where the paths that begin at `noise` lead, in Euler steps."""
    scheduler = _scheduler()
    scheduler.set_timesteps(steps)
    times = [int(time) for time in scheduler.timesteps]
    at = noise
    for time, later in zip(times, [*times[1:], 0], strict=True):
        told = torch.full((len(at),), time, device=at.device)
        at, _ = scheduler.step(velocity(at, told), time, at, later)
    return at


def _scheduler() -> RFlowScheduler:
    return RFlowScheduler(num_train_timesteps=LEVELS)
