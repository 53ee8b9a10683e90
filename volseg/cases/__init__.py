"""Cases: which files belong together, detected from the content of a folder."""

from volseg.cases.annotated import annotated_labels, check_sides
from volseg.cases.case import Case, Dataset, check_others, read_images, read_reference
from volseg.cases.inputs import find_inputs
from volseg.cases.layouts import find_dataset
from volseg.cases.references import find_images, find_references, images_beside, is_dataset, is_list
from volseg.cases.regions import read_region
from volseg.cases.splits import Split, choose_splits, make_splits, read_splits, usable_splits, write_splits

__all__ = [
    "Case",
    "Dataset",
    "Split",
    "annotated_labels",
    "check_others",
    "check_sides",
    "choose_splits",
    "find_dataset",
    "find_images",
    "find_inputs",
    "find_references",
    "images_beside",
    "is_dataset",
    "is_list",
    "make_splits",
    "read_images",
    "read_reference",
    "read_region",
    "read_splits",
    "usable_splits",
    "write_splits",
]
