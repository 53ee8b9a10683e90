// What becomes of a mask: downloads in every format, and sending to destinations.

import { file, get, may, post } from "./api.js";
import { button, choice, el } from "./dom.js";
import { retryDelivery } from "./queue.js";
import { attempt, say } from "./shell.js";
import { chip, formatName } from "./words.js";

let format = "nifti"; // what was chosen last

/** Return the card of downloads of a mask and its image. */
export function downloads(shown, job, mask, series) {
  const others = job.results.filter((each) => each.series_uid === mask.series_uid && each.format === "probabilities");
  const options = [...shown.formats.map((each) => [each, formatName(each)]), ...others.map((each) => [`#${each.id}`, formatName(each.format)]), ["image", "The image (NIfTI)"]];
  const pick = choice("Format", options, { id: "format", onchange: (event) => { format = event.target.value; } });
  pick.querySelector("select").value = options.some(([value]) => value === format) ? format : "nifti";
  const get_ = button("Download", (event) => attempt(event.currentTarget, async () => {
    const wanted = pick.querySelector("select").value;
    // A DICOM object that exists is given as it was sent; it is not made again.
    const made = job.results.find((each) => each.series_uid === mask.series_uid && each.format === wanted);
    const path = wanted === "image" ? `cases/${shown.id}/image.nii.gz?series=${encodeURIComponent(series.uid)}`
      : wanted.startsWith("#") ? `results/${wanted.slice(1)}` : made ? `results/${made.id}` : `results/${mask.id}?format=${wanted}`;
    save(await file(path));
  }), { class: "primary", "data-focus": "download" });
  return el("section", { class: "card", id: "downloads" }, el("h2", {}, "Download"), el("div", { class: "controls" }, pick, get_));
}

/** Return the card of what was sent, and what can be sent. */
export function sending(job, series, shown) {
  const list = el("ul", { class: "rows" });
  fill(list, job, series, shown);
  return el("section", { class: "card", id: "sending" }, el("h2", {}, "Send to \u2026"), list);
}

let destinations = null; // they change only when the server is started again

async function fill(list, job, series, shown) {
  await attempt(null, async () => { destinations ??= await get("destinations"); });
  const lines = (destinations ?? []).map((destination) => {
    const results = job.results.filter((each) => each.series_uid === series && destination.formats.includes(each.format));
    return el("li", {}, el("b", {}, destination.name), results.length ? results.map((result) => delivery(result, destination))
      : el("p", { class: "quiet" }, `takes ${destination.formats.map(formatName).join(", ")}; ${shown.study_uid
        ? "segment the case with one of these formats" : "an uploaded file has no DICOM images that they could refer to"}`));
  });
  list.replaceChildren(...lines, ...(lines.length ? [] : [el("li", { class: "quiet" }, "The server has no destinations.")]));
}

function delivery(result, destination) {
  const sent = result.deliveries.find((each) => each.destination === destination.name);
  const send = button("Send", (event) => attempt(event.currentTarget, async () => {
    await post(`results/${result.id}/deliveries`, { destination: destination.name });
    say(`${formatName(result.format)} is on its way to ${destination.name}`);
    document.dispatchEvent(new CustomEvent("changed"));
  }), { "data-focus": `send ${result.id} ${destination.name}`, "aria-label": `Send ${formatName(result.format)} to ${destination.name}` });
  return el("div", { class: "delivery" }, el("span", {}, formatName(result.format)),
    sent ? chip(sent.status) : may("reviewer") && send, sent && retryDelivery(sent),
    sent?.reason && el("p", { class: "below" }, sent.reason));
}

function save(made) {
  const link = el("a", { href: URL.createObjectURL(made), download: made.name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
