// The heads of a model: which one, which text and which view the reader has chosen.

const state = {
  sentence: 0, layer: 0, head: 0, figure: 0, unit: "words", special: "show", view: "lines",
  grid: "maps",
};

let hasMaps = false;
let hasFigures = false;
let grid = null;
let lines = null;
let matrix = null;

function textOf(sentence) {
  const { words, wordIds, special } = data.sentences[sentence];
  const shown = words.filter((_, word) => !special[wordIds.indexOf(word)]).join(" ");
  return shown.length > 70 ? `${shown.slice(0, 68)}…` : shown;
}

function drawGrid() {
  const figure = data.headFigures[state.figure];
  const maps = state.grid === "maps";
  byId("figure-meaning").textContent = maps
    ? "The attention of every head in the chosen sentence." : figure.meaning;
  byId("grid-legend").replaceChildren(...(maps
    ? grid.showMaps(state.sentence, state) : grid.showFigure(figure)));
  const select = byId("grid-controls").querySelector("select");
  if (select) select.closest("label").hidden = maps;
}

function drawHead() {
  grid.choose(state.layer, state.head);
  const name = `layer ${state.layer}, head ${state.head}`;
  byId("head-title").textContent = `Layer ${state.layer}, head ${state.head}`;
  for (const [id, value] of [["layer", state.layer], ["head", state.head]]) {
    byId(`slide-${id}`).value = value;
    byId(`slide-${id}`).nextSibling.textContent = value;
  }
  drawHeadFigures();
  if (!hasMaps) return;
  const map = mapOf(state.sentence, state.layer, state.head, state);
  byId("lines").hidden = state.view !== "lines";
  byId("matrix").hidden = state.view !== "matrix";
  if (state.view === "lines") lines.show(map, `${state.sentence}/${state.unit}/${state.special}`);
  else matrix.show(map, name);
  const light = state.view === "lines" && Number.isFinite(lines.least)
    ? ` Lines below ${show(lines.least)} are drawn only for the word you point at.` : "";
  byId("map-meaning").textContent = explainMap(state.sentence, state.layer, state.head, state) + light;
}

function drawHeadFigures() {
  const table = byId("head-figures");
  table.hidden = !hasFigures;
  if (!hasFigures) return;
  const cell = (value, low, high) => make("td", { class: "numeric" }, value,
    low === undefined || low === null ? null
      : make("span", { class: "interval" }, ` ${show(low)} to ${show(high)}`));
  const rows = data.headFigures.map((one) => {
    const found = figureAt(one.figures, state.layer, state.head);
    const value = one.categories[found.value] || show(found.value);
    const grey = found.distinguishable === false;
    const control = found.control === undefined ? "–"
      : one.categories[found.control] || show(found.control);
    return make("tr", { class: grey ? "grey" : "", title: grey
      ? `${one.meaning} Not distinguishable from a random model.` : one.meaning },
    make("th", { scope: "row" }, one.title + (one.unit ? `, ${one.unit}` : "")),
    cell(value, found.low, found.high), cell(control, found.control_low, found.control_high));
  });
  const title = (text) => make("th", { scope: "col", class: "numeric" }, text);
  const anyGrey = rows.some((row) => row.classList.contains("grey"));
  const caption = make("caption", {}, `Figures of layer ${state.layer}, head ${state.head}, with 95 % intervals` +
    (anyGrey ? "; grey: not distinguishable from a random model" : ""));
  table.replaceChildren(caption, make("thead", {}, make("tr", {}, make("th", { scope: "col" },
    "figure"), title("this model"), title("random model"))), make("tbody", {}, ...rows));
}

function chooseHead(layer, head) {
  Object.assign(state, { layer, head });
  drawHead();
}

function slider(id, title, count) {
  const range = make("input", { type: "range", id: `slide-${id}`, min: 0, max: count - 1, value: 0,
    "aria-label": title });
  range.addEventListener("input", () => {
    state[id] = Number(range.value);
    drawHead();
  });
  return make("label", { class: "slider" }, make("span", {}, title), range, make("output", {}, "0"));
}

// Draws the maps and figures that the data has, into elements that are as in heads.html.
function setUpHeads() {
  const [layerCount, headCount] = data.shape;
  hasMaps = data.sentences.length > 0;
  hasFigures = data.headFigures.length > 0;
  Object.assign(state, { sentence: 0, grid: hasFigures ? "figure" : "maps" });
  Object.assign(state, { layer: Math.min(state.layer, layerCount - 1),
    head: Math.min(state.head, headCount - 1) });
  grid = new HeadGrid(byId("grid"), layerCount, headCount, chooseHead);
  const invitation = "Point at a word or a cell, or go there with the arrow keys, to read its weights.";
  const read = (text) => { byId("reading").textContent = text || invitation; };
  const change = (name, draw = drawAll) => (value) => { state[name] = value; draw(); };
  const drawMaps = () => {
    if (state.grid === "maps") drawGrid();
    drawHead();
  };
  if (hasMaps) {
    lines = new LineView(byId("lines"), read);
    matrix = new MatrixView(byId("matrix"), read);
    byId("shared-controls").append(
      chooser("Sentence", data.sentences.map((_, k) => [k, `${k + 1}. ${textOf(k)}`]), 0, (value) => {
        state.sentence = Number(value);
        drawMaps();
      }),
      chooser("Special tokens", [["show", "shown"], ["renormalise", "left out, rows sum to 1 again"],
        ["hide", "hidden, weights kept"]], state.special, change("special", drawMaps)),
      chooser("Units", [["words", "words"], ["tokens", "tokens"]], state.unit, change("unit", drawHead)),
    );
    byId("head-controls").append(switcher("View", [["lines", "Lines"], ["matrix", "Matrix"]],
      state.view, change("view", drawHead)));
  } else {
    byId("lines").hidden = true;
  }
  byId("head-controls").append(slider("layer", "Layer", layerCount), slider("head", "Head", headCount));
  if (hasMaps && hasFigures) {
    byId("grid-controls").append(switcher("Heads show", [["figure", "Figure"], ["maps", "Maps"]],
      "figure", change("grid", drawGrid)));
  }
  if (hasFigures) {
    byId("grid-controls").append(chooser("Colour by", data.headFigures.map((one, k) => [k, one.title]),
      0, (value) => { state.figure = Number(value); drawGrid(); }));
  }
}
