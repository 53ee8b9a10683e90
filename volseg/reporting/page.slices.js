// ---- slices of a case: its voxels, with the outlines of both masks

const VIEWS = {
  axial: { across: 0, down: 1, through: 2, letters: "RLAP" },
  coronal: { across: 0, down: 2, through: 1, letters: "RLSI" },
  sagittal: { across: 1, down: 2, through: 0, letters: "APSI" },
  picture: { across: 0, down: 1, through: 2, letters: "" },
};
const SIDES = ["reference", "prediction"];
const MOST_KEPT = 6;
const kept = new Map(); // case id -> its voxels, of the cases that were looked at last

const pictureOf = (caseId) => (canUnpack && Object.hasOwn(DATA.pictures, caseId) ? DATA.pictures[caseId] : null);
const viewsOf = (picture) => (picture.is_flat ? ["picture"] : ["axial", "coronal", "sagittal"]);

/** A picture with its masks unpacked and its image decoded. */
function voxelsOf(caseId) {
  const made = kept.get(caseId) ?? openPicture(pictureOf(caseId));
  kept.delete(caseId);
  kept.set(caseId, made);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  return made;
}

async function openPicture(picture) {
  const Kind = picture.labels.length > 255 ? Uint16Array : Uint8Array;
  const [reference, prediction, image] = await Promise.all([
    picture.reference && unpacked(picture.reference, Kind),
    picture.prediction && unpacked(picture.prediction, Kind),
    picture.image && imageOf(picture.image),
  ]);
  return { ...picture, reference, prediction, image };
}

async function imageOf(webp) {
  const image = new Image();
  image.src = `data:image/webp;base64,${webp}`;
  await image.decode();
  return image;
}

/** One slice of a mask, row after row; labels that are switched off are background. */
function cutOf(voxels, side, view, n, off) {
  const array = voxels[side];
  if (!array) return null;
  const steps = [1, voxels.shape[0], voxels.shape[0] * voxels.shape[1]];
  const [columns, rows] = [voxels.shape[view.across], voxels.shape[view.down]];
  const cut = new array.constructor(columns * rows);
  let place = 0;
  for (let row = 0; row < rows; row++) {
    let from = n * steps[view.through] + row * steps[view.down];
    for (let column = 0; column < columns; column++, from += steps[view.across]) cut[place++] = off.has(array[from]) ? 0 : array[from];
  }
  return cut;
}

/**
 * Label -> its outline as an SVG path, in voxels. It runs from the middle of one voxel's edge to the middle of the next,
 * so that slanted boundaries are not stairs.
 */
function outlinesOf(cut, columns, rows) {
  const width = columns + 1; // corners in a row
  const edges = new Map(); // label -> corner -> the directions in which an edge starts there, with the label on its right
  const at = (column, row) => (column < 0 || row < 0 || column >= columns || row >= rows ? 0 : cut[row * columns + column]);
  const add = (label, corner, direction) => {
    if (!edges.has(label)) edges.set(label, new Map());
    const corners = edges.get(label);
    corners.set(corner, (corners.get(corner) ?? 0) | (1 << direction));
  };
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const label = cut[row * columns + column];
      if (!label) continue;
      const corner = row * width + column;
      if (at(column, row - 1) !== label) add(label, corner, 0);
      if (at(column + 1, row) !== label) add(label, corner + 1, 1);
      if (at(column, row + 1) !== label) add(label, corner + width + 1, 2);
      if (at(column - 1, row) !== label) add(label, corner + width, 3);
    }
  }
  return new Map([...edges].map(([label, corners]) => [label, pathOf(corners, width)]));
}

function pathOf(corners, width) {
  let path = "";
  for (const start of corners.keys()) {
    while (corners.get(start)) path += ringFrom(start, corners, width);
  }
  return path;
}

function ringFrom(start, corners, width) {
  const steps = [1, width, -1, -width]; // to the right, down, to the left, up
  const ring = [];
  let corner = start;
  let direction = Math.log2(corners.get(start) & -corners.get(start));
  for (;;) {
    corners.set(corner, corners.get(corner) & ~(1 << direction));
    const [x, y] = [corner % width, Math.floor(corner / width)];
    ring.push([direction, x + [0.5, 0, -0.5, 0][direction], y + [0, 0.5, 0, -0.5][direction]]);
    corner += steps[direction];
    const right = (direction + 1) % 4; // stays at the same voxel, where two touch at a corner only
    if (corners.get(corner) & (1 << right)) direction = right;
    else if (corner === start) break;
    else direction = corners.get(corner) & (1 << direction) ? direction : (direction + 3) % 4;
  }
  const last = ring.length - 1;
  const turns = ring.filter(([way], n) => way !== ring[n ? n - 1 : last][0] || way !== ring[n < last ? n + 1 : 0][0]);
  return `M${turns.map(([, x, y]) => `${x} ${y}`).join("L")}Z`;
}

/** A canvas for the voxels and a drawing for the lines above it. */
function planeElement(name, label) {
  const plane = element("div", { class: "plane", role: "img", "aria-label": label });
  plane.append(element("canvas", {}), drawn("svg", { preserveAspectRatio: "none" }));
  const places = ["left", "right", "above", "under"].slice(0, VIEWS[name].letters.length); // pictures have no directions
  plane.append(...places.map((place, n) => element("span", { class: place }, VIEWS[name].letters[n])));
  return plane;
}

/** What a slice shows: all of it, with everything that is not switched off. */
function wholeSlice(voxels, name) {
  const view = VIEWS[name];
  const off = new Set(voxels.labels.flatMap((label, n) => (state.off.has(label.name) ? [n + 1] : [])));
  return { name, crop: state.crop ?? [0, 0, voxels.shape[view.across], voxels.shape[view.down]], off, errors: !state.hidden.has("errors"), outlines: !state.hidden.has("outlines") };
}

function paint(plane, voxels, n, slice) {
  const view = VIEWS[slice.name];
  const [columns, rows] = [voxels.shape[view.across], voxels.shape[view.down]];
  const [x, y, width, height] = slice.crop;
  const [across, down] = [voxels.voxel_mm[view.across], voxels.voxel_mm[view.down]];
  plane.style.setProperty("--shape", (width * across) / (height * down));
  const [canvas, svg] = plane.children;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.translate(-x, -y);
  if (voxels.image) drawImage(context, voxels, view, n);
  const cuts = SIDES.map((side) => cutOf(voxels, side, view, n, slice.off));
  if (slice.errors && cuts[0] && cuts[1]) drawErrors(context, cuts, columns, rows);
  const lines = drawn("g", { transform: `scale(${across} ${down})` });
  for (const [side, cut] of slice.outlines ? SIDES.map((name, n) => [name, cuts[n]]) : []) {
    for (const [label, d] of cut ? outlinesOf(cut, columns, rows) : []) {
      lines.append(drawn("path", { d, class: `outline ${side}`, stroke: voxels.labels[label - 1].color }));
    }
  }
  svg.setAttribute("viewBox", [x * across, y * down, width * across, height * down].join(" "));
  svg.replaceChildren(lines);
}

/** The image's slice, from the axial ones that stand side by side: row by row, or column by column, of each of them. */
function drawImage(context, voxels, view, n) {
  const [width, height, slices] = voxels.shape;
  const corner = (z) => [(z % voxels.columns) * width, Math.floor(z / voxels.columns) * height];
  context.imageSmoothingEnabled = false;
  if (view.through === 2) {
    context.drawImage(voxels.image, ...corner(n), width, height, 0, 0, width, height);
    return;
  }
  for (let z = 0; z < slices; z++) {
    const [x, y] = corner(z);
    context.save();
    if (view.through === 1) context.drawImage(voxels.image, x, y + n, width, 1, 0, z, width, 1);
    else {
      context.transform(0, 1, 1, 0, 0, z); // a column becomes a row
      context.drawImage(voxels.image, x + n, y, 1, height, 0, 0, 1, height);
    }
    context.restore();
  }
}

function drawErrors(context, [reference, prediction], columns, rows) {
  const colors = ["--missed", "--added", "--mistaken"].map((name) => cssColor(name).match(/\w\w/g).map((part) => parseInt(part, 16)));
  const pixels = new ImageData(columns, rows);
  for (let n = 0; n < reference.length; n++) {
    if (reference[n] === prediction[n]) continue;
    const kind = prediction[n] === 0 ? 0 : reference[n] === 0 ? 1 : 2;
    pixels.data.set([...colors[kind], 115], 4 * n);
  }
  const layer = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  layer.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(layer, 0, 0);
}

// ---- small pictures for the table, drawn when they come into sight

const THUMBNAIL_MM = 24; // at least so much is seen
const SPREAD_PART = 0.25; // and of pictures that are full of something so much
const thumbnails = new Map();
const waiting = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    waiting.unobserve(target);
    target.draw();
  }
}, { rootMargin: "200px" });

function thumbnailOf(caseId, label) {
  const picture = pictureOf(caseId);
  const known = picture?.labels.findIndex((one) => one.name === label) ?? -1;
  if (!picture || (label && known < 0)) return null;
  const key = JSON.stringify([caseId, label]);
  if (thumbnails.has(key)) return thumbnails.get(key);
  const [name] = viewsOf(picture);
  const plane = planeElement(name, `${label ?? "labels"} of ${caseId}`);
  plane.classList.add("thumbnail");
  plane.draw = async () => {
    const voxels = await voxelsOf(caseId);
    const n = (label ? picture.labels[known] : picture).position[VIEWS[name].through];
    paint(plane, voxels, n, { name, crop: cropAround(voxels, VIEWS[name], n, known + 1), off: new Set(), errors: true, outlines: true });
  };
  waiting.observe(plane);
  thumbnails.set(key, plane);
  return plane;
}

/** A square around what both masks have of a label (0: of all) in a slice. */
function cropAround(voxels, view, n, label) {
  const [columns, rows] = [voxels.shape[view.across], voxels.shape[view.down]];
  let [left, right, top, bottom] = [columns, -1, rows, -1];
  for (const side of SIDES) {
    const cut = cutOf(voxels, side, view, n, new Set());
    for (let place = 0; cut && place < cut.length; place++) {
      if (label ? cut[place] !== label : !cut[place]) continue;
      const [x, y] = [place % columns, Math.floor(place / columns)];
      [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    }
  }
  if (right < 0) return [0, 0, columns, rows];
  const [across, down] = [voxels.voxel_mm[view.across], voxels.voxel_mm[view.down]];
  const size = Math.max(THUMBNAIL_MM, 1.4 * Math.max((right - left + 1) * across, (bottom - top + 1) * down));
  const whole = Math.max(columns * across, rows * down);
  // Cells and vessels fill a whole picture: what matters is where the error is.
  const isSpread = voxels.is_flat && size > whole * SPREAD_PART;
  const [x, y] = isSpread ? (label ? voxels.labels[label - 1] : voxels).position.map((one) => one + 0.5) : [(left + right + 1) / 2, (top + bottom + 1) / 2];
  const side = isSpread ? whole * SPREAD_PART : Math.min(size, whole);
  const [width, height] = [Math.ceil(side / across), Math.ceil(side / down)];
  return [Math.round(x - width / 2), Math.round(y - height / 2), width, height];
}
