// One head as lines, from the words on the left to the words that they attend to on the right.

// More lines would turn a long text into a grey field.
const MOST_LINES = 1500;
// Lighter lines are not drawn: they would hardly be visible.
const LEAST_WEIGHT = 0.01;
const LONG_TEXT = 60;

class LineView {
  // onread is called with a sentence for the reader whenever a word is pointed at, or with "".
  constructor(element, onread) {
    Object.assign(this, { element, onread, key: null, looked: null, pinned: null });
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.sides = { from: make("ol", { "aria-label": "from" }), to: make("ol", { "aria-label": "to" }) };
    this.body = make("div", { class: "words" }, this.sides.from, this.canvas, this.sides.to);
    element.append(make("div", { class: "ends", "aria-hidden": "true" },
      make("span", {}, "from (query)"), make("span", {}, "to (key)")), this.body);
    const look = (event) => {
      const word = event.target.closest("[data-side]");
      if (word) this.look(word.dataset.side, Number(word.dataset.index));
    };
    this.body.addEventListener("pointerover", look);
    this.body.addEventListener("focusin", look);
    this.body.addEventListener("pointerleave", () => this.lookAway());
    this.body.addEventListener("focusout", (event) => {
      if (!this.body.contains(event.relatedTarget)) this.lookAway();
    });
    this.body.addEventListener("click", (event) => this.pin(event));
    this.body.addEventListener("keydown", (event) => this.move(event));
    new ResizeObserver(() => {
      if (this.map && this.canvas.clientWidth && this.canvas.clientWidth !== this.width) this.draw();
    }).observe(element);
  }

  // key: words are rebuilt when it changes; otherwise the word pointed at stays.
  show(map, key) {
    this.map = map;
    if (key !== this.key) {
      this.key = key;
      this.looked = this.pinned = null;
      this.rowHeight = map.size > LONG_TEXT ? 18 : 24;
      this.body.style.setProperty("--row", `${this.rowHeight}px`);
      this.items = {};
      for (const [side, list] of Object.entries(this.sides)) {
        this.items[side] = map.groups.map((group, index) => this.makeWord(side, group, index));
        list.replaceChildren(...this.items[side]);
      }
      if (map.size) this.items.from[0].firstChild.tabIndex = 0;
    }
    this.draw();
  }

  makeWord(side, group, index) {
    const classes = ["word", group.special ? "special" : "", group.segment ? "second" : ""];
    return make("li", {}, make("button", {
      type: "button", tabindex: "-1", class: classes.filter(Boolean).join(" "),
      "data-side": side, "data-index": index,
    }, make("span", { class: "label", title: group.label }, group.label),
    make("span", { class: "weight" })));
  }

  weight(side, index, other) {
    const { size, weights } = this.map;
    return side === "from" ? weights[index * size + other] : weights[other * size + index];
  }

  look(side, index) {
    if (this.looked && this.looked.side === side && this.looked.index === index) return;
    this.looked = { side, index };
    this.draw();
  }

  lookAway() {
    this.looked = this.pinned;
    this.draw();
  }

  pin(event) {
    const word = event.target.closest("[data-side]");
    if (!word) return;
    const { side } = word.dataset;
    const index = Number(word.dataset.index);
    const again = this.pinned && this.pinned.side === side && this.pinned.index === index;
    this.pinned = again ? null : { side, index };
    this.looked = { side, index };
    this.draw();
  }

  // Up and down move along the words, left and right to the other side.
  move(event) {
    const word = event.target.closest("[data-side]");
    const step = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: 0, ArrowRight: 0 }[event.key];
    if (event.key === "Escape") {
      this.pinned = null;
      this.lookAway();
    }
    if (!word || step === undefined) return;
    event.preventDefault();
    const side = { ArrowLeft: "from", ArrowRight: "to" }[event.key] || word.dataset.side;
    const index = Math.max(0, Math.min(this.map.size - 1, Number(word.dataset.index) + step));
    const next = this.items[side][index].firstChild;
    word.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  draw() {
    const { map, looked } = this;
    this.least = this.leastDrawn();
    this.markWords();
    const width = this.width = this.canvas.clientWidth;
    const height = map.size * this.rowHeight;
    // A canvas of a long text would be too tall for the browser at full resolution.
    const scale = Math.min(devicePixelRatio || 1, 16000 / Math.max(1, height));
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    context.strokeStyle = getComputedStyle(this.element).getPropertyValue("--accent");
    const middle = (index) => (index + 0.5) * this.rowHeight;
    const line = (from, to, weight) => {
      context.globalAlpha = Math.min(1, 0.08 + 0.92 * weight);
      context.lineWidth = 0.75 + 2.5 * weight;
      context.beginPath();
      context.moveTo(0, middle(from));
      context.bezierCurveTo(width / 2, middle(from), width / 2, middle(to), width, middle(to));
      context.stroke();
    };
    if (looked) {
      for (let other = 0; other < map.size; other++) {
        const weight = this.weight(looked.side, looked.index, other);
        if (weight < 0.0005) continue;
        if (looked.side === "from") line(looked.index, other, weight);
        else line(other, looked.index, weight);
      }
      return;
    }
    map.weights.forEach((weight, place) => {
      if (weight >= this.least) line(Math.floor(place / map.size), place % map.size, weight);
    });
  }

  // The weight below which lines are left out, so that at most about MOST_LINES remain.
  leastDrawn() {
    const counts = new Uint32Array(257);
    this.map.weights.forEach((weight) => counts[Math.round(256 * Math.sqrt(Math.min(1, weight)))]++);
    let total = 0;
    let step = 256;
    while (step > 0 && total + counts[step] <= MOST_LINES) total += counts[step--];
    const least = ((step + 0.5) / 256) ** 2;
    // Even attention in a long text has no heavy lines at all: then the heaviest ones.
    return step === 0 || total ? Math.max(least, Math.min(LEAST_WEIGHT, 1 / this.map.size)) : Infinity;
  }

  markWords() {
    const { map, looked } = this;
    for (const [side, items] of Object.entries(this.items)) {
      items.forEach((item, index) => {
        const button = item.firstChild;
        const own = looked && looked.side === side && looked.index === index;
        const pinned = own && this.pinned;
        button.classList.toggle("looked", Boolean(own));
        if (button.ariaPressed !== String(Boolean(pinned))) button.ariaPressed = Boolean(pinned);
        const other = looked && looked.side !== side;
        const weight = other ? this.weight(looked.side, looked.index, index) : 0;
        const text = other ? showWeight(map, weight) : "";
        if (button.lastChild.textContent !== text) {
          button.lastChild.textContent = text;
          button.style.setProperty("--weight", weight.toFixed(3));
        }
      });
    }
    this.onread(looked && map.size ? this.sentence() : "");
  }

  sentence() {
    const { side, index } = this.looked;
    const { groups, size } = this.map;
    const ranked = Array.from({ length: size }, (_, other) => other)
      .sort((a, b) => this.weight(side, index, b) - this.weight(side, index, a)).slice(0, 3);
    const list = ranked.map((other) =>
      `${groups[other].label} ${showWeight(this.map, this.weight(side, index, other))}`).join(", ");
    const word = groups[index].label;
    return side === "from" ? `From “${word}” mostly to: ${list}.` : `To “${word}” mostly from: ${list}.`;
  }
}
