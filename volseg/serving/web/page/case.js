// One case: its picture, structures, downloads, deliveries and jobs.

import { file, get, may, remove } from "./api.js";
import { button, choice, el } from "./dom.js";
import { jobsCard, jobsOf } from "./jobs.js";
import { downloads, sending } from "./results.js";
import { openSegment } from "./segment.js";
import { complain, confirm } from "./shell.js";
import { structures } from "./structures.js";
import { LAYOUTS, Viewer, WINDOWS } from "./viewer.js";
import { age, count, day } from "./words.js";

const OPACITY = 0.6;

// One viewer for all cases: a browser has few WebGL contexts.
let figure = null, viewer = null;

export function open(main, id) {
  const head = el("header", { class: "case-head" }), panel = el("div", { class: "panel" });
  const tools = el("div", { class: "controls tools" }), picture = el("div", { class: "picture-side" }, tools);
  const place = el("output", { class: "place", "aria-live": "off" });
  const state = el("p", { class: "state", role: "status" });
  main.replaceChildren(head, el("div", { class: "case" }, picture, panel));

  let shown = null; // the case as the server told it last
  let job, latest = "", lastJobs = ""; // whose masks are shown; the latest that has some; all, as text
  let volumes = [], current = 0, labels = [], opacity = OPACITY;
  let isOpen = true, drawn = "", parts = {};

  async function look() {
    if (!shown || shown.status === "arriving") shown = await get(`cases/${id}`);
    else shown.jobs = await jobsOf(id);
    if (!isOpen) return false;
    const jobs = JSON.stringify(shown.jobs);
    if (jobs !== lastJobs) {
      // A new result is shown at once; else what was chosen stays.
      const newest = shown.jobs.find((each) => each.results.length) ?? null;
      choose(newest?.id === latest ? shown.jobs.find((each) => each.id === job?.id) ?? newest : newest);
      [lastJobs, latest] = [jobs, newest?.id];
    }
    return shown.jobs.some((each) => ["waiting", "running"].includes(each.status)
      || each.results.some((result) => result.deliveries.some((delivery) => delivery.status === "waiting")));
  }

  function choose(next) {
    const isSame = job !== undefined && job?.id === next?.id;
    job = next;
    const masks = job?.results.filter((each) => each.format === "nifti") ?? [];
    const images = shown.study_uid ? shown.series.filter((each) => each.objects) : [{ uid: "", description: "", modality: "" }];
    volumes = masks.length ? masks.map((mask) => ({ mask, series: images.find((each) => each.uid === mask.series_uid) ?? images[0] }))
      : images.map((series) => ({ mask: null, series }));
    if (!isSame) {
      current = 0;
      drawHead();
      drawVolume();
    }
    drawPanel();
  }

  function drawHead() {
    const about = [shown.patient_id, shown.description, day(shown.date), shown.modalities.join(", "),
      shown.objects ? count(shown.objects, "image") : "uploaded file", age(shown.created)].filter(Boolean).join(" \u00b7 ");
    head.replaceChildren(
      el("div", {}, el("a", { href: "#/cases", class: "back" }, "\u2190 Work list"), el("h1", {}, shown.title), el("p", { class: "quiet" }, about)),
      el("div", { class: "buttons" },
        shown.ohif && el("a", { class: "button", href: shown.ohif, target: "_blank", rel: "noopener noreferrer" }, "Open in OHIF"),
        may("reviewer") && button("Segment \u2026", () => openSegment(shown), { class: "primary" }),
        may("admin") && button("Remove \u2026", askToRemove)));
  }

  function askToRemove() {
    confirm("Remove this case?", "Its images and results are removed from this server; what was sent stays where it is.", "Remove", async () => {
      await remove(`cases/${id}`);
      location.hash = "#/cases";
    });
  }

  function drawVolume() {
    const { mask } = volumes[current] ?? {};
    labels = (mask?.labels ?? []).map((label) => ({ ...label, isShown: true }));
    parts.structures = structures(labels, opacity, {
      paint: () => viewer?.paint(labels),
      fade: (share) => { opacity = share; viewer?.setOpacity(share); },
      probability: probabilityOf(mask),
    });
    drawTools();
    drawPicture();
  }

  /** Return what shows the probability of a label; null if there is none. */
  function probabilityOf(mask) {
    const result = job?.results.find((each) => each.format === "probabilities" && each.series_uid === mask?.series_uid);
    let kept = null;
    return result && (async (frame) => {
      if (!viewer) return;
      if (frame !== null) kept ??= await file(`results/${result.id}`);
      await viewer.showProbability(frame === null ? null : kept, frame);
    });
  }

  function drawTools() {
    const layout = el("div", { class: "segments", role: "group", "aria-label": "Layout" }, LAYOUTS.map(([name, text]) =>
      button(text, () => setLayout(name), { "data-layout": name, "aria-pressed": String(name === "all") })));
    const ruler = button("Ruler", () => {
      const isOn = ruler.getAttribute("aria-pressed") !== "true";
      ruler.setAttribute("aria-pressed", String(isOn));
      viewer?.setRuler(isOn);
    }, { class: "toggle", "aria-pressed": "false", title: "Drag in a slice to measure a distance" });
    const isCt = volumes[current]?.series.modality === "CT";
    const windows = isCt && choice("Window", [["", "automatic"], ...Object.keys(WINDOWS).map((name) => [name, name])],
      { onchange: (event) => viewer?.setWindow(WINDOWS[event.target.value] ?? null) });
    const pick = volumes.length > 1 && choice("Series", volumes.map(({ series }, index) => [index, [series.modality, series.description || `series ${index + 1}`].filter(Boolean).join(" ")]),
      { id: "volume", onchange: (event) => { current = Number(event.target.value); drawVolume(); drawPanel(); } });
    if (pick) pick.querySelector("select").value = current;
    parts.ruler = ruler;
    tools.replaceChildren(...[pick, layout, ruler, windows, button("Reset", () => viewer?.reset(), { title: "The view as it was at first" })].filter(Boolean));
    viewer?.setRuler(false);
    viewer?.setLayout("all");
  }

  function setLayout(name) {
    for (const each of tools.querySelectorAll("[data-layout]")) each.setAttribute("aria-pressed", String(each.dataset.layout === name));
    viewer?.setLayout(name);
  }

  async function drawPicture() {
    const { mask, series } = volumes[current] ?? {};
    const wanted = `${series?.uid} ${mask?.id}`;
    if (!series || drawn === wanted) return;
    drawn = wanted;
    const isCurrent = () => isOpen && drawn === wanted;
    figure ??= el("figure", { class: "viewer" }, el("canvas", { id: "picture" }));
    figure.querySelector("canvas").setAttribute("aria-label", `Slices and 3D view of ${shown.title}; arrow keys move the cross`);
    figure.querySelector("canvas").setAttribute("role", "img");
    picture.replaceChildren(tools, el("div", { class: "stage" }, figure, state), place);
    figure.dataset.state = "loading";
    state.textContent = "The images are being fetched \u2026";
    try {
      const [image, drawing] = await Promise.all([
        file(`cases/${id}/image.nii.gz?series=${encodeURIComponent(series.uid)}`), mask && file(`results/${mask.id}`)]);
      if (!isCurrent()) return;
      viewer ??= await Viewer.create(figure, (text) => { document.querySelector("output.place").textContent = text; });
      if (!isCurrent()) return;
      await viewer.show(image, drawing, labels, opacity);
      if (!isCurrent()) return;
      viewer.reset();
      state.textContent = "";
      figure.dataset.state = "shown";
    } catch (error) {
      if (!isCurrent()) return;
      state.textContent = error.message;
      figure.dataset.state = "failed";
    }
  }

  function drawPanel() {
    const focused = document.activeElement?.dataset.focus;
    const { mask } = volumes[current] ?? {};
    panel.replaceChildren(...[
      job?.remark && el("p", { class: "alarm strip", id: "remark" }, el("b", {}, "Please review: "), job.remark),
      parts.structures,
      mask && downloads(shown, job, mask, volumes[current].series),
      job && may("reviewer") && sending(job, mask?.series_uid ?? "", shown),
      jobsCard(shown, job, (id) => choose(shown.jobs.find((each) => each.id === id))),
    ].filter(Boolean));
    if (focused && document.activeElement === document.body) {
      [...panel.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === focused)?.focus();
    }
  }

  function fade(by) {
    const slider = panel.querySelector("#opacity");
    if (!slider) return;
    slider.value = Number(slider.value) + by;
    slider.dispatchEvent(new Event("input"));
  }

  return {
    look: () => look().catch((error) => { if (!shown) missing(main, error); throw error; }),
    close() {
      isOpen = false;
      viewer?.clear();
    },
    keys: {
      ...Object.fromEntries(LAYOUTS.map(([name], index) => [String(index + 1), () => setLayout(name)])),
      "s": () => panel.querySelector("#all-structures")?.click(),
      "[": () => fade(-10), "]": () => fade(10),
      "r": () => parts.ruler?.click(),
      "0": () => viewer?.reset(),
      "Backspace": () => { location.hash = "#/cases"; },
    },
  };
}

function missing(main, error) {
  if (error.status === 404) main.replaceChildren(el("p", { class: "empty" }, "There is no such case. ", el("a", { href: "#/cases" }, "Go to the work list")));
}
