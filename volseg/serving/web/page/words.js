// Numbers, times and names as people read them.

import { el } from "./dom.js";

const FORMATS = {
  "nifti": "NIfTI", "nrrd": "NRRD", "mha": "MetaImage", "seg-nrrd": "3D Slicer segmentation", "glb": "3D scene (glTF)",
  "dicom-seg": "DICOM Segmentation", "rtstruct": "DICOM RT Structure Set", "dicom-sr": "DICOM Structured Report",
  "stl": "STL meshes", "ply": "PLY meshes", "png": "PNG", "overlay": "Picture", "probabilities": "Probabilities (NIfTI)",
};

const KINDS = { done: "good", sent: "good", failed: "bad", running: "busy", arriving: "busy" };

/** Return what a format is called. */
export const formatName = (format) => FORMATS[format] ?? format;

/** Return a status as a chip; its colour says nothing that its text does not. */
export const chip = (status) => el("span", { class: `chip ${KINDS[status] ?? ""}` }, status);

/** Return how long ago a time in seconds was. */
export function age(seconds) {
  const passed = Math.max(0, Date.now() / 1000 - seconds);
  const steps = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "d"]];
  const [, length, unit] = steps.find(([limit]) => passed < limit);
  return length === 1 ? "just now" : `${Math.floor(passed / length)} ${unit} ago`;
}

/** Return a time in seconds as date and time of this place. */
export const moment = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Return a DICOM date (YYYYMMDD) as ISO writes it. */
export const day = (text) => text.replace(/^(\d{4})(\d\d)(\d\d)$/, "$1-$2-$3");

/** Return a volume with three significant digits. */
export function volume(ml) {
  const digits = ml >= 100 || ml === 0 ? 0 : ml >= 10 ? 1 : 2;
  return `${ml.toFixed(digits)} ml`;
}

/** Return a count and its noun. */
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** Return size in bytes. */
export const size = (bytes) => bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;

/** Return a bar that shows a share. */
export function bar(share, label) {
  return el("progress", { max: 1, value: share, "aria-label": label });
}

/** Return a coloured square. */
export function swatch(color) {
  const node = el("span", { class: "swatch", "aria-hidden": "true" });
  node.style.background = color;
  return node;
}
