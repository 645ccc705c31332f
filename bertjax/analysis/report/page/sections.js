// The other sections: lens, curves, matrices, tables.

function card(one, ...children) {
  return make("article", { class: "card", id: `part-${one.name}` }, make("h3", {}, one.title),
    make("p", { class: "meaning" }, one.meaning), ...children);
}

// Rows are layers, columns the predicted tokens; the colour is the true token's probability.
function lensTable(lens, onread) {
  const layers = lens.probability.length;
  const names = lens.probability.map((_, layer) => (layer ? `after layer ${layer - 1}` : "embeddings"));
  const head = make("tr", {}, make("th", { scope: "col" }, "hidden state"),
    ...lens.tokens.map((token) => make("th", { scope: "col" }, token)));
  const table = make("table", { class: "lens" }, make("thead", {}, head));
  const body = make("tbody");
  for (let layer = layers - 1; layer >= 0; layer--) {
    const row = make("tr", {}, make("th", { scope: "row" }, names[layer]));
    lens.tokens.forEach((token, place) => {
      const probability = lens.probability[layer][place];
      const color = colorOf("weights", Math.sqrt(probability));
      const best = lens.topTokens[layer][place].map((name, k) =>
        `${name} ${show(lens.topProbability[layer][place][k])}`).join(", ");
      const text = `${names[layer]}, “${token}”: probability ${show(probability)}, rank ` +
        `${show(lens.rank[layer][place])}; most likely: ${best}.`;
      const cell = make("td", { tabindex: "-1", title: text, "aria-label": text,
        class: lens.rank[layer][place] === 1 ? "right" : "" }, lens.topTokens[layer][place][0]);
      cell.style.background = css(color);
      cell.style.color = inkOn(color);
      cell.addEventListener("pointerenter", () => onread(text));
      cell.addEventListener("focus", () => onread(text));
      row.append(cell);
    });
    body.append(row);
  }
  table.append(body);
  roam(table, [...body.rows].map((row) => [...row.cells].slice(1)));
  return table;
}

// A line chart with the interval as a band; the control dashed; hollow where not distinguishable.
function curveChart(curve) {
  const [width, height, left, right, top, bottom] = [460, 260, 56, 12, 10, 44];
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": curve.title });
  const numbers = curve.series.flatMap(({ figures }) => Object.entries(figures)
    .filter(([name]) => name !== "distinguishable").flatMap(([, list]) => list))
    .filter((value) => value !== null);
  if (!numbers.length) return make("p", {}, "None of its figures is defined.");
  const ticks = niceTicks(Math.min(...numbers), Math.max(...numbers));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const count = curve.points.length;
  const x = (k) => left + (width - left - right) * (count > 1 ? k / (count - 1) : 0.5);
  const y = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low));
  ticks.forEach((tick) => svg.append(
    make("line", { class: "rule", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
    make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, showTick(tick)),
  ));
  const every = Math.ceil(count / 14);
  curve.points.forEach((label, k) => {
    if (k % every) return;
    svg.append(make("text", { x: x(k), y: height - bottom + 16, "text-anchor": "middle" }, label));
  });
  svg.append(
    make("text", { class: "axis", x: (left + width - right) / 2, y: height - 6,
      "text-anchor": "middle" }, curve.xTitle),
    make("text", { class: "axis", "text-anchor": "middle",
      transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)` }, curve.yTitle),
  );
  const path = (values) => values.map((value, k) =>
    value === null ? "" : `${k && values[k - 1] !== null ? "L" : "M"}${x(k)} ${y(value)}`).join("");
  const band = (lows, highs) => {
    const known = lows.map((_, k) => k).filter((k) => lows[k] !== null && highs[k] !== null);
    const there = known.map((k) => `${x(k)} ${y(highs[k])}`);
    const back = known.reverse().map((k) => `${x(k)} ${y(lows[k])}`);
    return there.length ? `M${[...there, ...back].join("L")}Z` : "";
  };
  const legend = make("div", { class: "legend" });
  const dots = curve.series.map(() => []);
  curve.series.forEach(({ name, figures }, number) => {
    const color = CATEGORY_COLORS[number % CATEGORY_COLORS.length];
    const draw = (attributes) => svg.append(make("path", attributes));
    if (figures.control_low) {
      draw({ d: band(figures.control_low, figures.control_high), fill: color, opacity: 0.1 });
    }
    if (figures.low) draw({ d: band(figures.low, figures.high), fill: color, opacity: 0.22 });
    if (figures.control) {
      draw({ d: path(figures.control), class: "control", stroke: color });
    }
    draw({ d: path(figures.value), class: "value", stroke: color });
    figures.value.forEach((value, k) => {
      if (value === null) return;
      const found = figureAt(figures, k);
      const dot = make("circle", { cx: x(k), cy: y(value), r: 4, stroke: color, tabindex: "-1",
        class: found.distinguishable === false ? "hollow" : "",
        fill: found.distinguishable === false ? null : color });
      const text = `${name}, ${curve.xTitle} ${curve.points[k]}: ${describe(found)}`;
      dot.setAttribute("aria-label", text);
      dot.append(make("title", {}, text));
      svg.append(dot);
      dots[number].push(dot);
    });
    const sample = make("span", { class: "sample line", "aria-hidden": "true" });
    sample.style.background = color;
    legend.append(make("span", { class: "scale" }, sample, name));
  });
  roam(svg, dots.filter((line) => line.length));
  const all = curve.series.map(({ figures }) => figures);
  const remarks = [];
  if (all.some((figures) => figures.low)) remarks.push("Bands are 95 % intervals");
  if (all.some((figures) => figures.control)) {
    remarks.push("dashed: a random model; hollow: not distinguishable from it");
  }
  if (remarks.length) legend.append(make("span", {}, `${remarks.join("; ")}.`));
  return make("div", {}, svg, legend);
}

// Round numbers that span low to high.
function niceTicks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, k) => (first + k) * step);
}

const showTick = (value) => Number(value.toPrecision(6)).toLocaleString("en");

function matrixTable(one) {
  const values = one.figures.value.flat().filter((value) => value !== null);
  const low = Math.min(...values);
  const high = Math.max(...values);
  const corner = `${one.rowTitle} ↓  ${one.columnTitle} →`;
  const table = make("table", { class: "pairs" }, make("thead", {}, make("tr", {},
    make("th", { scope: "col", class: "corner" }, corner),
    ...one.columns.map((name) => make("th", { scope: "col" }, name)))));
  const body = make("tbody");
  one.rows.forEach((name, row) => body.append(make("tr", {}, make("th", { scope: "row" }, name),
    ...one.columns.map((other, column) => {
      const found = figureAt(one.figures, row, column);
      const told = found.value !== null && found.distinguishable !== false;
      const cell = make("td", { class: told ? "" : "grey",
        title: `${name}, ${other}: ${describe(found)}` }, show2(found.value));
      if (told) {
        const color = colorOf("figures", high > low ? (found.value - low) / (high - low) : 0.5);
        cell.style.background = css(color);
        cell.style.color = inkOn(color);
      }
      return cell;
    }))));
  table.append(body);
  const legend = make("div", { class: "legend" });
  if (values.length) legend.append(colorBar("figures", low, high, ""));
  if (one.figures.distinguishable?.flat().includes(false)) {
    legend.append(make("span", { class: "scale" }, make("span", { class: "sample grey" }),
      "not distinguishable from a random model"));
  }
  return make("div", {}, make("div", { class: "scroll" }, table), legend);
}

const show2 = (value) => (value === null ? "–" : Math.abs(value) < 100 ? value.toFixed(2) : show(value));

// A table sorted by the column that is pressed; heads link to their view.
function dataTable(one, onhead) {
  const sorted = { column: null, down: true };
  const body = make("tbody");
  const key = (cell) => {
    if (cell === null) return null;
    if (typeof cell !== "object") return cell;
    return "layer" in cell ? 1000 * cell.layer + cell.head : cell.value;
  };
  const fill = (rows) => body.replaceChildren(...rows.map((row) => make("tr", {},
    ...row.map((cell) => dataCell(cell, onhead)))));
  const titles = one.columns.map((title, column) => make("th", { scope: "col" },
    make("button", { type: "button", onclick: () => sort(column) }, title)));
  const sort = (column) => {
    sorted.down = sorted.column === column ? !sorted.down : typeof key(one.rows[0][column]) === "number";
    sorted.column = column;
    titles.forEach((title, k) => {
      if (k === column) title.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else title.removeAttribute("aria-sort");
    });
    const sign = sorted.down ? -1 : 1;
    fill([...one.rows].sort((first, second) => {
      const [a, b] = [key(first[column]), key(second[column])];
      if (a === null || b === null) return (a === null) - (b === null); // missing values stay last
      if (typeof a === "number" && typeof b === "number") return sign * (a - b);
      return sign * String(a).localeCompare(String(b), "en", { numeric: true });
    }));
  };
  fill(one.rows);
  return make("div", { class: "scroll" }, make("table", { class: "data" },
    make("thead", {}, make("tr", {}, ...titles)), body));
}

function dataCell(cell, onhead) {
  if (cell === null) return make("td", {}, "–");
  if (typeof cell === "string") return make("td", {}, cell);
  if (typeof cell === "number") return make("td", { class: "numeric" }, show(cell));
  if ("layer" in cell) {
    return make("td", {}, make("button", { type: "button", class: "link",
      onclick: () => onhead(cell.layer, cell.head) }, `${cell.layer}-${cell.head}`));
  }
  const told = cell.distinguishable !== false;
  const parts = [make("span", {}, show(cell.value))];
  if (cell.low !== undefined && cell.low !== null) {
    parts.push(make("span", { class: "interval" }, ` ${show(cell.low)} to ${show(cell.high)}`));
  }
  if (cell.control !== undefined) {
    parts.push(make("span", { class: "interval control" }, `random model ${show(cell.control)}`));
  }
  return make("td", { class: told ? "numeric" : "numeric grey", title: describe(cell) }, ...parts);
}
