// The models, each with its card.

import { get, text } from "./api.js";
import { el, refresh } from "./dom.js";
import { markdown } from "./markdown.js";
import { complain } from "./shell.js";

export function open(main) {
  const list = el("div", { id: "models" });
  main.replaceChildren(el("h1", {}, "Models"), list);
  return {
    async look() {
      refresh(list, (await get("models")).map((each) => ({ ...each, id: each.name })), card);
      return false;
    },
  };
}

function card(model) {
  const body = el("div", { class: "prose" }, "\u2026");
  const load = async (event) => {
    if (!event.target.open || body.dataset.state) return;
    body.dataset.state = "asked";
    try {
      body.replaceChildren(...markdown(await text(`models/${encodeURIComponent(model.name)}/card`)));
    } catch (error) {
      delete body.dataset.state;
      body.textContent = "";
      complain(error);
    }
  };
  return el("section", { class: "card" }, el("h2", {}, model.name, " ", model.is_default && el("span", { class: "chip" }, "default")),
    el("details", { ontoggle: load }, el("summary", {}, "Model card"), body));
}
