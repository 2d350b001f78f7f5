"""The optimizer that a configuration names, and its learning rates over the run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from m2net.errors import ConfigError
from m2net.networks import M2Net, build
from m2net.training.schedules import factor
from m2net.training.tuning import Tuning

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}

DEFAULT_OPTIMIZER = {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-4}


def make_optimizer(
    module: nn.Module, network: M2Net, given: Mapping[str, Any], tuning: Tuning, schedule: str, warmup: float, steps: float
) -> dict[str, Any]:  # fmt: skip
    """The optimizer of a module's parameters, as Lightning takes it; rates follow the schedule over the run's progress, step by step.

    Raises:
        ConfigError: unknown optimizer or argument, or no learning rate where parts of the network have their own.
    """
    by_progress = partial(factor, schedule, warmup=warmup)
    if tuning.frozen or tuning.layer_decay < 1:
        if "lr" not in given:
            raise ConfigError("model.tuning without a learning rate", expected="model.optimizer.lr")
        groups = tuning.groups(module, network, float(given["lr"]))
        optimizer = build(OPTIMIZERS, given, "optimizer", groups)
        rates = LambdaLR(optimizer, tuning.factors(groups, by_progress, steps))
    else:
        optimizer = build(OPTIMIZERS, given, "optimizer", module.parameters())
        rates = LambdaLR(optimizer, lambda step: by_progress(step / steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}
