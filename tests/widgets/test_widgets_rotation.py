"""The explorer of a swap: what it draws is what the library computes, live or not."""

from __future__ import annotations

import math
import random
import sys

import pytest
import torch
from mpl_toolkits.mplot3d import proj3d
from pages import Page
from plain import close

from interp_helpers.das.subspaces import principal_angles
from interp_helpers.edits import swapped
from interp_helpers.plotting.display import VIEW
from interp_helpers.widgets import rotation_explorer
from interp_helpers.widgets.rotation import BASE, SOURCE

ANGLES = [(random.Random(i).randrange(361), random.Random(-i).randrange(91)) for i in range(1, 9)] + [(0, 0), (90, 90)]
SETTINGS = [dict(azimuth=a, elevation=e, view=7 * a % 361, rank=1 + a % 2) for a, e in ANGLES]
SETTINGS += [dict(rank=rank, azimuth=a, elevation=e) for rank in (1, 2) for a in (0, 90) for e in (0, 90)]


@pytest.fixture
def explorer():
    return rotation_explorer()


def direction(azimuth: float, elevation: float) -> torch.Tensor:
    a, e = math.radians(azimuth), math.radians(elevation)
    return torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])


# -- what it computes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("azimuth, elevation", ANGLES)
def test_its_result_is_the_swap_along_the_direction_of_the_angles(azimuth, elevation):
    explorer = rotation_explorer().choose(azimuth=azimuth, elevation=elevation)
    base, source, q = torch.tensor(BASE), torch.tensor(SOURCE), direction(azimuth, elevation)
    close(explorer.subspace.basis.detach()[:, 0], q)
    close(explorer.vectors()["result"], base + (source - base) @ q * q)
    close(explorer.vectors()["base"], base)
    close(explorer.vectors()["source"], source)


@pytest.mark.parametrize("azimuth, elevation", ANGLES)
def test_the_plane_holds_the_line_and_the_horizontal_across_it(azimuth, elevation):
    explorer = rotation_explorer().choose(rank=2, azimuth=azimuth, elevation=elevation)
    basis = torch.stack([direction(azimuth, elevation), direction(azimuth + 90, 0)], dim=1)
    assert explorer.subspace.rank == 2
    assert principal_angles(explorer.subspace.basis, basis).max() < 0.01
    close(explorer.vectors()["result"], swapped(torch.tensor(BASE), torch.tensor(SOURCE), basis))


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_result_has_the_sources_part_within_and_the_bases_across(settings):
    explorer = rotation_explorer().choose(**settings)
    parts, q = explorer.parts(), direction(settings["azimuth"], settings["elevation"])
    close(parts["result"][0], parts["source"][0])
    close(parts["result"][1], parts["base"][1])
    for name, vector in explorer.vectors().items():
        close(sum(parts[name]), vector)
        assert abs(parts[name][1] @ q) < 1e-5, "across it is at right angles to it"


def angles_to(vector) -> dict[str, int]:
    x, y, z = vector if vector[2] >= 0 else [-part for part in vector]
    azimuth, elevation = math.atan2(y, x), math.atan2(z, math.hypot(x, y))
    return dict(azimuth=round(math.degrees(azimuth)) % 360, elevation=round(math.degrees(elevation)))


def test_its_title_says_what_is_true_at_these_settings(explorer):
    difference = (torch.tensor(explorer.source) - torch.tensor(BASE)).tolist()
    assert explorer.title == "Within the line the result equals the source, across it the base"
    assert "the plane" in explorer.choose(rank=2).title
    assert "nearly the source" in explorer.choose(rank=1, **angles_to(difference)).title
    x, y, _ = difference
    assert "nearly the base" in explorer.choose(**angles_to((-y, x, 0))).title
    assert "nearly the source" not in explorer.choose(rank=2).title
    assert explorer.choose(source=BASE).title == "The source equals the base: the swap changes nothing"
    close(explorer.vectors()["result"], explorer.vectors()["base"])


# -- choosing -----------------------------------------------------------------------------------------------------------


def test_choose_changes_what_is_shown(explorer):
    before = explorer.html
    assert explorer.choose(azimuth=10, elevation=15) is explorer
    assert "azimuth 10°, elevation 15°" in explorer.html and explorer.html != before


def test_an_angle_past_the_end_moves_to_the_end(explorer):
    assert (explorer.choose(elevation=120).elevation, explorer.choose(azimuth=-5).azimuth) == (90, 0)


def test_choose_refuses_what_cannot_be_chosen(explorer):
    with pytest.raises(ValueError, match="no 'colour' to choose: rank, source, azimuth, elevation or view"):
        explorer.choose(colour="red")
    with pytest.raises(ValueError, match="rank=3 is not among the choices: 1, a line, 2, a plane"):
        explorer.choose(rank=3)


# -- how it looks -------------------------------------------------------------------------------------------------------


def drawn(explorer):
    figure = explorer.picture.figure
    figure.draw_without_rendering()
    (axes,) = figure.axes
    return figure, axes, {text.get_text(): text for text in axes.texts if text.get_text()}


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_arrow_ends_at_its_vector_and_carries_its_name(explorer, settings):
    _, axes, labels = drawn(explorer.choose(**settings))
    assert set(labels) == {"base b", "source s", "result h", ("line", "plane")[explorer.rank - 1]}
    heads = [text.xy for text in axes.texts if not text.get_text()]
    for (name, vector), head in zip(explorer.vectors().items(), heads, strict=True):
        tip = proj3d.proj_transform(*vector, axes.get_proj())[:2]
        assert tuple(head) == pytest.approx(tip)
        assert tuple(next(text for label, text in labels.items() if label.startswith(name)).xy) == pytest.approx(tip)


@pytest.mark.parametrize("settings", SETTINGS)
def test_labels_do_not_overlap_and_nothing_is_cut_off(explorer, settings):
    for source in (explorer.source, BASE):
        figure, _, labels = drawn(explorer.choose(source=source, **settings))
        boxes = [text.get_window_extent() for text in labels.values()]
        assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) > 0 and box.x1 < width and box.y1 < height


def test_its_axes_are_named_and_its_title_is_the_finding(explorer):
    figure, axes, _ = drawn(explorer)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_zlabel()) == ("unit 1", "unit 2", "unit 3")
    assert figure._suptitle.get_text() == explorer.title


def test_the_picture_has_a_text_alternative_with_the_numbers(explorer):
    page = Page(explorer.html)
    (image,) = (attributes for tag, attributes in zip(page.tags, page.attributes, strict=True) if tag == "img")
    for part in (
        explorer.title,
        "azimuth 60°, elevation 60°",
        "base (1.80, -0.40, 0.40)",
        "source (-0.60, 1.00, 1.80)",
    ):
        assert part in image["alt"]
    assert image["src"].startswith("data:image/png;base64,") and int(image["width"]) == 840
    result = "({:.2f}, {:.2f}, {:.2f})".format(*explorer.vectors()["result"].tolist())
    assert f"result {result}" in image["alt"] and result in page.text
    assert page.tags.count("tr") == 4 and "within the line" in page.text


def test_no_number_is_a_minus_zero(explorer):
    for azimuth in range(0, 361, 30):
        assert "-0.00" not in repr(explorer.choose(azimuth=azimuth, elevation=90))


def test_the_bundle_has_widget_html_and_text(explorer):
    data = explorer._repr_mimebundle_()
    assert set(data) == {VIEW, "text/html", "text/plain"}
    assert data[VIEW]["model_id"] == explorer.widget.model_id
    assert data["text/html"] == explorer.html and data["text/plain"] == repr(explorer) == explorer.picture.alt


def test_without_ipywidgets_html_and_text_remain(explorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    data = explorer._repr_mimebundle_()
    assert set(data) == {"text/html", "text/plain"} and f'alt="{explorer.picture.alt}"' in data["text/html"]


# -- the live form ------------------------------------------------------------------------------------------------------


def test_moving_a_slider_changes_the_picture(explorer):
    *_, azimuth, elevation, view, picture = explorer.widget.children
    for slider, value in ((azimuth, 10), (elevation, 90), (view, 300)):
        before = picture.value
        slider.value = value
        assert picture.value == explorer.html != before
    assert (explorer.azimuth, explorer.elevation, explorer.view) == (10, 90, 300)
    assert (azimuth.max, elevation.max, view.max) == (360, 90, 360)


def test_choosers_change_the_picture(explorer):
    rank, source, *_, picture = explorer.widget.children
    rank.value = 2
    assert "Within the plane" in picture.value and picture.value == explorer.html
    source.value = BASE
    assert "the swap changes nothing" in picture.value


def test_shown_again_the_live_form_has_the_present_choice(explorer):
    _, _, azimuth, *_ = explorer.widget.children
    rank, _, later, *_, picture = explorer.choose(azimuth=2, rank=2).widget.children
    assert (rank.value, later.value) == (2, 2) and picture.value == explorer.html
    azimuth.value = 7  # the first form still works, and is the one that now shows what is chosen
    assert explorer.azimuth == 7 and explorer.widget.children[2] is azimuth
