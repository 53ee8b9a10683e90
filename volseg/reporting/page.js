// ---- light, dark and paper

const PRINTED_CASES = 12;
const PAPER_WIDTH = 660;

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  if (typeof Plotly === "undefined") return;
  showCharts();
  showCurves();
}

function followTheme() {
  const root = document.documentElement;
  root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  byId("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
}

/** The worst cases as they are printed; paper cannot wait for pictures to be unpacked. */
async function preparePaper() {
  byId("hundred").hidden = state.shown.length <= 100;
  const ids = [...new Set(state.shown.map((row) => row.case_id))].filter(pictureOf).slice(0, PRINTED_CASES);
  for (const id of ids) {
    const voxels = await voxelsOf(id);
    const planes = viewsOf(voxels).map((name) => {
      const plane = planeElement(name, `${name} slice`);
      paint(plane, voxels, voxels.position[VIEWS[name].through], { ...wholeSlice(voxels, name), off: new Set(), errors: true, outlines: true });
      return element("figure", { class: "view" }, plane);
    });
    if (!byId("print-section").children.length) byId("print-section").append(element("h2", {}, "The worst cases"), legendOf(voxels));
    const names = voxels.labels.map((label) => element("li", {}, swatch(label.color), label.name));
    byId("print-section").append(element("div", { class: "printed" }, element("h3", {}, id), element("div", { class: "views" }, ...planes), element("ul", { class: "legend" }, ...names)));
  }
}

function followPrinter() {
  let theme = null;
  const drawnCharts = () => [...document.querySelectorAll(".chart.js-plotly-plot")];
  addEventListener("beforeprint", () => {
    theme ??= document.documentElement.dataset.theme;
    setTheme("light");
    for (const chart of drawnCharts()) Plotly.relayout(chart, { autosize: false, width: PAPER_WIDTH });
  });
  addEventListener("afterprint", () => {
    for (const chart of drawnCharts()) Plotly.relayout(chart, { autosize: true, width: null });
    setTheme(theme ?? document.documentElement.dataset.theme);
    theme = null;
  });
}

// ---- what is read first comes first, and the library of charts last

followTheme();
showHead();
showSummary();
showCases();
followCase();
followPrinter();
byId("old").hidden = canUnpack;
if (canUnpack) {
  charts = new Promise((done) => requestAnimationFrame(() => setTimeout(done))).then(loadCharts).then(() => {
    showCharts();
    showCurves();
  });
  charts.then(preparePaper);
}
