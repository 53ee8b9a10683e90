"""A page about a labelled data set: cases, labels, intensities and augmented patches.

cases -> a picture each, histograms, shares of labels, augmented patches -> one HTML file
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import set_track_meta
from numpy.typing import NDArray
from PIL import Image

from volseg.cases import Case, Dataset, read_images, read_reference
from volseg.config import Config, PartialConfig
from volseg.errors import DataError
from volseg.exporting.overlay import painted
from volseg.image.views import VIEWS, View, fullest_planes, grey_levels
from volseg.image.volume import Label, Mask, Volume
from volseg.io.files import write_text
from volseg.io.written import Inputs, claim
from volseg.planning.folder import plan_folder
from volseg.progress import Progress, ignore_progress
from volseg.training.patches import cut, draw_corner, find_locations
from volseg.training.slice_picture import network_grid
from volseg.transforms import IMAGE, REFERENCE, build_augmentation, preprocess

#: Cases that are shown and counted, evenly among all; those of which patches are shown, and how many of each.
_CASES, _AUGMENTED_CASES, _VERSIONS = 48, 3, 6
_LONGEST_SIDE, _BINS, _JPEG_QUALITY = 220, 64, 85
_COLORS = 3
_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #57606a; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9aa4ae; --page: #14181d; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; }
body { color: var(--text); background: var(--page); }
figure { display: inline-block; margin: 0 10px 14px 0; vertical-align: top; }
figcaption { font-size: 12px; color: var(--quiet); max-width: 220px; overflow-wrap: anywhere; }
img { border-radius: 4px; image-rendering: auto; max-width: 100%; }
"""
#: Readable on white and on black.
_CHART_TEXT = "#7d858e"


@dataclass(frozen=True, eq=False)
class _Seen:
    """A case that was read.

    Attributes:
        case_id: Which.
        caption: Its grid.
        picture: (rows, columns, 3) a slice with its labels.
        counts: (channels, bins) how often its values lie in each part of the range of the first case.
        voxels: Label name -> share of its voxels.
    """

    case_id: str
    caption: str
    picture: NDArray[np.uint8]
    counts: NDArray[np.int64]
    voxels: dict[str, float]


def show_dataset(
    data: Path,
    output: Path,
    given: PartialConfig,
    *,
    overwrite: bool = False,
    progress: Progress = ignore_progress,
) -> Path:
    """Write a self-contained HTML file about a labelled data set; it contains images of patients.

    Args:
        data: A labelled data set in any layout.
        output: The file.
        given: Configuration keys that are decided already.
        overwrite: Whether the user gave up a file that lies there.
        progress: Told per case.

    Returns:
        The file.

    Raises:
        DataError: If there is no labelled case.
        OutputExistsError: If there is a file that volseg did not write.
        OutputError: If it cannot be written.
    """
    claim([output], Inputs.of(data), overwrite=overwrite)
    dataset, plan = plan_folder(data, given, progress)
    config = plan.config
    places = np.unique(np.linspace(0, len(dataset.cases) - 1, min(_CASES, len(dataset.cases))).astype(int))
    cases = [dataset.cases[place] for place in places]
    limits = [(each.low[0], each.high[1]) for each in config.domain.intensities]
    seen = list(_looked_at(cases, config, limits, progress))
    patches = [versions for case in cases[:_AUGMENTED_CASES] if (versions := _versions(case, config))]
    write_text(output, _page(dataset, config, seen, patches, limits))
    return output


def _looked_at(
    cases: Sequence[Case], config: Config, limits: Sequence[tuple[float, float]], progress: Progress
) -> Iterator[_Seen]:
    data = config.data
    for done, case in enumerate(cases, start=1):
        try:
            image = read_images(case, data.channels)
            mask = read_reference(case, image, data.reference_labels, data.others)
        except DataError:  # planning has said what is wrong with it
            continue
        counts = np.stack(
            [
                np.histogram(channel[np.isfinite(channel)], _BINS, _range(limit))[0]
                for channel, limit in zip(image.array, limits, strict=True)
            ]
        )
        shares = {label.name: float((mask.array == label.value).mean()) for label in data.learned_labels}
        yield _Seen(case.case_id, str(image.geometry), _slice(image, mask, data.learned_labels), counts, shares)
        progress("show", done, len(cases), case.case_id)


def _range(limit: tuple[float, float]) -> tuple[float, float]:
    low, high = limit
    return (low, high) if high > low else (low, low + 1.0)


def _slice(image: Volume, mask: Mask, labels: tuple[Label, ...]) -> NDArray[np.uint8]:
    """Return the axial slice with the most labelled voxels, with the labels painted on it."""
    order = image.geometry.to_canonical
    values = order.apply(mask.array)
    view = VIEWS[0]
    plane = fullest_planes(values != 0)[view.through]
    channels = [view.cut(order.apply(channel), plane) for channel in image.array]
    return painted(_shown(channels), view.cut(values, plane), labels)


def _shown(channels: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return (rows, columns, 3) colours: three channels as they are, otherwise the first one in grey."""
    seen = channels if len(channels) == _COLORS else [channels[0]] * _COLORS
    return np.stack([np.round(grey_levels(channel)) for channel in seen], axis=-1).astype(np.uint8)


def _versions(case: Case, config: Config) -> list[NDArray[np.uint8]]:
    """Return a training patch of a case, and augmented versions of it."""
    try:
        sample = preprocess(case, config.data, config.preprocessing, reference=True)
    except DataError:
        return []
    image, reference = sample[IMAGE].numpy(), sample[REFERENCE].numpy()[0].astype(np.float32)
    outside = config.data.ignored_value or 0
    taught = reference * (reference != outside)
    rng = np.random.default_rng(config.training.seed)
    locations = find_locations(taught.astype(np.uint16), config.training.seed)
    r, a, s = reference.shape
    corner = draw_corner((r, a, s), config.patches.size, locations, 1.0, rng)
    both: dict[Any, Any] = {
        IMAGE: torch.from_numpy(cut(image, corner, config.patches.size)),
        REFERENCE: torch.from_numpy(cut(reference, corner, config.patches.size, outside)[np.newaxis]),
    }
    augment = build_augmentation(
        config.augmentation,
        config.data.labels,
        config.patches.size,
        config.preprocessing.axes,
        planes=config.patches.planes,
        outside=outside,
    )
    found = [_patch(both, config)]
    set_track_meta(False)  # as in training
    try:
        for seed in range(1, _VERSIONS):
            augment.set_random_state(seed=seed)
            found.append(_patch(augment({key: value.clone() for key, value in both.items()}), config))
    finally:
        set_track_meta(True)
    return found


def _patch(sample: dict[Any, Any], config: Config) -> NDArray[np.uint8]:
    """Return the middle slice of a patch, across its shortest axis, with its labels."""
    image, values = np.asarray(sample[IMAGE]), np.asarray(sample[REFERENCE])[0].astype(np.uint16)
    order = network_grid(values.shape, config.preprocessing.axes, (1.0, 1.0, 1.0)).to_canonical
    values = order.apply(values)
    view = _view_of_patches(values.shape)
    plane = values.shape[view.through] // 2
    channels = [view.cut(order.apply(channel), plane) for channel in image]
    return painted(_shown(channels), view.cut(values, plane), config.data.learned_labels)


def _view_of_patches(shape: tuple[int, ...]) -> View:
    """Return the view across the shortest axis of patches in canonical order; the axial one of several."""
    return min(VIEWS, key=lambda view: shape[view.through])


def _page(
    dataset: Dataset,
    config: Config,
    seen: Sequence[_Seen],
    patches: Sequence[Sequence[NDArray[np.uint8]]],
    limits: Sequence[tuple[float, float]],
) -> str:
    from plotly.offline import get_plotlyjs

    counted = "" if len(seen) == len(dataset.cases) else f", {len(seen)} of them shown and counted"
    title = f"{len(dataset.cases)} cases ({dataset.layout}){counted}"
    labels = ", ".join(f"{label.name} ({label.value})" for label in config.data.learned_labels)
    size = " x ".join(map(str, config.patches.size))
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>channels: {html.escape(', '.join(config.data.channels))}; labels: {html.escape(labels)}</p>",
        "<h2>Cases</h2>",
        "<p>The axial slice with the most labelled voxels, as seen from the feet.</p>",
        *(_figure(each.picture, f"{each.case_id}: {each.caption}") for each in seen),
        "<h2>Intensities</h2>",
        *(f"<p>{html.escape(text)}</p>" for text in _scales(config)),
        _histograms(seen, config, limits),
        "<h2>Labels</h2>",
        _shares(seen, config),
        "<h2>Augmentation</h2>",
        f"<p>The middle slice of a training patch of {size} voxels, then augmented.</p>",
        *("<div>" + "".join(_figure(version, "") for version in versions) + "</div>" for versions in patches),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>{''.join(parts)}</body></html>\n"
    )


def _figure(picture: NDArray[np.uint8], caption: str) -> str:
    """Return a picture of limited size with its caption, as HTML."""
    shown = Image.fromarray(np.ascontiguousarray(picture))
    scale = _LONGEST_SIDE / max(shown.size)
    size = max(1, round(shown.width * scale)), max(1, round(shown.height * scale))
    file = io.BytesIO()
    shown.resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=_JPEG_QUALITY)
    coded = base64.b64encode(file.getvalue()).decode("ascii")
    words = html.escape(caption)
    return f'<figure><img src="data:image/jpeg;base64,{coded}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def _scales(config: Config) -> Iterator[str]:
    """Yield how much the brightest voxels differ between cases, for each channel."""
    for name, seen in zip(config.data.channels, config.domain.intensities, strict=True):
        yield f"{name}: the brightest voxels have {seen.high[0]:.4g} in one case and {seen.high[1]:.4g} in another"


def _histograms(seen: Sequence[_Seen], config: Config, limits: Sequence[tuple[float, float]]) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (name, limit) in enumerate(zip(config.data.channels, limits, strict=True)):
        edges = np.linspace(*_range(limit), _BINS + 1)
        counts = np.sum([each.counts[number] for each in seen], axis=0) if seen else np.zeros(_BINS)
        color = name if name in {"red", "green", "blue"} else None
        middle = ((edges[1:] + edges[:-1]) / 2).tolist()
        figure.add_scatter(x=middle, y=counts.tolist(), name=name, line_shape="hvh", line_color=color)
    figure.update_layout(xaxis_title="intensity", yaxis_title="voxels", yaxis_type="log", height=320, margin={"t": 10})
    return _drawn(figure)


def _shares(seen: Sequence[_Seen], config: Config) -> str:
    import plotly.graph_objects as go

    names = [label.name for label in config.data.learned_labels]
    means = [float(np.mean([each.voxels[name] for each in seen])) if seen else 0.0 for name in names]
    cases = [sum(each.voxels[name] > 0 for each in seen) for name in names]
    told = [f"{share:.3%}, in {count} of {len(seen)} cases" for share, count in zip(means, cases, strict=True)]
    colors = [f"rgb{label.display_color}" for label in config.data.learned_labels]
    figure = go.Figure(go.Bar(x=means, y=names, orientation="h", text=told, marker_color=colors))
    figure.update_xaxes(tickformat="~%")
    figure.update_layout(xaxis_title="mean share of the voxels", height=140 + 28 * len(names), margin={"t": 10})
    return _drawn(figure)


def _drawn(figure: Any) -> str:
    """Return a chart as HTML, in colours that are readable on white and on black."""
    clear, grid = "rgba(0, 0, 0, 0)", "rgba(128, 128, 128, 0.3)"
    figure.update_layout(paper_bgcolor=clear, plot_bgcolor=clear, font_color=_CHART_TEXT)
    figure.update_xaxes(gridcolor=grid, zerolinecolor=grid)
    figure.update_yaxes(gridcolor=grid, zerolinecolor=grid)
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})
    return drawn
