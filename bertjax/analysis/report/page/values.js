// The building blocks of the page: the data, elements, numbers as text, colours.

const data = JSON.parse(document.getElementById("report-data").textContent);

// Okabe & Ito: distinguishable for colour-blind readers, in the same order as in the pictures.
const CATEGORY_COLORS = [
  "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F", "#F0E442",
];

const byId = (id) => document.getElementById(id);

// make("p", {class: "note"}, "text", child): an element; true and false set and omit attributes.
function make(tag, attributes = {}, ...children) {
  const space = ["svg", "path", "line", "circle", "text", "g", "title"].includes(tag);
  const element = space
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A number for the reader: three significant digits, never "0" for what is not 0.
function show(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  return size < 0.0005 ? value.toExponential(0) : value.toFixed(3);
}

// The entry of nested lists at [i] or [i, j]; undefined where there is no list.
const entry = (lists, index) =>
  index.reduce((list, place) => (list === undefined ? undefined : list[place]), lists);

// Makes rows of elements a single stop of the Tab key: the arrow keys move between them.
function roam(element, rows) {
  if (rows.length) rows[0][0].setAttribute("tabindex", "0");
  element.addEventListener("keydown", (event) => {
    const step = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    }[event.key];
    const row = rows.findIndex((own) => own.includes(event.target));
    if (!step || row < 0) return;
    event.preventDefault();
    const own = rows[Math.max(0, Math.min(rows.length - 1, row + step[0]))];
    const place = rows[row].indexOf(event.target) + step[1];
    event.target.setAttribute("tabindex", "-1");
    const next = own[Math.max(0, Math.min(own.length - 1, place))];
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}

// A figure with its interval and control, from figures as lists.
function figureAt(figures, ...index) {
  const at = (name) => entry(figures[name], index);
  return {
    value: at("value"), low: at("low"), high: at("high"), control: at("control"),
    control_low: at("control_low"), control_high: at("control_high"),
    distinguishable: figures.distinguishable === undefined ? undefined : at("distinguishable"),
  };
}

// "0.412 [0.40, 0.43]; random model 0.120 [0.11, 0.13]" in words.
function describe(figure, unit = "") {
  const range = (low, high) =>
    low === undefined || low === null ? "" : ` (95 % interval ${show(low)} to ${show(high)})`;
  let text = `${show(figure.value)}${unit ? ` ${unit}` : ""}${range(figure.low, figure.high)}`;
  if (figure.control !== undefined) {
    const control = range(figure.control_low, figure.control_high);
    text += `; random model ${show(figure.control)}${control}`;
    if (figure.distinguishable === false) text += "; not distinguishable from it";
  }
  return text;
}

// Whether the page is dark, kept for the many thousand colours of a drawing.
let dark = false;
function lookAtTheme() {
  const chosen = document.documentElement.dataset.theme;
  dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const parse = (color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
const PALETTES = Object.fromEntries(
  Object.entries(data.palettes).map(([name, steps]) => [name, steps.map(parse)]),
);

// [red, green, blue] of a share of the way from little to much; little is near the page's colour.
// kind: "figures", or "weights" of attention and probabilities.
function colorOf(kind, share) {
  const steps = PALETTES[kind === "figures" ? "viridis" : dark ? "cividis" : "Blues"];
  const turned = kind === "figures" && !dark ? 1 - share : share;
  const place = Math.max(0, Math.min(1, turned)) * (steps.length - 1);
  const low = Math.min(Math.floor(place), steps.length - 2);
  return steps[low].map((part, k) => Math.round(part + (steps[low + 1][k] - part) * (place - low)));
}

const css = (color) => `rgb(${color.join(" ")})`;

// Black or white, whichever is readable on the colour.
const inkOn = ([red, green, blue]) =>
  0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#111" : "#fff";

// A bar from little to much, with what its ends mean.
function colorBar(kind, low, high, label) {
  const steps = Array.from({ length: 9 }, (_, k) => css(colorOf(kind, k / 8)));
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${steps.join(", ")})`;
  return make("span", { class: "scale" }, make("span", {}, show(low)), bar,
    make("span", {}, show(high)), make("span", { class: "unit" }, label));
}

// A titled choice; values are what `onchoose` is called with.
function chooser(title, options, chosen, onchoose) {
  const select = make("select", { "aria-label": title });
  options.forEach(([value, text]) => select.append(make("option", { value }, text)));
  select.value = chosen;
  select.addEventListener("change", () => onchoose(select.value));
  return make("label", {}, make("span", {}, title), select);
}

// A row of buttons, one of which is pressed.
function switcher(title, options, chosen, onchoose) {
  const group = make("span", { class: "switch", role: "group", "aria-label": title });
  options.forEach(([value, text]) => {
    const button = make("button", { type: "button", "data-value": value,
      "aria-pressed": String(value === chosen) }, text);
    button.addEventListener("click", () => {
      group.querySelectorAll("button").forEach((other) =>
        other.setAttribute("aria-pressed", String(other === button)));
      onchoose(value);
    });
    group.append(button);
  });
  return make("span", { class: "labelled" }, make("span", {}, title), group);
}
