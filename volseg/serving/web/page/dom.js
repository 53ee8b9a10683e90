// Elements. Whatever comes from the server becomes text or an attribute, never markup.

/** Return an element with attributes, listeners (`onclick` ...) and children: nodes, texts, lists of them, or null. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/**
 * Make the children of `parent` those of `items`, each with an `id`. A child whose item has not changed stays as it is,
 * and one that is made anew gets back the focus on what has the same `data-focus`, so that nobody loses their place.
 */
export function refresh(parent, items, make) {
  const before = new Map([...parent.children].map((node) => [node.dataset.id, node]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && [focused.closest("[data-id]")?.dataset.id, focused.dataset.focus];
  let next = parent.firstElementChild;
  for (const item of items) {
    const text = JSON.stringify(item);
    let node = before.get(String(item.id));
    if (node?.text !== text) {
      const made = make(item);
      made.dataset.id = item.id;
      made.text = text;
      if (node === next) next = next?.nextElementSibling;
      node?.remove();
      node = made;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
    before.delete(String(item.id));
  }
  for (const node of before.values()) node.remove();
  if (focused && !parent.contains(document.activeElement)) {
    const row = [...parent.children].find((node) => node.dataset.id === place[0]);
    [...(row?.querySelectorAll("[data-focus]") ?? [])].find((node) => node.dataset.focus === place[1])?.focus();
  }
}

/** Return a button. */
export function button(text, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, text);
}

/** Return a labelled <select>; options are [value, text]. */
export function choice(text, options, attributes = {}) {
  return el("label", {}, text, " ", el("select", attributes, options.map(([value, name]) => el("option", { value }, name))));
}

/** Return a table: heads are [text, class]. Roles are stated since narrow screens lay rows out as cards. */
export function table(label, heads, id) {
  const cells = heads.map(([text, kind]) => el("th", { scope: "col", role: "columnheader", class: kind }, text));
  return el("table", { "aria-label": label, role: "table" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, cells)), el("tbody", { id, role: "rowgroup" }));
}

/** Return a row of a table: cells are [content, class]. */
export function row(...cells) {
  return el("tr", { role: "row" }, cells.map(([content, kind, name]) =>
    el("td", { role: "cell", class: kind, "data-name": name }, content)));
}
