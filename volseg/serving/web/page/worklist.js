// The work list: every case with its picture, status, volumes and whatever somebody should look at.

import { get, may } from "./api.js";
import { choice, el, refresh, row, table } from "./dom.js";
import { uploadArea } from "./upload.js";
import { age, bar, chip, count, day, swatch, volume } from "./words.js";

const SHOWN_LABELS = 4;
const FILTERS = [["", "all"], ["review", "to review"], ["done", "done"], ["running", "running"], ["waiting", "waiting"],
  ["failed", "failed"], ["arriving", "arriving"], ["no job", "not segmented"]];
const kept = { search: "", filter: "" };

export function open(main) {
  const search = el("input", { type: "search", id: "search", placeholder: "patient, description, file", value: kept.search,
    oninput: () => { kept.search = search.value; look(); } });
  const filter = choice("Show", FILTERS, { id: "filter", onchange: (event) => { kept.filter = event.target.value; look(); } });
  filter.querySelector("select").value = kept.filter;
  const found = el("span", { class: "quiet", id: "count", role: "status" });
  const list = table("Cases", [["Picture", "picture"], ["Case"], ["Images"], ["Status"], ["Volumes"], ["Reason to review"], ["Age", "end"]], "cases");
  const nothing = el("p", { class: "empty", hidden: true });
  const upload = may("reviewer") ? uploadArea() : null;
  main.replaceChildren(el("h1", {}, "Work list"), ...(upload ? [upload.node] : []),
    el("section", { class: "card list" },
      el("div", { class: "controls" }, el("label", {}, "Search ", search), filter, found), list, nothing));
  let asked = 0;

  async function look() {
    const mine = ++asked;
    const answer = await get(`cases?search=${encodeURIComponent(kept.search)}`);
    if (mine !== asked) return false;
    const shown = answer.filter((item) => !kept.filter || (kept.filter === "review" ? item.remark : item.status === kept.filter));
    refresh(list.tBodies[0], shown.map((item) => ({ ...item, age: age(item.created) })), line);
    found.textContent = shown.length === answer.length ? count(shown.length, "case") : `${shown.length} of ${count(answer.length, "case")}`;
    list.hidden = !shown.length;
    nothing.hidden = shown.length > 0;
    nothing.textContent = kept.search || kept.filter ? "No case fits." : "There are no cases yet: upload images, or send studies to the DICOM node.";
    return answer.some((item) => ["running", "waiting", "arriving"].includes(item.status));
  }

  return {
    look,
    close: () => upload?.close(),
    keys: {
      "/": () => search.focus(),
      "j": () => step(list, 1),
      "k": () => step(list, -1),
      ...(upload ? { u: upload.choose } : {}),
    },
  };
}

/** Move the focus to the next or previous case. */
function step(list, by) {
  const links = [...list.querySelectorAll("a.title")];
  const now = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, now + by))]?.focus();
}

function line(item) {
  const link = `#/case/${item.id}`;
  const picture = item.picture ? el("img", { src: `/api/results/${item.picture}`, alt: "", loading: "lazy", width: 72, height: 72 })
    : el("span", { class: "nothing", "aria-hidden": "true" });
  const about = [item.patient_id, item.description].filter(Boolean).join(" \u00b7 ");
  const images = [item.modalities.join(", "), item.objects ? count(item.objects, "image") : "file", day(item.date)].filter(Boolean).join(" \u00b7 ");
  const made = row(
    [picture, "picture"],
    [[el("a", { href: link, class: "title", "data-focus": "title" }, item.title), about && el("span", { class: "below" }, about)], "main"],
    [images, "images"],
    [[chip(item.status), item.model && el("span", { class: "quiet model" }, item.model),
      item.status === "running" && bar(item.progress, `Progress of ${item.title}`),
      item.reason && el("span", { class: "below" }, item.reason)], "status"],
    [item.segmented > 1 ? el("span", { class: "quiet" }, count(item.segmented, "volume")) : volumes(item.labels), "volumes"],
    [item.remark && el("span", { class: "remark" }, item.remark), "review"],
    [el("time", { datetime: new Date(item.created * 1000).toISOString() }, item.age), "end age"],
  );
  made.addEventListener("click", (event) => { if (!event.target.closest("a, button") && !String(getSelection())) location.hash = link; });
  return made;
}

function volumes(labels) {
  const shown = labels.slice(0, SHOWN_LABELS);
  return el("ul", { class: "labels" },
    shown.map((label) => el("li", {}, swatch(label.color), el("span", {}, label.name), el("b", {}, volume(label.volume_ml)))),
    labels.length > shown.length && el("li", { class: "quiet" }, `and ${labels.length - shown.length} more`));
}
