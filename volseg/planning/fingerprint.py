"""The fingerprint of a data set, for which every case is read once."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from volseg.cases import Case, Dataset, annotated_labels, check_others, read_images, read_reference, read_region
from volseg.cases.content import VoxelValues
from volseg.config import IGNORE, Others, PartialData
from volseg.config.section import Triple
from volseg.errors import ConfigError, DataError, WorkerLostError
from volseg.image.geometry import Geometry, Unit
from volseg.image.intensities import Intensities
from volseg.image.naming import plain_name
from volseg.image.volume import Label
from volseg.io import stated_modality
from volseg.model.domain import ImageTraits
from volseg.parallel import side_by_side
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)

#: Voxels per label and case whose intensities enter the statistics.
_SAMPLES = 5_000
#: For a data set without any given keys.
_NOTHING_GIVEN = PartialData()


@dataclass(frozen=True, eq=False)
class CasePrint:
    """The fingerprint of one case, axes in R, A, S order.

    Attributes:
        shape: Voxels.
        spacing_mm: Voxel size.
        modalities: Per channel "CT", "MR" or empty, as the file states it.
        intensities: Of each channel.
        values: (C, N) intensities of a sample of labelled voxels.
        label_ml: Label value -> volume in millilitres.
        centers_mm: Label value -> its centroid along R, A, S from the centre of the image.
        case_id: The case.
        unit: Unit of lengths; for pictures, values named mm are in pixels.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    modalities: tuple[str, ...]
    intensities: tuple[Intensities, ...]
    values: NDArray[np.float32]
    label_ml: Mapping[int, float]
    centers_mm: Mapping[int, Triple] = field(default_factory=dict)
    case_id: str = ""
    unit: Unit = "mm"


#: A case with its fingerprint, or with the reason why it cannot be used.
Look = tuple[Case, CasePrint | DataError | ConfigError]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The fingerprint of a data set.

    Attributes:
        channels: Channel names.
        labels: Label name -> value.
        regions: Region name -> label values; empty if there are none.
        cases: One entry per readable case.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    regions: Mapping[str, tuple[int, ...]]
    cases: tuple[CasePrint, ...]

    @property
    def spacings_mm(self) -> NDArray[np.float64]:
        """(N, 3) voxel sizes."""
        return np.array([case.spacing_mm for case in self.cases])

    @property
    def unit(self) -> Unit:
        """The unit of lengths of its cases.

        Raises:
            DataError: If some are in pixels, others in millimetres.
        """
        units = {case.unit for case in self.cases}
        if len(units) > 1:
            odd = [case.case_id for case in self.cases if case.unit == "px"]
            raise DataError(
                f"{len(odd)} of {len(self.cases)} cases are pictures in pixels, {odd[0]} for one, the others state "
                "millimetres",
                hint="--set data.pixel_mm=0.5 sets the pixel size; or use only one kind",
            )
        return units.pop()

    @property
    def is_flat(self) -> bool:
        """True if every case has a single slice."""
        return all(case.shape[2] == 1 for case in self.cases)

    @property
    def shapes(self) -> NDArray[np.int64]:
        """(N, 3) voxels."""
        return np.array([case.shape for case in self.cases])


def take_fingerprint(
    dataset: Dataset, given: PartialData = _NOTHING_GIVEN, progress: Progress = ignore_progress
) -> Fingerprint:
    """Read every case once and return the fingerprint of the data set.

    Args:
        dataset: Labelled cases.
        given: Meaning of label values if already decided, and the treatment of other values.
        progress: Called per case.

    Returns:
        The fingerprint of all cases that can be read; the others are logged.

    Raises:
        DataError: If none can be read, or none has a label.
        ConfigError: If a reference holds a value that is not among the labels, or ignored (not annotated) voxels would
            become background.
    """
    with closing(look_at_cases(dataset, given, progress)) as looks:
        return fingerprint_of(dataset, told(looks), given)


def look_at_cases(
    dataset: Dataset, given: PartialData, progress: Progress = ignore_progress, executor: Executor | None = None
) -> Generator[Look, None, None]:
    """Read every case once; a caller that stops before the last one must close the generator, to end its threads.

    Args:
        dataset: Labelled cases.
        given: Meaning of label values if already decided, and the treatment of other values.
        progress: Called per case.
        executor: Reads the cases; by default threads of this process.

    Yields:
        Each case with its fingerprint, or with the reason why it cannot be used.
    """
    stated = labels_of(dataset, given)
    known = tuple(
        Label(value, name, given.colors.get(name), aliases=given.segments.get(name, ()))
        for name, value in stated.items()
    )

    attempt = partial(_attempt, channels=dataset.channels, known=known, others=given.others)
    looks = side_by_side(attempt, dataset.cases, executor, _lost)
    for done, (case, look) in enumerate(zip(dataset.cases, looks, strict=True), start=1):
        yield case, look
        progress("look", done, len(dataset.cases), case.case_id)


def _attempt(
    case: Case, channels: tuple[str, ...], known: tuple[Label, ...], others: Others
) -> CasePrint | DataError | ConfigError:
    try:
        return look_at_case(case, channels, known, others)
    except (DataError, ConfigError) as error:
        return error


def _lost(case: Case, error: WorkerLostError) -> DataError:
    return DataError(f"case {case.case_id}: {error}", hint=error.hint)


def told(looks: Iterable[Look]) -> Iterator[Look]:
    """Pass on fingerprints, and log a warning for each case that is left out."""
    for case, look in looks:
        if isinstance(look, DataError):
            logger.warning("case %s is left out of the plan: %s", case.case_id, look.explanation)
        yield case, look


def labels_of(dataset: Dataset, given: PartialData) -> dict[str, int]:
    """Return label name -> value: as already decided, else as the data set states it, with synonyms as one label."""
    if given.labels:
        return dict(given.labels)
    stated = dict(dataset.labels or {name: value for value, name in enumerate(given.colors, start=1)})
    for name, synonyms in given.segments.items():
        names = {plain_name(each) for each in (name, *synonyms)}
        replaced = [known for known in stated if plain_name(known) in names]
        if replaced:
            value = min(stated[known] for known in replaced)
            stated = {known: stated[known] for known in stated if known not in replaced} | {name: value}
    return dict(sorted(stated.items(), key=lambda item: item[1])) if given.segments else stated


def usable_prints(looks: Iterable[Look]) -> tuple[CasePrint, ...]:
    """Return the fingerprints of the usable cases.

    Raises:
        DataError: If none can be read.
        ConfigError: If a case contradicts the stated labels, which affects all cases.
    """
    prints: list[CasePrint] = []
    faults: list[DataError] = []
    for _, look in looks:
        match look:
            case CasePrint():
                prints.append(look)
            case DataError():
                faults.append(look)
            case _:
                raise look
    if not prints:
        why = f"; the first: {faults[0]}" if faults else ""
        raise DataError(f"no case could be read{why}", hint=faults[0].hint if faults else "")
    return tuple(prints)


def fingerprint_of(dataset: Dataset, looks: Iterable[Look], given: PartialData) -> Fingerprint:
    """Combine the fingerprints of cases into that of the data set.

    Raises:
        DataError: If no case can be read, or none has a label.
        ConfigError: If a case contradicts the stated labels.
    """
    labels = labels_of(dataset, given)
    check_others(dataset, labels, given.others)
    prints = usable_prints(looks)
    found = sorted({value for case in prints for value in case.label_ml})
    if not found:
        raise DataError("all references are empty, there is nothing to learn", hint="are these the label maps?")
    return Fingerprint(
        dataset.channels, labels or {f"label_{value}": value for value in found}, dataset.regions, prints
    )


def look_at_case(
    case: Case, channels: tuple[str, ...], labels: tuple[Label, ...], others: Others = "refuse"
) -> CasePrint:
    """Read one case and return its fingerprint.

    Args:
        case: With a reference.
        channels: Their order.
        labels: Labels of the values of references; any value is accepted if they are not known yet.
        others: Whether a value without a label is refused, or becomes background.

    Raises:
        DataError: If image or reference cannot be used.
        ConfigError: If the reference holds a value without a label, or the case states that it was annotated for
            something that is not a label.
    """
    image = read_images(case, channels)
    mask = read_reference(case, image, labels, others)
    region = read_region(case, image.geometry)
    mask = mask if region is None else mask.within(region)
    if not labels and (why := VoxelValues.of(mask.array).why_no_labels):
        raise DataError(
            f"case {case.case_id}: {case.reference} holds an image, not labels: {why}",
            hint="give its label map, or state data.labels",
        )
    order = image.geometry.to_canonical
    geometry = image.geometry.reordered(order)
    ignored = [label.value for label in labels if label.name == IGNORE]
    taught = mask.array * ~np.isin(mask.array, ignored) if ignored else mask.array
    traits = ImageTraits.of(image, [stated_modality(case.images[channel]) for channel in channels])
    voxels, centers_mm = _label_places(taught, image.geometry)
    annotated_labels(case, labels, voxels)
    inside = np.flatnonzero(taught)
    chosen = np.random.default_rng(0).choice(inside, min(_SAMPLES, len(inside)), replace=False)
    values = image.array.reshape(len(channels), -1)[:, chosen]
    return CasePrint(
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        modalities=traits.modalities,
        intensities=traits.intensities,
        values=np.where(np.isfinite(values), values, np.float32(np.nan)),
        label_ml={value: float(count) * geometry.voxel_volume_ml for value, count in voxels.items()},
        centers_mm=centers_mm,
        case_id=case.case_id,
        unit=geometry.unit,
    )


def _label_places(array: NDArray[np.unsignedinteger], geometry: Geometry) -> tuple[dict[int, int], dict[int, Triple]]:
    """Compute, for each label, its number of voxels, and its centroid from the image centre, along R, A, S in mm.

    Args:
        array: (I, J, K) label values.
        geometry: Its grid.
    """
    import cc3d
    import fastremap

    # cc3d counts only values below the number of voxels, so they are numbered through first.
    compact, numbers = fastremap.renumber(array)
    found = cc3d.statistics(compact, no_slice_conversion=True)
    middle = (np.asarray(geometry.shape) - 1) / 2
    order = geometry.to_canonical
    signs = np.where(order.flips, -1.0, 1.0)
    voxels: dict[int, int] = {}
    centers_mm: dict[int, Triple] = {}
    for value, number in sorted((int(value), int(number)) for value, number in numbers.items() if value != 0):
        voxels[value] = int(found["voxel_counts"][number])
        offset_mm = (found["centroids"][number] - middle) * geometry.spacing_mm
        r, a, s = (signs * offset_mm[list(order.axes)]).tolist()
        centers_mm[value] = (r, a, s)
    return voxels, centers_mm
