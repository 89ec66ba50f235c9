"""Divide groups of patches into parts of given shares, balanced in size and prevalence."""

from __future__ import annotations

import math

import numpy as np

# The greedy pass is repeated with other seeded orders and the best balanced result is kept; one pass is
# enough where groups are many, because then every one of them is small.
DRAWS = 16
DRAWS_UP_TO_GROUPS = 5000


def balanced_parts(
    negatives: np.ndarray, positives: np.ndarray, ratios: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Part number of each group: int64, shape (groups,); the best of several seeded greedy passes.

    `negatives` and `positives` are each group's patches of the two classes (groups,); `ratios` (parts,) are
    above 0 and sum to 1. Every part gets both classes wherever as many groups as parts hold both; otherwise
    as many parts as could be found do, and the caller has to look.

    A pass takes the groups from large to small (by powers of two, in random order within one) and puts
    each where it lowers ``sum over parts k and quantities q of (share_kq - ratio_k)^2 / ratio_k`` most; the
    quantities are patients, negative and positive patches, so sizes and prevalence are balanced together.
    """
    counts = np.stack([np.ones_like(positives), negatives, positives], axis=1).astype(float)
    weights = counts / counts.sum(axis=0)
    magnitude = np.floor(np.log2(counts[:, 1:].sum(axis=1)))
    best, best_score = np.zeros(len(counts), dtype=np.int64), (math.inf, math.inf)
    for _ in range(DRAWS if len(counts) <= DRAWS_UP_TO_GROUPS else 1):
        part = np.zeros(len(counts), dtype=np.int64)
        gap = np.repeat(-ratios[:, None], weights.shape[1], axis=1)  # share - ratio, (parts, quantities)
        for group in np.lexsort((rng.random(len(counts)), -magnitude)):
            rise = (weights[group] * (2 * gap + weights[group])).sum(axis=1) / ratios
            part[group] = k = int(rise.argmin())
            gap[k] += weights[group]
        missing = _repair(part, negatives, positives, len(ratios))
        shares = np.stack([weights[part == k].sum(axis=0) for k in range(len(ratios))])
        score = (missing, float((((shares - ratios[:, None]) ** 2).sum(axis=1) / ratios).sum()))
        if score < best_score:
            best, best_score = part, score
    return best


def _repair(part: np.ndarray, negatives: np.ndarray, positives: np.ndarray, parts: int) -> int:
    """Move groups, in place, to parts that lack a class; return how many (part, class) are still missing.

    Always succeeds when there are as many groups with both classes as parts: a part that lacks a class has
    none of those, so another part has two and can give one away.
    """
    carries = np.stack([negatives > 0, positives > 0], axis=1)
    while True:
        holders = np.stack([carries[part == k].sum(axis=0) for k in range(parts)])  # (parts, classes)
        lacking = np.flatnonzero((holders == 0).any(axis=1))
        loss = (carries & (holders[part] == 1)).sum(axis=1)  # what a group's own part would miss
        for k in lacking:
            net = (carries & (holders[k] == 0)).sum(axis=1) - loss
            net[part == k] = 0
            if net.max() > 0:
                # Of the groups that help most, the smallest disturbs the ratios least.
                part[np.lexsort((negatives + positives, -net))[0]] = k
                break
        else:
            return int((holders == 0).sum())
