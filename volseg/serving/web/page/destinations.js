// The destinations, and whether they answer.

import { get, may, post } from "./api.js";
import { button, choice, el, refresh, row, table } from "./dom.js";
import { attempt, say } from "./shell.js";
import { formatName } from "./words.js";

const answers = new Map(); // name -> what it last answered to an echo

export function open(main) {
  const list = table("Destinations", [["Name"], ["Address"], ["Takes"], ["Waiting", "end"], ["Given up", "end"], ["Answer"]], "destinations");
  const nothing = el("p", { class: "empty", hidden: true }, "There are no destinations: state some in the server's configuration.");
  const uid = el("input", { required: true, pattern: "[0-9.]{1,64}", size: 34, placeholder: "StudyInstanceUID", "aria-label": "StudyInstanceUID" });
  const from = choice("from", []), source = from.querySelector("select");
  const fetching = el("form", { class: "controls", hidden: true, onsubmit: (event) => {
    event.preventDefault();
    attempt(event.submitter, async () => {
      say((await post(`destinations/${encodeURIComponent(source.value)}/fetch`, { study_uid: uid.value })).text);
      uid.value = "";
    });
  } }, "Fetch a study", uid, from, el("button", {}, "Fetch"));
  main.replaceChildren(el("h1", {}, "Destinations"), el("section", { class: "card" }, list, nothing, fetching));
  return {
    async look() {
      const all = await get("destinations");
      refresh(list.tBodies[0], all.map((each) => ({ ...each, id: each.name })), line);
      list.hidden = !all.length;
      nothing.hidden = all.length > 0;
      fetching.hidden = !all.length || !may("reviewer");
      if (source.length !== all.length) source.replaceChildren(...all.map((each) => el("option", {}, each.name)));
      return all.some((each) => each.waiting > 0);
    },
  };
}

function line(destination) {
  const said = el("span", { role: "status" });
  const show = (answer) => {
    said.className = `answer ${answer.is_well ? "good" : "bad"}`;
    said.textContent = answer.text;
  };
  if (answers.has(destination.name)) show(answers.get(destination.name));
  const echo = (event) => attempt(event.currentTarget, async () => {
    said.className = "quiet";
    said.textContent = "asking";
    answers.set(destination.name, await post(`destinations/${encodeURIComponent(destination.name)}/echo`));
    show(answers.get(destination.name));
  });
  return row(
    [el("b", {}, destination.name), "main"],
    [destination.to, "images address"],
    [destination.formats.map(formatName).join(", "), "images"],
    [destination.waiting, "end number", "waiting"],
    [destination.failed, "end number", "given up"],
    [el("div", { class: "controls" }, may("reviewer") && button("Echo", echo, { "data-focus": "echo", "aria-label": `Echo ${destination.name}` }), said), "actions"],
  );
}
