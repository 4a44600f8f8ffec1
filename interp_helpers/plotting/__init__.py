"""Figures in one house style, each with a text alternative; tables; and what shows a widget or its picture."""

from .display import Live as Live
from .display import html_table as html_table
from .figures import COLOURS as COLOURS
from .figures import STYLE as STYLE
from .figures import Picture, bars, clouds, curves, heatmap, heatmaps, intervals, scatter, strips

__all__ = ["Picture", "bars", "clouds", "curves", "heatmap", "heatmaps", "intervals", "scatter", "strips"]
