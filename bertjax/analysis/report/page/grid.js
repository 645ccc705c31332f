// All heads at once: coloured by a figure, or as small maps of the chosen sentence.

// At most this many cells show their number; more would be too narrow for it.
const MOST_HEADS_WITH_NUMBERS = 12;
const THUMBNAIL_DOTS = 40;
// Milliseconds of drawing after which the page handles its reader's input.
const LONGEST_PAUSE = 60;

class HeadGrid {
  constructor(element, layers, heads, onchoose) {
    Object.assign(this, { element, layers, heads, onchoose, cells: [], drawing: 0 });
    element.style.setProperty("--heads", heads);
    element.classList.toggle("narrow", heads > MOST_HEADS_WITH_NUMBERS);
    element.append(this.row([make("span", { class: "corner", role: "columnheader" }, "layer"),
      ...Array.from({ length: heads }, (_, head) =>
        make("span", { class: "name", role: "columnheader" }, `${head}`))]));
    for (let layer = 0; layer < layers; layer++) {
      const cells = Array.from({ length: heads }, (_, head) => this.makeCell(layer, head));
      this.cells.push(cells);
      element.append(this.row([make("span", { class: "name", role: "rowheader" }, `${layer}`),
        ...cells]));
    }
    element.addEventListener("keydown", (event) => this.move(event));
  }

  row(children) {
    return make("div", { role: "row" }, ...children);
  }

  makeCell(layer, head) {
    return make("button", {
      type: "button", role: "gridcell", tabindex: "-1", "data-layer": layer, "data-head": head,
      onclick: () => this.onchoose(layer, head),
    }, make("span", { class: "number" }));
  }

  // Arrow keys, Home and End move from head to head.
  move(event) {
    const cell = event.target.closest("[data-head]");
    const steps = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      Home: [0, -this.heads], End: [0, this.heads],
    }[event.key];
    if (!cell || !steps) return;
    event.preventDefault();
    const clip = (value, most) => Math.max(0, Math.min(most - 1, value));
    const layer = clip(Number(cell.dataset.layer) + steps[0], this.layers);
    const head = clip(Number(cell.dataset.head) + steps[1], this.heads);
    this.cells[layer][head].focus();
    this.onchoose(layer, head);
  }

  choose(layer, head) {
    this.element.querySelectorAll("[aria-selected=true]").forEach((cell) => {
      cell.setAttribute("aria-selected", "false");
      cell.tabIndex = -1;
    });
    this.cells[layer][head].setAttribute("aria-selected", "true");
    this.cells[layer][head].tabIndex = 0;
  }

  // Colours every cell by a figure; returns the legend.
  showFigure(figure) {
    this.drawing++;
    this.element.classList.remove("maps");
    const values = figure.figures.value.flat().filter((value) => value !== null);
    const low = Math.min(...values);
    const high = Math.max(...values);
    let grey = 0;
    this.cells.forEach((row, layer) => row.forEach((cell, head) => {
      const found = figureAt(figure.figures, layer, head);
      const told = found.value !== null && found.distinguishable !== false;
      const kind = figure.categories[found.value];
      const color = figure.categories.length
        ? parse(CATEGORY_COLORS[found.value] || "#7F7F7F")
        : colorOf("figures", high > low ? (found.value - low) / (high - low) : 0.5);
      cell.classList.toggle("grey", !told);
      cell.style.background = told ? css(color) : "";
      cell.style.color = told ? inkOn(color) : "";
      cell.querySelector("canvas")?.remove();
      cell.firstChild.textContent = kind ? "" : show(found.value);
      const text = kind ? kind : describe(found, figure.unit);
      cell.title = `layer ${layer}, head ${head}: ${text}`;
      cell.setAttribute("aria-label", `${figure.title}, ${cell.title}`);
      if (!told) grey++;
    }));
    const parts = figure.categories.length
      ? figure.categories.map((name, k) => this.sample(CATEGORY_COLORS[k], name))
      : values.length ? [colorBar("figures", low, high, figure.unit || "share")] : [];
    if (grey) {
      parts.push(this.sample(null, `${grey} of ${this.layers * this.heads} heads not distinguishable` +
        " from a random model"));
    }
    return parts;
  }

  sample(color, text) {
    const box = make("span", { class: color ? "sample" : "sample grey", "aria-hidden": "true" });
    if (color) box.style.background = color;
    return make("span", { class: "scale" }, box, text);
  }

  // Draws the small maps, for a short while at a time, so that the page stays responsive.
  showMaps(sentence, options) {
    const drawing = ++this.drawing;
    this.element.classList.add("maps");
    delete this.element.dataset.drawn;
    const draw = (first) => {
      if (drawing !== this.drawing) return;
      const end = performance.now() + LONGEST_PAUSE;
      let layer = first;
      while (layer < this.layers && performance.now() < end) this.drawLayer(layer++, sentence, options);
      if (layer < this.layers) setTimeout(() => draw(layer));
      else this.element.dataset.drawn = "true";
    };
    draw(0);
    const shown = data.sentences[sentence].tokens.length > THUMBNAIL_DOTS
      ? `Each dot is the heaviest edge between groups of tokens (${THUMBNAIL_DOTS} x ` +
        `${THUMBNAIL_DOTS} dots).` : "Each dot is an edge between two tokens.";
    return [make("span", {}, `From each token (row) to each token (column). ${shown} Colours are ` +
      "scaled to each head's own heaviest edge.")];
  }

  drawLayer(layer, sentence, options) {
    this.cells[layer].forEach((cell, head) => {
      cell.classList.remove("grey");
      cell.style.background = cell.style.color = "";
      cell.firstChild.textContent = "";
      const canvas = cell.querySelector("canvas") || cell.appendChild(make("canvas"));
      thumbnail(canvas, sentence, layer, head, options, THUMBNAIL_DOTS);
      cell.title = `layer ${layer}, head ${head}`;
      cell.setAttribute("aria-label", `attention map, ${cell.title}`);
    });
  }
}
