// ---- one case

const LINES = { reference: "dashed", prediction: "solid" };
const ERRORS = { missed: "missed", added: "added", mistaken: "another label" };

/** What lines and areas mean. */
function legendOf(picture) {
  const sides = SIDES.filter((side) => picture[side]);
  const lines = sides.map((side) => element("li", {}, element("i", { class: "line", style: `border-top-style: ${LINES[side]}` }), side));
  const areas = Object.entries(ERRORS).map(([name, text]) => element("li", {}, swatch(`var(--${name})`), text));
  return element("ul", { class: "legend" }, ...lines, ...(sides.length > 1 ? areas : []));
}

function openCase(caseId, label = null) {
  const pressed = document.activeElement?.dataset.hides; // stays under the finger from case to case
  leaveScene();
  const picture = pictureOf(caseId);
  state.open = caseId;
  state.crop = null;
  state.position = [...(picture?.labels.find((one) => one.name === label) ?? picture)?.position ?? []];
  byId("case-title").textContent = caseId;
  const rows = ROWS.filter((row) => row.case_id === caseId);
  const leastSure = rows.find((row) => row.label === label)?.least_sure_slice;
  if (picture && typeof leastSure === "number") state.position[2] = shownSlice(picture, 2, leastSure);
  byId("case-body").replaceChildren(...(picture ? viewerOf(picture) : [element("p", { class: "note" }, DATA.no_pictures)]), ...numbersOf(rows, picture, label));
  if (!byId("case").open) byId("case").showModal();
  byId("case").scrollTop = 0;
  if (pressed) (document.querySelector(`[data-hides="${pressed}"]`) ?? byId("next")).focus();
  if (picture) {
    paintViews();
    showScene(caseId);
  }
}

function viewerOf(picture) {
  const isCompared = picture.reference && picture.prediction;
  const legend = legendOf(picture);
  const toggles = [["outlines", "Outlines"], ...(isCompared ? [["errors", "Errors"]] : []), ...(picture.is_flat ? [] : [["cross", "Crosshair"]])];
  const views = element("div", { class: picture.is_flat ? "views single" : "views" }, ...viewsOf(picture).map((name) => viewOf(picture, name)));
  const keys = element("p", { class: "note keys" }, picture.is_flat ? "The wheel magnifies, left and right arrow keys lead to other cases." :
    "The wheel scrolls through slices, a click moves the crosshair, left and right arrow keys lead to other cases.");
  const found = element("p", { id: "found", class: "note found", "aria-live": "polite" });
  return [element("div", { class: "controls" }, ...toggles.map(([name, text]) => toggleOf(name, text, paintViews)), legend), views, element("div", { class: "hints" }, keys, found)];
}

/** A button that hides something, here and in the cases that are opened after this one. */
function toggleOf(name, text, follow) {
  const show = (button) => button.setAttribute("aria-pressed", String(!state.hidden.has(name)));
  const button = element("button", { type: "button", class: "toggle", "data-hides": name, onclick: (event) => {
    if (!state.hidden.delete(name)) state.hidden.add(name);
    show(event.currentTarget);
    follow();
  } }, text);
  show(button);
  return button;
}

// The number of a slice is that of the whole image, counted from the feet, the back or the patient's left.
const sliceNumber = (picture, axis, n) =>
  picture.first[axis] + Math.floor(((picture.shape[axis] - 1 - n + 0.5) * picture.size[axis]) / picture.shape[axis]);

const shownSlice = (picture, axis, number) =>
  Math.max(0, picture.shape[axis] - 1 - Math.floor(((number - picture.first[axis]) * picture.shape[axis]) / picture.size[axis]));

function viewOf(picture, name) {
  const { across, down, through } = VIEWS[name];
  const plane = planeElement(name, `${name} slice`);
  const figure = element("figure", { class: "view", "data-view": name }, plane);
  if (picture.shape[through] > 1) {
    const last = picture.shape[through] - 1;
    const slider = element("input", { type: "range", min: 0, max: last, "aria-label": `${name} slice`, oninput: (event) => moveTo(through, last - Number(event.target.value)) });
    figure.append(element("figcaption", {}, element("span", {}, name), slider, element("output", {})));
    plane.addEventListener("wheel", (event) => {
      const n = state.position[through] + Math.sign(event.deltaY);
      if (n < 0 || n > last) return; // at the end the page scrolls
      event.preventDefault();
      moveTo(through, n);
    }, { passive: false });
  }
  const placeOf = (event) => {
    const { left, top, width, height } = plane.getBoundingClientRect();
    const [x, y, columns, rows] = state.crop ?? [0, 0, picture.shape[across], picture.shape[down]];
    const within = (n, axis) => Math.max(0, Math.min(picture.shape[axis] - 1, n));
    const position = [...state.position];
    position[across] = within(x + Math.floor(((event.clientX - left) / width) * columns), across);
    position[down] = within(y + Math.floor(((event.clientY - top) / height) * rows), down);
    return position;
  };
  if (picture.is_flat) {
    plane.addEventListener("wheel", (event) => {
      event.preventDefault();
      state.crop = magnified(picture.shape, placeOf(event), event.deltaY < 0 ? 0.8 : 1.25);
      paintViews();
    }, { passive: false });
  }
  const follow = (event) => {
    state.position = placeOf(event);
    paintViews();
    tellLabels(state.position);
  };
  plane.addEventListener("click", follow);
  plane.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") return; // a finger scrolls the page
    if (event.buttons === 1) follow(event);
    else tellLabels(placeOf(event));
  });
  return figure;
}

/** Say which labels a voxel has. */
async function tellLabels([x, y, z]) {
  const caseId = state.open;
  const voxels = await voxelsOf(caseId);
  if (state.open !== caseId) return;
  const place = (z * voxels.shape[1] + y) * voxels.shape[0] + x;
  const found = SIDES.filter((side) => voxels[side]).map((side) => `${side}: ${voxels.labels[voxels[side][place] - 1]?.name ?? "nothing"}`);
  byId("found").textContent = found.join(", ");
}

/** What is seen of a picture when it is magnified around a pixel, which stays where it is. */
function magnified([columns, rows], [x, y], factor) {
  const [left, top, width, height] = state.crop ?? [0, 0, columns, rows];
  const share = Math.min(1, Math.max(16 / Math.min(columns, rows), (width / columns) * factor));
  const [wide, high] = [Math.round(columns * share), Math.round(rows * share)];
  const start = (pixel, first, size, now, whole) => Math.round(Math.max(0, Math.min(whole - now, pixel - ((pixel - first) / size) * now)));
  return [start(x, left, width, wide, columns), start(y, top, height, high, rows), wide, high];
}

function moveTo(axis, n) {
  state.position[axis] = n;
  paintViews();
}

let painted = Promise.resolve();

/** Draw all slices where they are now; what moves meanwhile is drawn once, at the end. */
function paintViews() {
  const caseId = state.open;
  painted = voxelsOf(caseId).then((voxels) => {
    if (state.open !== caseId) return;
    for (const figure of document.querySelectorAll("#case .view")) paintView(figure, voxels);
  });
}

function paintView(figure, voxels) {
  const name = figure.dataset.view;
  const { across, down, through } = VIEWS[name];
  const n = state.position[through];
  const [plane, caption] = figure.children;
  paint(plane, voxels, n, wholeSlice(voxels, name));
  if (!caption) return;
  caption.querySelector("input").value = voxels.shape[through] - 1 - n;
  caption.querySelector("output").textContent = sliceNumber(voxels, through, n);
  if (state.hidden.has("cross")) return;
  const middle = (axis) => (state.position[axis] + 0.5) * voxels.voxel_mm[axis];
  const [width, height] = [across, down].map((axis) => voxels.shape[axis] * voxels.voxel_mm[axis]);
  const svg = plane.querySelector("svg");
  svg.append(drawn("path", { class: "cross", d: `M${middle(across)} 0V${height}M0 ${middle(down)}H${width}` }));
}

// ---- its numbers

const MOST_BESIDE = 4; // numbers that there is room for beside the surfaces

function numbersOf(rows, picture, label) {
  const isKnown = (name) => rows.some((row) => row[name] !== null && row[name] !== undefined && row[name] !== "");
  const names = DATA.columns.map((column) => column.name).filter(isKnown);
  const first = DATA.table_metrics.filter(isKnown).slice(0, MOST_BESIDE);
  const reasons = isKnown("reason") ? [element("th", { class: "text" }, "reason")] : [];
  const head = element("tr", {}, element("th", { class: "text" }, "label"), element("th", { class: "text" }, "status"),
    ...first.map((name) => element("th", { title: COLUMNS.get(name)?.definition ?? "" }, readable(name))), ...reasons);
  const body = rows.map((row) => element("tr", { class: row.label === label ? "chosen" : false },
    element("td", { class: "text" }, ...labelControls(row.label, picture)), element("td", { class: "text" }, statusChip(row.status)),
    ...first.map((name) => element("td", {}, shown(row[name], name))),
    ...(reasons.length ? [element("td", { class: "text wrap" }, row.reason ?? "")] : [])));
  const labels = element("div", { class: "scroll" }, element("table", { id: "case-labels" }, element("thead", {}, head), element("tbody", {}, ...body)));
  const scene = picture?.surfaces.length ? [element("div", { class: "scene-box" }, sceneControls(picture), element("div", { id: "scene", class: "scene" }))] : [];
  const grid = element("div", { class: "case-grid" }, labels, ...scene);
  return names.length > first.length ? [grid, everyNumber(rows, names)] : [grid];
}

/** A label's colour, which hides it, and its name, which leads to where it is worst. */
function labelControls(name, picture) {
  if (!name) return [];
  const drawnLabel = picture?.labels.find((one) => one.name === name);
  if (!drawnLabel) return [swatch(colorOf(name)), name];
  const eye = element("button", { type: "button", class: "eye", "aria-label": `show ${name}`, "aria-pressed": String(!state.off.has(name)), onclick: (event) => {
    if (!state.off.delete(name)) state.off.add(name);
    event.currentTarget.setAttribute("aria-pressed", String(!state.off.has(name)));
    paintViews();
    followScene();
  } }, swatch(drawnLabel.color));
  const lead = element("button", { type: "button", class: "lead", title: "go to its largest error", onclick: (event) => {
    state.position = [...drawnLabel.position];
    for (const row of document.querySelectorAll("#case-labels tr")) row.classList.toggle("chosen", row === event.currentTarget.closest("tr"));
    paintViews();
  } }, name);
  return [eye, lead];
}

function everyNumber(rows, names) {
  const head = element("tr", {}, element("th", { class: "text" }, ""), ...rows.map((row) => element("th", {}, row.label ?? "")));
  const body = names.map((name) =>
    element("tr", { title: COLUMNS.get(name).definition }, element("td", { class: "text" }, readable(name)), ...rows.map((row) => element("td", {}, shown(row[name], name)))));
  const table = element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
  return element("details", {}, element("summary", {}, "All numbers"), table);
}

// ---- its surfaces

function sceneControls(picture) {
  const sides = SIDES.filter((side) => picture.surfaces.some((surface) => surface.side === side));
  const toggles = sides.length > 1 ? sides.map((side) => toggleOf(`${side}-surface`, side === "reference" ? "Reference (see-through)" : "Prediction", followScene)) : [];
  return element("div", { class: "controls" }, element("span", { class: "note" }, "3D"), ...toggles);
}

async function meshOf(surface, picture) {
  const [corners, faces] = await Promise.all([unpacked(surface.corners, Int16Array), unpacked(surface.faces, Uint16Array)]);
  const every = (array, offset, scale) => Array.from({ length: array.length / 3 }, (_, n) => array[3 * n + offset] * scale);
  const { name, color } = picture.labels[surface.label];
  const isBehind = surface.side === "reference" && picture.prediction;
  return {
    type: "mesh3d", name, color, opacity: isBehind ? 0.25 : 1, visible: isSeen(surface, name), meta: surface.side, flatshading: false,
    hovertemplate: `${name}<extra>${surface.side}</extra>`, lighting: { ambient: 0.65, diffuse: 0.75, specular: 0.1, roughness: 0.9 },
    x: every(corners, 0, 0.1), y: every(corners, 1, 0.1), z: every(corners, 2, 0.1), i: every(faces, 0, 1), j: every(faces, 1, 1), k: every(faces, 2, 1),
  };
}

const isSeen = (surface, name) => !state.off.has(name) && !state.hidden.has(`${surface.side}-surface`);

function leaveScene() {
  const scene = byId("scene");
  if (scene?.data) Plotly.purge(scene); // a browser has room for few
}

async function showScene(caseId) {
  const picture = pictureOf(caseId);
  if (!picture.surfaces.length) return;
  const [traces] = await Promise.all([Promise.all(picture.surfaces.map((surface) => meshOf(surface, picture))), charts]);
  if (state.open !== caseId || !byId("scene")) return;
  const bare = (text) => ({ title: { text, font: { size: 11 } }, showticklabels: false, showbackground: false, showspikes: false, gridcolor: "rgba(128,128,128,0.25)", zeroline: false });
  const scene = { aspectmode: "data", dragmode: "turntable", xaxis: bare("right"), yaxis: bare("anterior"), zaxis: bare("superior"), camera: { eye: { x: -1, y: 1.75, z: 0.55 } } };
  Plotly.newPlot("scene", traces, layout({ scene, showlegend: false, margin: { l: 0, r: 0, t: 0, b: 0 } }), { displayModeBar: false, responsive: true });
}

function followScene() {
  const picture = pictureOf(state.open);
  if (!byId("scene")?.data) return;
  Plotly.restyle("scene", { visible: picture.surfaces.map((surface) => isSeen(surface, picture.labels[surface.label].name)) });
}

// ---- from case to case

function step(by) {
  const ids = [...new Set(state.shown.map((row) => row.case_id))];
  const next = ids[ids.indexOf(state.open) + by];
  if (next !== undefined) openCase(next);
}

function followCase() {
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => byId("case").close());
  byId("case").addEventListener("click", (event) => { if (event.target === byId("case")) byId("case").close(); });
  byId("case").addEventListener("keydown", (event) => {
    if (event.target.type === "range") return; // its own keys move it
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  });
  byId("case").addEventListener("close", () => {
    const row = [...document.querySelectorAll("#cases tbody tr")].find((one) => one.dataset.case === state.open);
    leaveScene();
    state.open = null;
    byId("case-body").replaceChildren();
    row?.focus();
  });
}
