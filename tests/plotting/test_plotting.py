"""The house style of figures: what a picture hands to a notebook, and that it can be read by everyone."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace

import matplotlib
import matplotlib.text
import numpy as np
import pytest
import torch

from interp_helpers.plotting.figures import (
    COLOURS,
    DASHES,
    DIVERGING,
    MARKERS,
    bars,
    clouds,
    curves,
    heatmap,
    heatmaps,
    intervals,
    scatter,
    strips,
)
from interp_helpers.sweeps.sweep import Sweep

# Tokens that a prompt may hold, and that a drawing library may take for something else.
ODD = ["$", "$x$", "_", "^{", "\\frac{", "%", "a\nb", "<b>", "😀", "שלום", "é", "\ufffd"]


def sweep(tokens=("The", " Col", "osse", "um"), layers=3, base=-1.0, source=2.0) -> Sweep:
    values = torch.linspace(-0.5, 1.5, layers * len(tokens)).reshape(layers, len(tokens))
    labels = {"layer": list(range(layers)), "position": [f"{i} {token}" for i, token in enumerate(tokens)]}
    return Sweep(
        values=values,
        axes=("layer", "position"),
        labels=labels,
        base=torch.tensor(base),
        source=torch.tensor(source),
        metric="logit(Paris) − logit(Rome)",
        component="block_output",
    )


PICTURES = {
    "heatmap": lambda: heatmap(sweep(), title="The last token carries it"),
    "heatmaps": lambda: heatmaps({"stream": sweep(), "MLPs": sweep(base=-0.5)}, title="Both carry it"),
    "curves": lambda: curves(
        [0, 1, 2], {"one": [0.0, 0.5, 1.0], "two": [1.0, 0.2, 0.1]}, errors={"one": [0.1, 0.1, 0.2]},
        title="They cross", xlabel="layer", ylabel="share (mean ± standard error)", references={"neither": 0.5},
    ),
    "clouds": lambda: clouds(
        {"one": [(0, 0), (1, 2)], "two": [(5, 5), (7, 5)]}, arrows={"there": ((0.5, 1), (6, 5))}, marks={"mine": (3, 3)},
        title="They lie apart", xlabel="first", ylabel="second",
    ),
    "intervals": lambda: intervals(
        {"a": {"with": (0.5, 0.4, 0.7), "without": (0.1, 0.0, 0.2)}, "b": {"with": (0.2, 0.1, 0.4)}},
        title="With is more", xlabel="share, with 95 % interval",
    ),
    "strips": lambda: strips({"a": [0.1, 0.5, 0.9], "b": [0.2]}, title="Means hide", xlabel="share of the way"),
    "curves with a word at each point, on a logarithmic scale": lambda: curves(
        [0.1, 0.2], {"a": [1, 100], "b": [2, 3]}, title="a rises", xlabel="strength", ylabel="cost", log=True,
        limits={"allowed: .15": 0.15}, beside={"a": ["low", "high"]},
    ),
    "bars": lambda: bars({"one": 0.5, "two": -0.25}, errors={"one": 0.1}, title="One is larger", ylabel="share"),
}  # fmt: skip


@pytest.fixture(params=PICTURES)
def picture(request):
    return PICTURES[request.param]()


def axes_of(picture):
    return picture.figure.axes[0]


# -- a picture ----------------------------------------------------------------------------------------------------------


def test_a_notebook_gets_a_png_with_its_text_alternative(picture):
    data, metadata = picture._repr_mimebundle_()
    about = metadata["image/png"]
    assert data["text/plain"] == about["alt"] == picture.alt == repr(picture) and len(picture.alt) > 40
    assert data["image/png"].startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data["image/png"][16:24])
    assert (width, height) == (2 * about["width"], 2 * about["height"]), "drawn twice as fine as shown"
    assert about["width"] == 840, "the width of a notebook's column"


def test_a_page_gets_the_text_alternative_too():
    data, _ = bars({"a": 1.0}, title='"A" < B', ylabel="share")._repr_mimebundle_()
    assert data["text/html"].startswith('<img alt="&quot;A&quot; &lt; B share: a 1.00." width="840"')
    assert base64.b64encode(data["image/png"]).decode() in data["text/html"]


def test_the_title_and_both_axes_are_named(picture):
    axes = axes_of(picture)
    assert axes.get_title(loc="left") and any(axes.get_xlabel() for axes in picture.figure.axes)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert axes.get_ylabel() or names in (["one", "two"], ["a", "b"]), "bars and groups carry their names on the axis"


def test_nothing_is_cut_off(picture):
    picture.figure.draw_without_rendering()
    drawn, (width, height) = picture.figure.get_tightbbox(), picture.figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) > -0.02 and drawn.x1 < width + 0.02 and drawn.y1 < height + 0.02


def test_a_long_label_is_broken_into_lines_of_like_length():
    label = "layer whose output is patched (counted from 0), at the last token of the prompt"
    axes = axes_of(curves([0, 1], {"a": [0, 1]}, title="t", xlabel=label, ylabel="share\nof all"))
    lines = axes.get_xlabel().split("\n")
    assert " ".join(lines) == label and len(lines) == 2 and min(map(len, lines)) > 0.7 * max(map(len, lines))
    assert axes.get_ylabel() == "share\nof all", "breaks of its own stay where they fit"


def test_curves_can_carry_words_limits_and_a_logarithmic_scale():
    picture = PICTURES["curves with a word at each point, on a logarithmic scale"]()
    axes = axes_of(picture)
    assert axes.get_yscale() == "log" and {"low", "high", "allowed: .15"} <= {text.get_text() for text in axes.texts}
    assert "allowed: .15 at 0.15" in picture.alt


def test_a_picture_can_be_saved(picture, tmp_path):
    for name in ("figure.png", "figure.svg", "figure.pdf"):
        picture.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    PICTURES["heatmap"]().png()
    assert dict(matplotlib.rcParams) == before


def test_an_own_text_alternative_is_kept():
    assert heatmap(sweep(), title="One", alt="Just one.").alt == "Just one."


# -- heatmaps -----------------------------------------------------------------------------------------------------------


def test_a_heatmap_has_layers_across_and_tokens_down():
    axes = axes_of(heatmap(sweep()))
    assert axes.get_xlabel() == "layer (counted from 0)" and axes.get_ylabel() == "token"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0 The", "1  Col", "2 osse", "3 um"]
    assert axes.images[0].get_array().shape == (4, 3)


def test_the_colours_diverge_from_zero():
    image = axes_of(heatmap(sweep(base=-1.0, source=2.0))).images[0]
    low, high = image.get_clim()
    assert low == -high == -2.0, "the unpatched runs are on the scale too"
    white = matplotlib.colormaps[DIVERGING](0.5)[:3]
    assert min(white) > 0.95
    red, blue = image.cmap(image.norm(2.0)), image.cmap(image.norm(-2.0))
    assert red[0] > red[2] and blue[2] > blue[0]


def test_in_grey_a_minus_tells_blue_from_red():
    made = sweep()
    made.values.zero_()
    made.values[1, 2], made.values[2, 3], made.values[0, 0] = -1.5, 1.5, -0.2
    axes = axes_of(heatmap(made))
    assert [(*text.get_position(), text.get_text()) for text in axes.texts] == [(1, 2, "−")]


def test_several_heatmaps_share_one_scale_that_holds_them_all():
    small, large = sweep(), sweep(base=-4.0)
    picture = heatmaps({"small": small, "large": large}, title="Two of them")
    first, second = picture.figure.axes[:2]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-4.0, 4.0)
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("small", "large")
    assert picture.figure._suptitle.get_text() == "Two of them"
    assert "small: Sweep of" in picture.alt and "large: Sweep of" in picture.alt


def test_no_heatmaps_are_no_picture():
    with pytest.raises(ValueError, match="There is no sweep to draw"):
        heatmaps({}, title="x")


def test_the_two_runs_are_called_what_the_sweep_calls_them():
    picture = heatmap(replace(sweep(), ends=("corrupted", "clean")))
    told = [label.get_text() for label in picture.figure.axes[-1].get_yticklabels()]
    named = [label.split(" ", 1)[1] for label in told if " " in label]
    assert named == ["corrupted", "clean"] and len(told) > len(named), "with numbers, and ticks between them"
    assert "corrupted -1.00, clean 2.00" in picture.alt


def test_a_sweep_without_any_effect_can_be_drawn():
    nothing = sweep(base=0.0, source=0.0)
    nothing.values.zero_()
    assert heatmap(nothing).png()


def test_a_heatmap_of_a_deep_model_names_every_few_layers():
    axes = axes_of(heatmap(sweep(layers=48)))
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(i) for i in range(0, 48, 3)]


def test_a_batch_of_pairs_has_to_be_averaged_first():
    one = sweep()
    both = Sweep(
        values=torch.stack([one.values, one.values]),
        axes=("pair", *one.axes),
        labels={"pair": [0, 1], **one.labels},
        base=torch.zeros(2),
        source=torch.ones(2),
        metric=one.metric,
        component=one.component,
    )
    with pytest.raises(ValueError, match=r"('pair', 'layer', 'position').*sweep\.mean\(\)"):
        both.plot()
    assert both.mean().plot().png()


def test_a_sweep_plots_itself():
    assert axes_of(sweep().plot(title="So it is")).get_title(loc="left") == "So it is"


# -- tokens that look like something else -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Glyph")
def test_odd_tokens_are_drawn_as_they_are():
    title = "'$' and '$x_1$' carry \\frac{it"
    picture = heatmap(sweep(tokens=ODD), title=title)
    assert picture.png() and axes_of(picture).get_title(loc="left") == title
    rows = [label.get_text() for label in axes_of(picture).get_yticklabels()]
    assert rows == [f"{i} {token}".replace("\n", "\\n") for i, token in enumerate(ODD)]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_text_is_taken_for_a_formula():
    options = dict(title="'$x$'", xlabel="$x$", ylabel="$y$")
    for picture in (
        heatmap(sweep(tokens=ODD), title="'$x$'"),
        curves([0, 1], {token: [0, 1] for token in ODD[:6]}, references={"$r$": 0.5}, **options),
        bars(dict.fromkeys(ODD, 0.5), title="'$x$'", ylabel="$y$"),
    ):
        assert picture.png()
        assert not any(text.get_parse_math() for text in picture.figure.findobj(matplotlib.text.Text))


# -- readable by everyone -----------------------------------------------------------------------------------------------


def linear(colour) -> np.ndarray:
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness(colour) -> float:
    """CIE L*, from 0 (black) to 100 (white): what is left of a colour in a grey print."""
    y = float(linear(colour) @ [0.2126, 0.7152, 0.0722])
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_the_first_colours_differ_in_lightness():
    first = sorted(lightness(colour) for colour in COLOURS[:5])
    assert min(np.diff(first)) > 3 and first[-1] - first[0] > 20
    assert max(first) < 75, "dark enough on white"


def test_every_curve_has_its_own_marker_and_dash():
    assert len(set(MARKERS)) == len(set(map(str, DASHES))) == len(set(COLOURS)) == len(COLOURS)
    lines = axes_of(curves([0, 1], {str(i): [0, i] for i in range(7)}, title="t", xlabel="x", ylabel="y")).lines
    assert len({(line.get_marker(), str(line.get_linestyle()), line.get_color()) for line in lines}) == 7


@pytest.mark.parametrize(
    "sees",  # red-blind and green-blind (Viénot, Brettel and Mollon 1999), on linear RGB
    [
        np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    ],
    ids=["protanopia", "deuteranopia"],
)
def test_the_colour_blind_see_different_colours(sees):
    seen = [np.clip(sees @ linear(colour), 0, 1) ** (1 / 2.2) for colour in COLOURS]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
    assert min(apart) > 0.1
    map_ends = [sees @ linear(matplotlib.colormaps[DIVERGING](end)) for end in (0.1, 0.9)]
    assert np.linalg.norm(map_ends[0] - map_ends[1]) > 0.2, "negative and positive can be told apart"


def test_the_scale_darkens_to_both_ends():
    left = [lightness(matplotlib.colormaps[DIVERGING](x)) for x in np.linspace(0.5, 0, 11)]
    right = [lightness(matplotlib.colormaps[DIVERGING](x)) for x in np.linspace(0.5, 1, 11)]
    for side in (left, right):
        assert (np.diff(side) < 0).all()


# -- curves and bars ----------------------------------------------------------------------------------------------------


def test_curves_carry_legend_bands_and_reference_lines():
    axes = axes_of(PICTURES["curves"]())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    assert len(axes.collections) == 1, "a band for the curve that has errors"
    assert axes.lines[-1].get_ydata()[0] == 0.5 and axes.texts[0].get_text() == "neither"


def test_the_alt_text_of_curves_tells_their_ends_and_tops():
    assert "one from 0.00 to 1.00, highest 1.00 at 2" in PICTURES["curves"]().alt
    assert "two from 1.00 to 0.10, highest 1.00 at 0" in PICTURES["curves"]().alt


def test_curves_take_tensors():
    shown = curves(
        torch.arange(3), {"x": torch.rand(3)}, errors={"x": torch.rand(3)}, title="t", xlabel="x", ylabel="y"
    )
    assert shown.png()


def test_bars_stand_in_the_order_given_with_their_values():
    picture = PICTURES["bars"]()
    axes = axes_of(picture)
    assert [text.get_text() for text in axes.texts] == ["0.50", "−0.25"]
    assert axes.yaxis_inverted() and [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert "one 0.50, two −0.25" in picture.alt


def test_a_bar_hardly_below_zero_has_its_value_right_of_the_axis():
    small, large = axes_of(bars({"a": -0.01, "b": 1.0, "c": -0.5}, title="t", ylabel="y")).texts[0::2]
    assert (small.get_ha(), small.get_text(), large.get_ha()) == ("left", "−0.01", "right")


# -- scatter -----------------------------------------------------------------------------------------------------------

POINTS = {"23.3": (0.5, 0.6), "20.0": (0.0, 0.4), "24.4": (-0.3, -0.5), "1.1": (0.01, 0.0)}
SAID = dict(title="So it is", xlabel="direct", ylabel="total")


def test_the_six_points_furthest_out_are_named():
    points = POINTS | {f"0.{i}": (0.02 * i, 0.02) for i in range(4)}
    axes = scatter(points, **SAID).figure.axes[0]
    texts = {text.get_text() for text in axes.findobj(matplotlib.text.Annotation)}
    assert texts == {"23.3", "24.4", "20.0", "0.3", "0.2", "0.1"}
    assert sum(len(drawn.get_offsets()) for drawn in axes.collections) == len(points)


def test_it_has_a_title_named_axes_and_a_text_alternative():
    picture = scatter({name: POINTS[name] for name in ("24.4", "23.3")}, **SAID)
    axes = picture.figure.axes[0]
    assert axes.get_title(loc="left") == "So it is"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("direct", "total")
    assert (
        picture.alt == "So it is total against direct, 2 points; furthest out: 23.3 (0.50, 0.60), 24.4 (-0.30, -0.50)."
    )
    assert picture.png().startswith(b"\x89PNG")


# -- groups -------------------------------------------------------------------------------------------------------------


def test_clouds_have_a_marker_a_group_equal_scales_and_say_where_everything_lies():
    picture = PICTURES["clouds"]()
    axes = axes_of(picture)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two", "arrow: there"]
    assert axes.get_aspect() == 1.0
    for said in ("one, 2 points about (0, 1)", "arrow there from (0, 1) to (6, 5)", "mine at (3, 3)"):
        assert said in picture.alt
    assert "mine" in {text.get_text() for text in axes.texts}


def test_intervals_are_drawn_where_they_are():
    picture = PICTURES["intervals"]()
    first, second = axes_of(picture).containers
    ends = [line.vertices[:, 0].tolist() for line in first.lines[2][0].get_paths()]
    assert np.allclose(ends, [[0.4, 0.7], [0.1, 0.4]])
    assert len(second.lines[0].get_xdata()) == 1, "a group may lack a condition"
    assert "a: with 0.50 [0.40, 0.70], without 0.10 [0.00, 0.20]; b: with 0.20" in picture.alt


def test_strips_show_every_value_and_the_mean():
    picture = PICTURES["strips"]()
    dots = [points.get_offsets()[:, 0].tolist() for points in axes_of(picture).collections]
    assert dots == [[0.1, 0.5, 0.9], [0.2]]
    assert "a: 3 from 0.10 to 0.90, mean 0.50; b: 1 from 0.20 to 0.20, mean 0.20" in picture.alt


def test_an_error_bar_may_reach_further_to_one_side():
    picture = bars(
        {"even": 0.5, "to one side": 0.9}, errors={"even": 0.1, "to one side": (0.3, 0.05)}, title="t", ylabel="y"
    )
    (lines,) = [c for c in picture.figure.axes[0].collections if len(c.get_segments()) == 2]
    assert np.round([segment[:, 0] for segment in lines.get_segments()], 3).tolist() == [[0.4, 0.6], [0.6, 0.95]]
