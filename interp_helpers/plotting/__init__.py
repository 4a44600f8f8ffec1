"""Figures in one house style, each with a text alternative; and what shows a widget or its picture."""

from .display import mimebundle as mimebundle
from .figures import COLOURS as COLOURS
from .figures import STYLE as STYLE
from .figures import Picture, bars, clouds, curves, heatmap, heatmaps, intervals, scatter

__all__ = ["Picture", "bars", "clouds", "curves", "heatmap", "heatmaps", "intervals", "scatter"]
