// The dialog that asks for a segmentation.

import { get, post } from "./api.js";
import { button, choice, el } from "./dom.js";
import { attempt, dialog, say } from "./shell.js";
import { formatName } from "./words.js";

const DICOM = ["dicom-seg", "rtstruct", "dicom-sr"];

/** Ask with which model, and what becomes of the masks. */
export function openSegment(shown) {
  attempt(null, async () => {
    const [models, destinations] = await Promise.all([get("models"), get("destinations")]);
    show(shown, models, destinations);
  });
}

function show(shown, models, destinations) {
  const model = choice("Model", models.map(({ name }) => [name, name]), { id: "segment-model" });
  const usual = shown.study_uid ? ["dicom-seg"] : [];
  const formats = shown.study_uid ? checks("Also as", DICOM.map((each) => [each, formatName(each)]), usual) : null;
  const to = shown.study_uid && destinations.length ? checks("Send to", destinations.map(({ name }) => [name, name]), []) : null;
  const extra = checks("Also keep", [["probabilities", "the probability of each structure"]], []);
  const node = dialog("Segment", el("form", { class: "stack", onsubmit: (event) => event.preventDefault() }, model, formats?.node, to?.node, extra.node,
    el("p", { class: "quiet" }, "NIfTI and a picture are always made, and other formats when they are downloaded.")),
  button("Segment", (event) => attempt(event.currentTarget, async () => {
    const body = { model: model.querySelector("select").value, formats: formats?.chosen() ?? [], destinations: to?.chosen() ?? [],
      probabilities: extra.chosen().length > 0 };
    await post(`cases/${shown.id}/jobs`, body);
    node.close();
    say(`${shown.title} is in the queue`);
    document.dispatchEvent(new Event("changed"));
  }), { class: "primary" }));
}

function checks(title, options, on) {
  const boxes = options.map(([value]) => el("input", { type: "checkbox", value, checked: on.includes(value) }));
  const node = el("fieldset", {}, el("legend", {}, title), options.map(([, text], index) => el("label", { class: "check" }, boxes[index], el("span", {}, text))));
  return { node, chosen: () => boxes.filter((box) => box.checked).map((box) => box.value) };
}
