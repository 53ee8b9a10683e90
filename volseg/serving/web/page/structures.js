// The structures of a mask: which are shown, in which colour, how opaque, and how large they are.

import { choice, el } from "./dom.js";
import { attempt } from "./shell.js";
import { volume } from "./words.js";

/**
 * Return the card of the structures.
 *
 * @param labels value, name, color, volume_ml, isShown; the last two are changed here.
 * @param opacity Share at first.
 * @param actions `paint()` after a change, `fade(share)`, and `probability(frame)` or null.
 */
export function structures(labels, opacity, actions) {
  if (!labels.length) return null;
  const boxes = [];
  const all = el("input", { type: "checkbox", id: "all-structures", checked: true, onchange: () => {
    for (const [index, label] of labels.entries()) label.isShown = boxes[index].checked = all.checked;
    all.indeterminate = false;
    actions.paint();
  } });
  const lines = labels.map((label) => {
    const box = el("input", { type: "checkbox", checked: true, onchange: () => {
      label.isShown = box.checked;
      all.checked = labels.every((each) => each.isShown);
      all.indeterminate = !all.checked && labels.some((each) => each.isShown);
      actions.paint();
    } });
    boxes.push(box);
    const color = el("input", { type: "color", value: label.color, "aria-label": `Colour of ${label.name}`, oninput: () => {
      label.color = color.value;
      actions.paint();
    } });
    return el("li", {}, color, el("label", {}, box, el("span", {}, label.name)), el("b", {}, volume(label.volume_ml)));
  });
  const shown = el("output", { for: "opacity" }, `${Math.round(opacity * 100)} %`);
  const slider = el("input", { type: "range", id: "opacity", min: 0, max: 100, step: 5, value: opacity * 100, oninput: () => {
    shown.textContent = `${slider.value} %`;
    actions.fade(slider.value / 100);
  } });
  return el("section", { class: "card", id: "structures" },
    el("h2", {}, "Structures"),
    el("div", { class: "controls" }, el("label", { class: "check" }, all, el("span", {}, "all")),
      el("label", { class: "slider" }, "Opacity ", slider, shown)),
    el("ul", { class: "structures" }, lines),
    actions.probability && choice("Probability of", [["", "none"], ...labels.map((label, index) => [index, label.name])], {
      id: "probability",
      onchange: (event) => attempt(null, () => actions.probability(event.target.value === "" ? null : Number(event.target.value))),
    }));
}
