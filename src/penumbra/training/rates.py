"""Which parameters of the supervised stage learn how fast."""

import math
from typing import Any

from penumbra import bayes
from penumbra.config import Config
from penumbra.model import Network


def parameter_groups(network: Network, config: Config) -> list[dict[str, Any]]:
    """Every parameter once: ``scale`` multiplies the scheduled rate, ``rate`` replaces it.

    Adam moves a parameter by at most about its rate per step. Gates and level weights start at
    zero, where a map is 1/2 everywhere, and have all their way to go.
    """
    train = config.train
    ordered = list(bayes.rho_parameters(network))
    rho = set(ordered)
    encoder = list(network.encoder.parameters())
    branches = network.branches
    heads = [branch.heads["findings"] for branch in branches if branch.findings]
    findings = [p for head in heads for p in head.parameters() if p not in rho]
    gates = [*(p for branch in branches for p in branch.gates.parameters()), network.beta]
    rest = [p for p in network.parameters() if p not in rho | {*encoder, *findings, *gates}]
    groups = [
        {"params": encoder, "scale": train.encoder_lr_factor},
        {"params": rest, "scale": 1.0},
        {"params": findings, "scale": train.findings_lr_factor},
        {"params": gates, "scale": config.attention.lr_factor},
    ]
    if ordered:
        groups.append({"params": ordered, "rate": lambda step: rho_rate(step, config)})
    return groups


def rho_rate(step: int, config: Config) -> float:
    """Rho's own learning rate: the scheduled one has all but ended when rho begins.

    Adam moves a parameter by at most about its rate per step, so a cosine whose mean is
    ``rho_travel`` over the steps left lets log sigma move that far, however few they are.
    """
    steps, settings = config.train.steps, config.bayes
    left = max(1.0, steps * (1 - settings.warm_start))
    share = min(1.0, max(0.0, 1 - (steps - step) / left))
    return settings.rho_travel / left * (1 + math.cos(math.pi * share))
