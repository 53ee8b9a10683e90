// Uploads: files, folders and archives, dropped or chosen, one batch after the other.

import { get, upload } from "./api.js";
import { button, choice, el } from "./dom.js";
import { complain, say } from "./shell.js";
import { bar, count, size } from "./words.js";

// What is being sent goes on while other views are shown.
const batches = [];
let isSending = false, running = null, model = null;
const progress = el("div", { class: "sending", hidden: true });

/** Return where files are dropped and chosen. */
export function uploadArea() {
  const files = el("input", { type: "file", multiple: true, id: "files", hidden: true, onchange: () => take(files) });
  const folder = el("input", { type: "file", webkitdirectory: true, id: "folder", hidden: true, onchange: () => take(folder) });
  const pick = choice("Segment with", [["", "nothing yet"]], { id: "upload-model", onchange: (event) => { model = event.target.value; } });
  const node = el("section", { class: "card upload", "aria-label": "Upload" },
    el("div", { class: "controls" },
      el("p", {}, el("b", {}, "Drop images here"), el("span", { class: "quiet" }, " a folder, a .zip, DICOM files, NIfTI, NRRD or MetaImage")),
      button("Choose files", () => files.click(), { class: "primary" }), button("Choose a folder", () => folder.click(), { class: "wide-only" }), pick),
    progress, files, folder);
  offerModels(pick.querySelector("select"));
  const shade = document.getElementById("drop"), listening = new AbortController();
  const on = (name, action) => addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    action(event);
  }, { signal: listening.signal });
  on("dragover", () => { shade.hidden = false; });
  on("dragleave", (event) => { shade.hidden = event.relatedTarget === null; });
  on("drop", async (event) => {
    shade.hidden = true;
    // What was dropped can be asked for only now, so all entries are taken before anything is waited for.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    send((await Promise.all(entries.map(filesOf))).flat());
  });
  return { node, close: () => listening.abort(), choose: () => files.click() };
}

async function offerModels(select) {
  try {
    const models = await get("models");
    select.prepend(...models.map(({ name }) => el("option", { value: name }, name)));
    select.value = model ?? models.find((each) => each.is_default)?.name ?? "";
    model = select.value;
  } catch (error) {
    complain(error);
  }
}

function take(input) {
  send([...input.files].map((file) => [file, file.webkitRelativePath || file.name]));
  input.value = "";
}

/** Return [file, name] of a dropped file, or of everything in a dropped folder. */
async function filesOf(entry) {
  if (entry.isFile) return [[await new Promise((resolve, reject) => entry.file(resolve, reject)), entry.fullPath.slice(1)]];
  const reader = entry.createReader(), found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) return found;
    for (const each of some) found.push(...await filesOf(each));
  }
}

/** Send files after those that are being sent; what a system hides in folders, and lists of contents, stay here. */
function send(files) {
  const wanted = files.filter(([, name]) => !name.split("/").some((part) => part.startsWith(".") || part === "__MACOSX" || part === "DICOMDIR"));
  if (!wanted.length) return complain(new Error("there is no file to upload: choose images, or a folder that holds some"));
  batches.push({ files: wanted, model });
  if (!isSending) sendAll();
}

async function sendAll() {
  isSending = true;
  addEventListener("beforeunload", askToStay);
  while (batches.length) await sendOne(batches.shift());
  removeEventListener("beforeunload", askToStay);
  isSending = false;
}

async function sendOne(batch) {
  const bytes = batch.files.reduce((sum, [file]) => sum + file.size, 0);
  const what = `${batch.files.length === 1 ? batch.files[0][0].name : count(batch.files.length, "file")} (${size(bytes)})`;
  const shown = bar(0, `Upload of ${what}`), state = el("span", { class: "quiet" }, "sending");
  progress.replaceChildren(el("span", {}, what), shown, state, button("Cancel", () => running?.request.abort()));
  progress.hidden = false;
  try {
    running = upload(batch.files, batch.model, (share) => {
      shown.value = share;
      state.textContent = share < 1 ? `${Math.floor(share * 100)} %` : "the server checks it";
    });
    const { case_ids: ids, left_out: others } = await running.done;
    say(ids.length ? `${count(ids.length, "case")} uploaded${batch.model ? `, to be segmented with ${batch.model}` : ""}${others.length ? `; ${count(others.length, "file")} left out: ${others[0]}` : ""}` : "the upload was cancelled");
  } catch (error) {
    complain(error);
  }
  progress.hidden = true;
  document.dispatchEvent(new Event("changed"));
}

const askToStay = (event) => event.preventDefault();
