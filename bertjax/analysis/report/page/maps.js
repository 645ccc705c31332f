// Attention maps from the data: bytes -> weights of one head, as words or tokens, special or not.

// A byte q encodes the weight (q / 255)^2; see quantize in maps.py.
const WEIGHTS = Float32Array.from({ length: 256 }, (_, step) => (step / 255) ** 2);

function decode(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let k = 0; k < letters.length; k++) bytes[k] = letters.charCodeAt(k);
  return bytes;
}

// The bytes of one layer, decoded once.
const decoded = new Map();
function layerOf(sentence, layer) {
  const key = `${sentence}/${layer}`;
  if (!decoded.has(key)) {
    const maps = data.sentences[sentence].maps;
    let columns = null;
    if (maps.edges) {
      const bytes = decode(maps.columns[layer]);
      if (maps.columnBytes === 1) columns = bytes;
      else {
        columns = new Uint16Array(bytes.length / 2);
        for (let k = 0; k < columns.length; k++) columns[k] = bytes[2 * k] | (bytes[2 * k + 1] << 8);
      }
    }
    decoded.set(key, { steps: decode(maps.weights[layer]), columns });
  }
  return decoded.get(key);
}

// Calls with (row, column, step) for every stored edge of a head.
function eachEdge(sentence, layer, head, call) {
  const { tokens, maps } = data.sentences[sentence];
  const { steps, columns } = layerOf(sentence, layer);
  const length = tokens.length;
  const width = maps.edges || length;
  let place = head * length * width;
  for (let row = 0; row < length; row++) {
    for (let k = 0; k < width; k++, place++) {
      if (steps[place]) call(row, columns ? columns[place] : k, steps[place]);
    }
  }
}

// What is shown of a sentence: words or tokens, with or without special ones, as groups of tokens.
function labelsOf(sentence, options) {
  const text = data.sentences[sentence];
  const groups = [];
  text.tokens.forEach((token, position) => {
    const word = text.wordIds[position];
    const last = groups[groups.length - 1];
    if (options.unit === "words" && last && last.word === word) last.tokens.push(position);
    else {
      groups.push({
        word, tokens: [position], special: Boolean(text.special[position]),
        segment: text.segments[position],
        label: options.unit === "words" ? text.words[word] : token,
      });
    }
  });
  return options.special === "show" ? groups : groups.filter((group) => !group.special);
}

// The map of one head: {size, groups, weights} with weights[row * size + column]. Attention to a
// word is the sum over its tokens; attention from a word is the mean over its tokens.
function mapOf(sentence, layer, head, options) {
  const groups = labelsOf(sentence, options);
  const size = groups.length;
  const groupOf = new Int32Array(data.sentences[sentence].tokens.length).fill(-1);
  groups.forEach((group, number) => group.tokens.forEach((token) => (groupOf[token] = number)));
  const weights = new Float32Array(size * size);
  eachEdge(sentence, layer, head, (row, column, step) => {
    const from = groupOf[row];
    const to = groupOf[column];
    if (from < 0 || to < 0) return;
    weights[from * size + to] += WEIGHTS[step] / groups[from].tokens.length;
  });
  if (options.special === "renormalise") {
    for (let row = 0; row < size; row++) {
      const own = weights.subarray(row * size, (row + 1) * size);
      const total = own.reduce((sum, weight) => sum + weight, 0);
      if (total > 0) own.forEach((weight, k) => (own[k] = weight / total));
    }
  }
  return { size, groups, weights, partial: Boolean(data.sentences[sentence].maps.edges) };
}

// A weight as text; what a long text does not keep is not 0.
const showWeight = (map, weight) => (map.partial && weight === 0 ? "–" : weight.toFixed(3));

// A small picture of a head: the heaviest edge that falls on each dot. Tokens, not words: all heads
// are drawn at once. Colours are scaled to the head's own heaviest edge.
function thumbnail(canvas, sentence, layer, head, options, dots) {
  const shown = options.special === "show"
    ? null : data.sentences[sentence].special;
  const length = data.sentences[sentence].tokens.length;
  const place = new Int32Array(length).fill(-1);
  let count = 0;
  for (let k = 0; k < length; k++) if (!shown || !shown[k]) place[k] = count++;
  const size = Math.max(1, Math.min(dots, count));
  const scale = size / Math.max(1, count);
  const heaviest = new Uint8Array(size * size);
  let most = 1;
  eachEdge(sentence, layer, head, (row, column, step) => {
    if (place[row] < 0 || place[column] < 0) return;
    const dot = Math.floor(place[row] * scale) * size + Math.floor(place[column] * scale);
    if (step > heaviest[dot]) heaviest[dot] = step;
    if (step > most) most = step;
  });
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(size, size);
  const colors = Array.from({ length: most + 1 }, (_, step) => colorOf("weights", step / most));
  const words = new Uint32Array(picture.data.buffer); // a dot is one little-endian word
  const packed = colors.map(([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red);
  heaviest.forEach((step, dot) => (words[dot] = packed[step]));
  context.putImageData(picture, 0, 0);
}

// What a reader must know about the numbers of this map.
function explainMap(sentence, layer, head, options) {
  const { maps, tokens } = data.sentences[sentence];
  const parts = [];
  if (maps.edges) {
    const all = maps.kept.flat();
    const mean = all.reduce((sum, share) => sum + share, 0) / all.length;
    parts.push(
      `Of each of the ${tokens.length} tokens the ${maps.edges} heaviest edges are kept: they hold ` +
      `${show(100 * maps.kept[layer][head])} % of this head's attention and ` +
      `${show(100 * mean)} % of all heads'. The others are not drawn; a dash stands for their weights.`,
    );
  }
  if (options.special === "renormalise") {
    parts.push("Special tokens are left out, and each row is scaled to sum to 1 again" +
      (maps.edges ? " over the edges that are kept." : "."));
  } else if (options.special === "hide") {
    parts.push("Special tokens are hidden; the other weights are unchanged, so that rows sum " +
      "to less than 1.");
  }
  if (options.unit === "words") {
    parts.push("To a word: the sum over its tokens; from a word: the mean over its tokens.");
  }
  parts.push("Weights are stored in 256 steps, off by 0.004 at most" +
    (options.special === "renormalise" ? " before they are scaled." : "."));
  return parts.join(" ");
}
