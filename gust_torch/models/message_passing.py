"""The graph encoder's layer. Importing this module needs torch_geometric."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from gust_torch.models.attention import mlp


class EdgeConvolution(MessagePassing):
    """h_i + mean over neighbors j of mlp([norm(h_i), norm(h_j), x_j - x_i, |x_j - x_i|]).

    Source: Pfaff et al. 2021 (MeshGraphNets), section 3.2, without edge states.

    Args:
        width: Node features.
        num_dims: Dimensions d of the coordinates.
    """

    def __init__(self, width: int, num_dims: int) -> None:
        super().__init__(aggr="mean")
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp(2 * width + num_dims + 1, width, width)

    def forward(self, rows: Tensor, x: Tensor, edges: Tensor) -> Tensor:
        """Map node features (n, width) at coordinates x (n, d), with edges (2, e), to the same shape."""
        update: Tensor = self.propagate(edges, h=self.norm(rows), x=x, size=None)
        return rows + update

    def message(self, h_i: Tensor, h_j: Tensor, x_i: Tensor, x_j: Tensor) -> Tensor:
        """Messages (e, width) from j to i."""
        offset = x_j - x_i
        message: Tensor = self.mlp(torch.cat((h_i, h_j, offset, offset.norm(dim=-1, keepdim=True)), dim=-1))
        return message
