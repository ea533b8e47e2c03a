"""The averaged weights of a generator, which are what is looked at, scored and shipped."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

ESTABLISHED = 1_000_000  # updates of an average that begins with weights that were trained


class ParameterAverage:
    """Average of parameters only, as published; what is saved has the live batch-norm statistics beside them.

    The rate starts low and rises to `rate`, so that random weights are forgotten quickly; one that begins with trained
    weights is `ESTABLISHED`, and averages over its whole time at once.
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        self.rate, self.updates = rate, 0
        self.parameters = {name: value.detach().clone() for name, value in net.named_parameters()}

    @property
    def rate_now(self) -> float:
        """What share of the average the next update keeps."""
        return min(self.rate, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move towards the net's parameters."""
        self.updates += 1
        rate = self.rate_now
        live = [value.detach() for value in net.parameters()]
        get_ema_multi_avg_fn(rate)(list(self.parameters.values()), live, self.updates)

    def state_dict(self, net: nn.Module) -> dict[str, Tensor]:
        """Averaged parameters with the live buffers of the net."""
        return net.state_dict() | self.parameters

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Continue from what `state_dict` gave after that many updates."""
        for name, value in self.parameters.items():
            value.copy_(state[name])
        self.updates = updates
