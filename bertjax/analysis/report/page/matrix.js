// One head as a matrix: a row for each word that attends, a column for each word attended to.

// Narrower cells have no room for their word; positions are shown instead.
const LEAST_CELL_WITH_LABEL = 9;
const MOST_CELL = 26;
// Smaller dots are hardly visible: then several words share a dot.
const LEAST_DOT = 2;

class MatrixView {
  constructor(element, onread) {
    Object.assign(this, { element, onread, place: null });
    this.canvas = make("canvas", { tabindex: "0", role: "img" });
    this.cursor = make("div", { class: "cursor", hidden: true });
    this.legend = make("div", { class: "legend" });
    this.frame = make("div", { class: "frame" }, this.canvas, this.cursor);
    element.append(this.frame, this.legend);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.look(null));
    this.canvas.addEventListener("keydown", (event) => this.move(event));
    this.canvas.addEventListener("blur", () => this.look(null));
    new ResizeObserver(() => {
      if (this.map && element.clientWidth && element.clientWidth !== this.width) this.draw();
    }).observe(element);
  }

  show(map, name) {
    this.map = map;
    this.canvas.setAttribute("aria-label",
      `Attention matrix of ${name}; the arrow keys move from cell to cell and read its weight`);
    this.draw();
    this.look(null);
  }

  draw() {
    const { map } = this;
    const width = this.width = this.element.clientWidth;
    if (!width || !map.size) return;
    const context = this.canvas.getContext("2d");
    const styles = getComputedStyle(this.element);
    const family = styles.fontFamily;
    context.font = `12px ${family}`;
    const widest = Math.max(...map.groups.map((group) => context.measureText(group.label).width));
    const margin = Math.min(widest, 84) + 26; // a label, and the title of the axis
    const labelled = Math.min(MOST_CELL, (width - margin) / map.size) >= LEAST_CELL_WITH_LABEL;
    const left = labelled ? margin : 54;
    const cell = Math.min(MOST_CELL, (width - left - 2) / map.size);
    const side = cell * map.size;
    Object.assign(this, { cell, left });
    const scale = devicePixelRatio || 1;
    const size = left + side + 2;
    this.canvas.width = this.canvas.height = Math.round(size * scale);
    this.canvas.style.width = this.canvas.style.height = `${size}px`;
    context.scale(scale, scale);
    context.imageSmoothingEnabled = false;
    const shared = Math.ceil(LEAST_DOT / cell);
    const dots = Math.ceil(map.size / shared);
    context.save();
    context.rect(left, left, side, side);
    context.clip();
    context.drawImage(this.picture(shared, dots), left, left, dots * shared * cell, dots * shared * cell);
    context.restore();
    context.strokeStyle = styles.getPropertyValue("--line");
    context.strokeRect(left - 0.5, left - 0.5, side + 1, side + 1);
    context.fillStyle = styles.color;
    context.textBaseline = "middle";
    const fontSize = labelled ? Math.min(12, Math.max(8, cell)) : 10;
    const write = (text, place) => {
      context.font = `${fontSize}px ${family}`;
      context.textAlign = "right";
      context.fillText(text, left - 5, left + place);
      context.save();
      context.translate(left + place, left - 5);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(text, 0, 0);
      context.restore();
    };
    if (labelled) {
      map.groups.forEach((group, k) => write(this.fit(context, group.label, 84), (k + 0.5) * cell));
    } else {
      const step = map.size > 200 ? 100 : 20;
      for (let k = 0; k < map.size; k += step) write(String(k + 1), (k + 0.5) * cell);
    }
    context.font = `12px ${family}`;
    context.fillStyle = styles.getPropertyValue("--muted");
    context.textAlign = "left";
    context.fillText("to (key) →", left, 8);
    context.save();
    context.translate(8, left);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.fillText("← from (query)", 0, 0);
    context.restore();
    this.legend.replaceChildren(colorBar("weights", 0, this.most, "weight, on a square-root scale"),
      shared > 1 ? `A dot is the heaviest of ${shared} x ${shared} weights.` : "");
  }

  // This many dots per side, each the heaviest of shared x shared weights.
  picture(shared, dots) {
    const { size, weights } = this.map;
    const heaviest = new Float32Array(dots * dots);
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const dot = Math.floor(row / shared) * dots + Math.floor(column / shared);
        heaviest[dot] = Math.max(heaviest[dot], weights[row * size + column]);
      }
    }
    this.most = weights.reduce((most, weight) => Math.max(most, weight), 1e-6);
    const colors = Array.from({ length: 256 }, (_, step) => colorOf("weights", step / 255));
    const canvas = make("canvas", { width: dots, height: dots });
    const context = canvas.getContext("2d");
    const picture = context.createImageData(dots, dots);
    heaviest.forEach((weight, dot) => {
      picture.data.set(colors[Math.round(255 * Math.sqrt(weight / this.most))], 4 * dot);
      picture.data[4 * dot + 3] = 255;
    });
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  fit(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    let end = text.length;
    while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > room) end--;
    return `${text.slice(0, end)}…`;
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = (position) => Math.floor((position - this.left) / this.cell);
    const row = at(event.clientY - box.top);
    const column = at(event.clientX - box.left);
    const inside = [row, column].every((place) => place >= 0 && place < this.map.size);
    this.look(inside ? { row, column } : null);
  }

  move(event) {
    const step = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    }[event.key];
    if (!step) return;
    event.preventDefault();
    const { row, column } = this.place || { row: -step[0], column: -step[1] };
    const clip = (value) => Math.max(0, Math.min(this.map.size - 1, value));
    this.look({ row: clip(row + step[0]), column: clip(column + step[1]) });
  }

  look(place) {
    this.place = place;
    this.cursor.hidden = !place;
    if (!place) {
      this.onread("");
      return;
    }
    const { groups, size, weights } = this.map;
    const side = Math.max(this.cell, 7);
    const start = (index) => this.left + (index + 0.5) * this.cell - side / 2;
    this.cursor.style.cssText = `width:${side}px;height:${side}px;` +
      `left:${start(place.column)}px;top:${start(place.row)}px`;
    const weight = weights[place.row * size + place.column];
    this.onread(`From “${groups[place.row].label}” (${place.row + 1}) to ` +
      `“${groups[place.column].label}” (${place.column + 1}): ${showWeight(this.map, weight)}`);
  }
}
