"""How good features are, watched while P is trained."""

from typing import Any

import torch
import torch.nn.functional as F


def knn_accuracy(
    x: Any, y: Any, test_x: Any = None, test_y: Any = None, neighbors: int = 20, temperature: float = 0.07
) -> float:
    """Weighted k-nearest neighbours (Wu et al. 2018, arXiv 1805.01978): the `neighbors` most similar training images
    vote for their class, each with exp(cosine similarity / temperature).

    Args:
        x, test_x: (n, D) float features. y, test_y: (n,) int classes, from 0. Without test_x every image of x is tested
            against all the others.
    """
    x, y = F.normalize(torch.as_tensor(x)), torch.as_tensor(y)
    alone = test_x is None
    test_x, test_y = (x, y) if alone else (F.normalize(torch.as_tensor(test_x)), torch.as_tensor(test_y))
    right = 0
    for part in torch.arange(len(test_x)).split(1000):
        similarity = test_x[part] @ x.T  # (n, images of x)
        if alone:
            similarity[torch.arange(len(part)), part] = -torch.inf
        values, nearest = similarity.topk(min(neighbors, len(x) - alone))
        votes = values.new_zeros(len(part), int(y.max()) + 1).scatter_add_(1, y[nearest], (values / temperature).exp())
        right += int((votes.argmax(dim=1) == test_y[part]).sum())
    return right / len(test_x)
