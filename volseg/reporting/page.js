"use strict";
// One page from one JSON: tables and charts of the cases, and what was drawn of each.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ON_LIGHT = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98", "#b8a800"];
const ON_DARK = ["#56b4e9", "#e69f00", "#1fc795", "#e3a1c8", "#3f8fd2", "#f0803c", "#a9b0ba", "#f0e442"];
const COLUMNS = new Map(DATA.columns.map((column) => [column.name, column]));
const LABELS = [...new Set(DATA.rows.map((row) => row.label).filter(Boolean))];
const SEVERITY = ["failed", "skipped", "not_predicted", "missed", "false_alarm", "check", "ok", "segmented", "validated", "both_empty"];
const state = { sort: DATA.sort, descending: DATA.descending, search: "", label: "", status: "", shown: [], open: null, hidden: new Set() };

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const COUNTS = /^(tp|fp|fn|tn|cases|scored|ok|missed|false_alarm|absent|not_predicted|failed|lesions_.*|parts|.*_slice)$/;

function shown(value, name = "") {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (COUNTS.test(name)) return value.toString();
  const size = Math.abs(value);
  return size >= 1000 ? value.toFixed(0) : size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2) : value.toFixed(3);
}

const readable = (name) => name.replace(/_(mm|ml|px|px2)$/, " [$1]").replaceAll("_", " ");
// Structures of volumes are measured in ml, those of pictures in pixels.
const SIZE = DATA.rows.some((row) => "reference_px2" in row) ? "px2" : "ml";
const isGood = (status) => ["ok", "both_empty", "segmented", "validated"].includes(status);

// ---- the upper part

function showHead() {
  byId("kind").textContent = DATA.kind;
  byId("title").textContent = DATA.title;
  byId("footer").textContent = DATA.footer;
  for (const tile of DATA.headline) {
    byId("headline").append(
      element("div", { class: tile.alarm ? "tile alarm" : "tile" }, element("b", {}, tile.value), element("span", {}, tile.name)),
    );
  }
  for (const [name, value] of DATA.facts) byId("facts").append(element("dt", {}, name), element("dd", {}, value));
}

function showSummary() {
  if (!DATA.summary.length) return;
  byId("summary-section").hidden = false;
  const wrong = ["missed", "false_alarm", "absent", "not_predicted", "failed"];
  const counts = ["scored", ...wrong.filter((name) => DATA.summary.some((row) => row[name]))];
  const means = DATA.summary_metrics;
  const head = [
    element("th", { class: "text", scope: "col" }, "label"),
    ...counts.map((name) => element("th", { class: "minor", scope: "col" }, readable(name))),
    ...means.map((name) => element("th", { scope: "col" }, readable(name.replace(/_mean$/, "")))),
  ];
  const body = DATA.summary.map((row) =>
    element(
      "tr", {},
      element("td", { class: "text" }, row.label),
      ...counts.map((name) => element("td", { class: "minor" }, shown(row[name], name))),
      ...means.map((name) => summaryCell(row, name)),
    ),
  );
  byId("summary").append(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  byId("policy").textContent = DATA.policy;
}

function summaryCell(row, name) {
  const cell = element("td", {}, shown(row[name]));
  const range = row[`${name}_ci95`];
  if (range) cell.append(" ", element("span", { class: "range minor" }, `${shown(range[0])} - ${shown(range[1])}`));
  return cell;
}

// ---- charts

function colorOf(n) {
  const colors = document.documentElement.dataset.theme === "dark" ? ON_DARK : ON_LIGHT;
  return colors[n % colors.length];
}

function layout(more) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line"), automargin: true };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 14, t: 12, b: 44 },
    font: { family: "system-ui, sans-serif", size: 12, color: color("--text") }, hoverlabel: { align: "left" },
    legend: { orientation: "h", y: 1.12 },
  };
  for (const name of Object.keys(more)) if (/^[xy]axis/.test(name)) more[name] = { ...axis, ...more[name] };
  return { ...base, ...more };
}

const OPTIONS = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

function openOnClick(chart) {
  if (chart.removeAllListeners) chart.removeAllListeners("plotly_click");
  chart.on("plotly_click", (event) => openCase(event.points[0].customdata ?? event.points[0].text));
}

function showBox() {
  const name = byId("metric").value;
  byId("definition").textContent = COLUMNS.get(name).definition;
  const traces = LABELS.map((label, n) => {
    const rows = DATA.rows.filter((row) => row.label === label && typeof row[name] === "number");
    return {
      type: "box", name: label, y: rows.map((row) => row[name]), text: rows.map((row) => row.case_id), boxpoints: "all",
      jitter: 0.5, pointpos: 0, boxmean: true, marker: { color: colorOf(n), size: 5, opacity: 0.65 },
      hovertemplate: "%{text}<br>%{y:.4g}<extra>%{fullData.name}</extra>",
    };
  });
  Plotly.react("box", traces, layout({ showlegend: false, xaxis: {}, yaxis: { title: { text: readable(name) } } }), OPTIONS);
  openOnClick(byId("box"));
}

function showAgreement() {
  const label = byId("agreement-label").value;
  const rows = DATA.rows.filter((row) => row.label === label && typeof row[`reference_${SIZE}`] === "number" && typeof row[`predicted_${SIZE}`] === "number" && !["not_predicted", "both_empty"].includes(row.status));
  const differences = rows.map((row) => row[`predicted_${SIZE}`] - row[`reference_${SIZE}`]);
  const mean = differences.reduce((sum, value) => sum + value, 0) / differences.length;
  const variance = differences.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, differences.length - 1);
  const limit = 1.96 * Math.sqrt(variance);
  const lines = [[mean, "mean"], [mean - limit, "-1.96 sd"], [mean + limit, "+1.96 sd"]];
  const color = colorOf(LABELS.indexOf(label));
  const trace = {
    type: "scatter", mode: "markers", x: rows.map((row) => (row[`predicted_${SIZE}`] + row[`reference_${SIZE}`]) / 2), y: differences,
    text: rows.map((row) => row.case_id), marker: { color, size: 7, opacity: 0.75 },
    hovertemplate: `%{text}<br>mean %{x:.4g} ${SIZE}, difference %{y:.4g} ${SIZE}<extra></extra>`,
  };
  Plotly.react("agreement", [trace], layout({
    xaxis: { title: { text: `${label}: mean of both [${SIZE}]` } }, yaxis: { title: { text: `predicted - reference [${SIZE}]` } },
    shapes: lines.map(([y], n) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color, width: 1.5, dash: n ? "dash" : "solid" } })),
    annotations: lines.map(([y, text]) => ({ xref: "paper", x: 1, xanchor: "right", y, yanchor: "bottom", text: `${text} ${shown(y)}`, showarrow: false })),
  }), OPTIONS);
  openOnClick(byId("agreement"));
}

function showCurves() {
  if (!DATA.history.length) return;
  byId("curves-section").hidden = false;
  const folds = [...new Set(DATA.history.map((row) => row.fold))];
  const names = Object.keys(DATA.history[0]).filter((name) => name === "dice" || (folds.length === 1 && name.startsWith("dice_")));
  const traces = folds.flatMap((fold, n) => curvesOf(DATA.history.filter((row) => row.fold === fold), names, folds.length > 1 ? ` ${fold}` : "", n));
  Plotly.react("curves", traces, layout({
    margin: { l: 56, r: 56, t: 12, b: 44 }, legend: { orientation: "h", y: -0.22 }, xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: "loss" } },
    yaxis2: { title: { text: "validation Dice" }, overlaying: "y", side: "right", showgrid: false, range: [0, 1] },
  }), OPTIONS);
}

function curvesOf(rows, names, suffix, offset) {
  const x = rows.map((row) => row.epoch);
  const loss = { name: `loss${suffix}`, x, y: rows.map((row) => row.loss), line: { color: "#8a8f98", width: 1.5 } };
  const dice = names.map((name, n) => ({
    name: readable(name) + suffix, x, y: rows.map((row) => row[name]), yaxis: "y2", connectgaps: true, mode: "lines+markers",
    line: { color: colorOf(n + offset), width: name === "dice" ? 3 : 1.5 }, marker: { size: 4 },
  }));
  return [loss, ...dice];
}

function showCharts() {
  const numbers = DATA.columns.filter((column) => DATA.rows.some((row) => typeof row[column.name] === "number"));
  if (!numbers.length) return;
  byId("charts-section").hidden = false;
  if (!byId("metric").options.length) {
    for (const column of numbers) byId("metric").append(element("option", { value: column.name }, readable(column.name)));
    byId("metric").addEventListener("change", showBox);
    for (const label of LABELS) byId("agreement-label").append(element("option", {}, label));
    byId("agreement-label").addEventListener("change", showAgreement);
  }
  if (SIZE === "px2") byId("agreement-size").textContent = "Areas";
  byId("agreement-figure").hidden = !DATA.rows.some((row) => typeof row[`reference_${SIZE}`] === "number");
  showBox();
  if (!byId("agreement-figure").hidden) showAgreement();
}

// ---- the table of cases

function tableColumns() {
  return ["case_id", "label", "status", ...DATA.table_metrics, ...(DATA.rows.some((row) => row.reason) ? ["reason"] : [])];
}

const isText = (name) => ["case_id", "label", "status", "reason"].includes(name);

function ordered(rows) {
  const name = state.sort;
  const sign = state.descending ? -1 : 1;
  const value = (row) => (name === "status" ? SEVERITY.indexOf(row.status) : row[name]);
  return [...rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === b) return 0;
    if (a === null || a === undefined || a === "") return 1;
    if (b === null || b === undefined || b === "") return -1;
    return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  });
}

function showTable() {
  const text = state.search.toLowerCase();
  const rows = ordered(DATA.rows.filter((row) =>
    (!text || `${row.case_id} ${row.reason ?? ""}`.toLowerCase().includes(text)) &&
    (!state.label || row.label === state.label) && (!state.status || row.status === state.status),
  ));
  state.shown = rows;
  byId("count").textContent = `${rows.length} of ${DATA.rows.length} rows`;
  const head = tableColumns().map((name, n) =>
    element("th", {
      class: `${isText(name) ? "text" : ""} ${n > 5 || name === "status" ? "minor" : ""}`, scope: "col", title: COLUMNS.get(name)?.definition ?? "",
      "aria-sort": state.sort === name ? (state.descending ? "descending" : "ascending") : "none",
    }, element("button", { type: "button", onclick: () => sortBy(name) }, readable(name.replace("case_id", "case")))));
  const body = rows.map((row, n) =>
    element("tr", { tabindex: n ? -1 : 0, "data-case": row.case_id, onclick: () => openCase(row.case_id), onkeydown: moveInTable },
      ...tableColumns().map((name, m) => tableCell(row, name, m))));
  byId("cases").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

function tableCell(row, name, n) {
  const minor = n > 5 || name === "status" ? " minor" : "";
  if (name === "status") {
    return element("td", { class: `text${minor}` }, element("span", { class: isGood(row.status) ? "status" : "status alarm" }, readable(row.status)));
  }
  return element("td", { class: (isText(name) ? "text " + name : "") + minor, title: name === "reason" ? row.reason ?? "" : false }, shown(row[name], name));
}

function sortBy(name) {
  state.descending = state.sort === name ? !state.descending : COLUMNS.get(name)?.better === "lower";
  state.sort = name;
  showTable();
  [...byId("cases").tHead.rows[0].cells][tableColumns().indexOf(name)].firstChild.focus();
}

function moveInTable(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const other = step && event.currentTarget[step];
  if (step) event.preventDefault();
  if (other) {
    event.currentTarget.tabIndex = -1;
    other.tabIndex = 0;
    other.focus();
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    openCase(event.currentTarget.dataset.case);
  }
}

function showCases() {
  if (!DATA.rows.length) return;
  byId("cases-section").hidden = false;
  const fill = (id, values, every) =>
    byId(id).append(element("option", { value: "" }, every), ...values.map((value) => element("option", { value }, readable(value))));
  fill("label-filter", LABELS, "all");
  fill("status-filter", [...new Set(DATA.rows.map((row) => row.status))], "all");
  const follow = (id, key) => byId(id).addEventListener("input", (event) => { state[key] = event.target.value; showTable(); });
  follow("search", "search");
  follow("label-filter", "label");
  follow("status-filter", "status");
  showTable();
}

// ---- one case

const pictureOf = (caseId) => (Object.hasOwn(DATA.pictures, caseId) ? DATA.pictures[caseId] : null);

function openCase(caseId) {
  const pressed = document.activeElement?.dataset.hides; // stays under the finger from case to case
  leaveScene();
  state.open = caseId;
  byId("case-title").textContent = caseId;
  const rows = DATA.rows.filter((row) => row.case_id === caseId);
  byId("case-body").replaceChildren(...picturesOf(caseId), numbersOf(rows));
  if (!byId("case").open) byId("case").showModal();
  if (pressed) (document.querySelector(`[data-hides="${pressed}"]`) ?? byId("next")).focus();
  showScene(caseId);
}

function picturesOf(caseId) {
  const picture = pictureOf(caseId);
  if (!picture) return [element("p", { class: "note" }, DATA.no_pictures)];
  const compared = picture.slices.some((slice) => slice.reference) && picture.slices.some((slice) => slice.prediction);
  const outlines = [["reference", "reference outline", ""], ["prediction", "prediction outline (dashed)", ""]];
  const kinds = outlines.filter(([kind]) => picture.slices.some((slice) => slice[kind]));
  if (compared) kinds.push(["missed", "missed: in the reference alone", "area"], ["added", "added: in the prediction alone", "area"], ["mistaken", "another label", "area"]);
  const swatch = (kind, area) => element("i", { class: area, style: area ? `background: var(--${kind})` : `border-color: var(--${kind}); border-top-style: ${kind === "prediction" ? "dashed" : "solid"}` });
  const legend = element("ul", { class: "legend" }, ...kinds.map(([kind, text, area]) => element("li", {}, swatch(kind, area), text)));
  const slices = element("div", { class: ["slices", ...state.hidden].join(" ") }, ...picture.slices.map(sliceOf));
  const toggle = (name, text) => element("button", { type: "button", "data-hides": name, "aria-pressed": String(!state.hidden.has(name)), onclick: (event) => {
    const hidden = slices.classList.toggle(name);
    if (hidden) state.hidden.add(name); else state.hidden.delete(name);
    event.target.setAttribute("aria-pressed", String(!hidden));
  } }, text);
  const controls = element("div", { class: "controls" }, toggle("no-outlines", "Outlines"), ...(compared ? [toggle("no-errors", "Errors")] : []));
  return [controls, legend, slices];
}

function sliceOf(slice) {
  const [width, height] = [slice.columns * slice.column_mm, slice.rows * slice.row_mm];
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${slice.name} slice` });
  if (slice.image) svg.append(drawn("image", { href: `data:image/jpeg;base64,${slice.image}`, width, height, preserveAspectRatio: "none" }));
  const scaled = drawn("g", { transform: `scale(${slice.column_mm / 2} ${slice.row_mm / 2})` });
  for (const kind of ["missed", "added", "mistaken"]) {
    if (slice[kind]) scaled.append(drawn("path", { d: slice[kind], class: `area area-shape ${kind}` }));
  }
  for (const kind of ["reference", "prediction"]) {
    if (slice[kind]) scaled.append(drawn("path", { d: slice[kind], class: `outline ${kind}` }));
  }
  svg.append(scaled);
  const places = ["left", "right", "above", "below"].slice(0, slice.letters.length); // pictures have no directions
  const letters = places.map((place, n) => element("span", { class: place }, slice.letters[n]));
  return element("div", { class: "slice" }, svg, ...letters, element("span", { class: "name" }, slice.name));
}

function numbersOf(rows) {
  const names = DATA.columns.map((column) => column.name).filter((name) => rows.some((row) => row[name] !== null && row[name] !== undefined));
  const head = element("tr", {}, element("th", { class: "text" }, ""), ...rows.map((row) => element("th", {}, row.label ?? "")));
  const lines = [["status", (row) => readable(row.status)], ["reason", (row) => row.reason ?? ""]]
    .filter(([, value]) => rows.some(value))
    .map(([name, value]) => element("tr", {}, element("td", { class: "text" }, name), ...rows.map((row) => element("td", {}, value(row)))));
  const body = names.map((name) =>
    element("tr", { title: COLUMNS.get(name).definition }, element("td", { class: "text" }, readable(name)), ...rows.map((row) => element("td", {}, shown(row[name], name)))));
  const table = element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines, ...body)));
  return element("div", { class: "case-grid" }, table, element("div", { id: "scene", class: "scene" }));
}

function numbers(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

function meshOf(surface, name, color, opacity) {
  const corners = numbers(surface.corners, Int16Array);
  const faces = numbers(surface.faces, Uint16Array);
  const every = (array, offset, scale) => Array.from({ length: array.length / 3 }, (_, n) => array[3 * n + offset] * scale);
  return {
    type: "mesh3d", name, showlegend: true, color, opacity, flatshading: false, hoverinfo: "name", lighting: { ambient: 0.6, diffuse: 0.7, specular: 0.15 },
    x: every(corners, 0, 0.1), y: every(corners, 1, 0.1), z: every(corners, 2, 0.1), i: every(faces, 0, 1), j: every(faces, 1, 1), k: every(faces, 2, 1),
  };
}

function leaveScene() {
  if (byId("scene")) Plotly.purge("scene"); // a browser has room for few
}

function showScene(caseId) {
  const picture = pictureOf(caseId);
  const traces = [];
  if (picture?.reference) traces.push(meshOf(picture.reference, "reference", "#009e73", picture.prediction ? 0.35 : 1));
  if (picture?.prediction) traces.push(meshOf(picture.prediction, "prediction", "#e69f00", picture.reference ? 0.55 : 1));
  if (!traces.length) {
    byId("scene").remove();
    return;
  }
  const bare = (text) => ({ title: { text }, showticklabels: false, showbackground: false, gridcolor: "rgba(128,128,128,0.25)", zeroline: false });
  const scene = { aspectmode: "data", xaxis: bare("right"), yaxis: bare("anterior"), zaxis: bare("superior"), camera: { eye: { x: -1.2, y: 1.4, z: 0.6 } } };
  Plotly.newPlot("scene", traces, layout({ scene, margin: { l: 0, r: 0, t: 30, b: 0 } }), { displaylogo: false, responsive: true });
}

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
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  });
  byId("case").addEventListener("close", () => {
    const row = [...document.querySelectorAll("#cases tbody tr")].find((one) => one.dataset.case === state.open);
    leaveScene();
    byId("case-body").replaceChildren();
    row?.focus();
  });
}

// ---- light, dark and paper

const PRINTED_CASES = 12;
const PAPER_WIDTH = 660;

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  showCharts();
  showCurves();
}

function followTheme() {
  const root = document.documentElement;
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  byId("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
}

function followPrinter() {
  let theme = null;
  const charts = () => [...document.querySelectorAll(".chart.js-plotly-plot")];
  addEventListener("beforeprint", () => {
    theme ??= document.documentElement.dataset.theme;
    setTheme("light");
    for (const chart of charts()) Plotly.relayout(chart, { autosize: false, width: PAPER_WIDTH, height: 300 });
    const ids = [...new Set(state.shown.map((row) => row.case_id))].filter(pictureOf).slice(0, PRINTED_CASES);
    byId("print-section").replaceChildren(...ids.map((id) => element("div", { class: "printed" }, element("h2", {}, id), ...picturesOf(id))));
    byId("print-section").hidden = !ids.length;
  });
  addEventListener("afterprint", () => {
    byId("print-section").hidden = true;
    byId("print-section").replaceChildren();
    for (const chart of charts()) Plotly.relayout(chart, { autosize: true, width: null, height: null });
    setTheme(theme ?? document.documentElement.dataset.theme);
    theme = null;
  });
}

followTheme();
showHead();
showSummary();
showCharts();
showCurves();
showCases();
followCase();
followPrinter();
