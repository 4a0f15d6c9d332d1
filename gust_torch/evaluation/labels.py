"""How channels are called in figures."""

from gust_torch.analysis.style import field_label
from gust_torch.graph_spec import GraphSpec
from gust_torch.models.points import Spec


def channel_label(name: str, spec: Spec) -> str:
    """Label of a channel: a lone letter as a symbol, else name and symbol as in all figures."""
    if len(name) == 1:
        return f"${name}$"
    return name.replace("_", " ") if isinstance(spec, GraphSpec) else field_label(name, spec).text
