"use strict";
// What the page is about, and the words and numbers that all of it shares.

const byId = (id) => document.getElementById(id);
const DATA = JSON.parse(byId("data").textContent);
const ROWS = rowsOf(DATA.rows);
const COLUMNS = new Map(DATA.columns.map((column) => [column.name, column]));
const LABELS = [...new Set(ROWS.map((row) => row.label).filter(Boolean))];
const SEVERITY = ["failed", "skipped", "not_predicted", "missed", "false_alarm", "check", "ok", "segmented", "validated", "both_empty"];
// Structures of volumes are measured in ml, those of pictures in pixels.
const SIZE = ROWS.some((row) => "reference_px2" in row) ? "px2" : "ml";
const canUnpack = typeof DecompressionStream !== "undefined";
const isTouch = matchMedia("(hover: none), (pointer: coarse)").matches;

const state = {
  sort: DATA.sort, descending: DATA.descending, search: "", label: "", status: "", shown: [],
  open: null, position: null, crop: null, off: new Set(), hidden: new Set(),
};

function rowsOf(columns) {
  const names = Object.keys(columns);
  return names.length ? columns[names[0]].map((_, n) => Object.fromEntries(names.map((name) => [name, columns[name][n]]))) : [];
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ---- words and numbers

const COUNTS = /^(tp|fp|fn|tn|cases|scored|ok|missed|false_alarm|absent|not_predicted|failed|lesions_.*|parts|.*_slice)$/;
const SHORT = { dice: "Dice", hd: "HD", hd95: "HD95", assd: "ASSD", masd: "MASD", nsd: "NSD", iou: "IoU", auroc: "AUROC", tp: "TP", fp: "FP", fn: "FN", tn: "TN", px2: "px²" };

function shown(value, name = "") {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (COUNTS.test(name)) return value.toString();
  const size = Math.abs(value);
  return size >= 1000 ? value.toFixed(0) : size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2) : value.toFixed(3);
}

function readable(name) {
  const [, stem, unit] = name.match(/^(.*?)(?:_(mm|ml|px|px2))?$/);
  const words = stem.split("_").map((word) => SHORT[word] ?? word).join(" ");
  return unit ? `${words} [${SHORT[unit] ?? unit}]` : words;
}

const isGood = (status) => ["ok", "both_empty", "segmented", "validated"].includes(status);
const statusChip = (status) => element("span", { class: isGood(status) ? "chip" : "chip alarm" }, readable(status));

// ---- what is packed

function bytesOf(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let n = 0; n < letters.length; n++) bytes[n] = letters.charCodeAt(n);
  return bytes;
}

const inflated = (text) => new Response(new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate")));
const unpacked = async (text, Kind) => new Kind(await inflated(text).arrayBuffer());

// ---- colours

// Those of Okabe and Ito (2008), which people with any kind of colour vision tell apart.
const ON_LIGHT = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8f98", "#b8a800"];
const ON_DARK = ["#56b4e9", "#e69f00", "#1fc795", "#e3a1c8", "#3f8fd2", "#f0803c", "#a9b0ba", "#f0e442"];

const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => document.documentElement.dataset.theme === "dark";
const paletteColor = (n) => (isDark() ? ON_DARK : ON_LIGHT)[n % ON_LIGHT.length];
const colorOf = (label) => (Object.hasOwn(DATA.colors, label) ? DATA.colors[label] : paletteColor(LABELS.indexOf(label)));
const swatch = (color) => element("i", { class: "swatch", style: `background: ${color}` });

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
  const last = DATA.summary.length - 1;
  byId("summary").classList.toggle("many", last > 8);
  const body = DATA.summary.map((row, n) =>
    element(
      "tr", { class: n === last ? "overall" : false },
      element("td", { class: "text" }, ...(n === last ? [] : [swatch(colorOf(row.label))]), row.label),
      ...counts.map((name) => element("td", { class: "minor" }, shown(row[name], name))),
      ...means.map((name) => summaryCell(row, name)),
    ),
  );
  byId("summary").append(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  byId("policy").textContent = DATA.policy.replaceAll("_", " ");
}

function summaryCell(row, name) {
  const cell = element("td", {}, shown(row[name]));
  const range = row[`${name}_ci95`];
  if (range) cell.append(" ", element("span", { class: "range minor" }, `${shown(range[0])} – ${shown(range[1])}`));
  return cell;
}
