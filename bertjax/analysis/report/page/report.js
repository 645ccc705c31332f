// The report: its facts, its sections, and what is redrawn when the theme changes.

function drawLens(number) {
  const lens = data.lenses[number];
  byId("lens-meaning").textContent =
    "The masked-LM head applied to the hidden states of every layer: each cell has the most " +
    "likely token. The colour is the probability of the true token, a frame says that it is the " +
    `most likely. ${lens.masked ? "Each token was masked when it was predicted."
      : "The text was read as it is, without a mask."}`;
  const read = (text) => { byId("lens-reading").textContent = text; };
  byId("lens-table").replaceChildren(lensTable(lens, read),
    make("div", { class: "legend" },
      colorBar("weights", 0, 1, "probability of the true token, on a square-root scale")));
}

function drawAll() {
  lookAtTheme();
  if (grid) {
    drawGrid();
    drawHead();
  }
  if (data.lenses.length) drawLens(Number(byId("lens-controls").querySelector("select").value));
  byId("curve-cards").replaceChildren(...data.curves.map((one) => card(one, curveChart(one))));
  byId("matrix-cards").replaceChildren(...data.matrices.map((one) => card(one, matrixTable(one))));
}

function setUpFacts() {
  byId("facts").append(...data.facts.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, show(value)))));
  byId("notes").append(...data.notes.map((note) => make("li", {}, note)));
  byId("notes").hidden = !data.notes.length;
}

function setUp() {
  const [layerCount] = data.shape;
  setUpTheme();
  setUpFacts();
  if (layerCount) setUpHeads();
  if (data.lenses.length) {
    byId("lens-controls").append(chooser("Text", data.lenses.map((lens, k) => [k,
      `${k + 1}. ${lens.text.length > 70 ? `${lens.text.slice(0, 68)}…` : lens.text}`]), 0,
    (value) => drawLens(Number(value))));
  }
  byId("table-cards").append(...data.tables.map((one) => card(one, dataTable(one, (layer, head) => {
    chooseHead(layer, head);
    byId("detail").scrollIntoView({ block: "nearest" });
    byId("head-title").scrollIntoView({ block: "nearest" });
  }))));
  const there = { model: data.facts.length || data.notes.length, heads: layerCount,
    lens: data.lenses.length, curves: data.curves.length, matrices: data.matrices.length,
    tables: data.tables.length };
  for (const [id, count] of Object.entries(there)) {
    byId(id).hidden = !count;
    if (count) {
      byId("sections").append(make("a", { href: `#${id}` }, byId(`${id}-title`).textContent));
    }
  }
  document.querySelector(".skip").hidden = !layerCount;
  drawAll();
  document.documentElement.dataset.ready = "true";
}

setUp();
