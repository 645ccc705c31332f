// A form for each output of a model: its fields, the call that they make, and how to show the answer.

// field(id, title, kind, value): kind "line", or a number of lines.
const FORMS = {
  class: {
    name: "Classes", send: "Classify",
    meaning: () => "The classes of a text, or of a pair of texts, with their scores.",
    fields: [["text", "Text", 3], ["second", "Second text, if the model takes pairs", 1]],
    texts: (values) => (values.second ? [values.text, values.second] : values.text),
    call: (values, model) => ["predict", { model, inputs: [[values.text, values.second].filter(Boolean)] }],
    show: ([ranked]) => scoreTable("class", ranked.map(({ label, score }) => ({
      label, score, explain: { answer: label },
    }))),
  },
  tag: {
    name: "Tags", send: "Tag",
    meaning: () => "Entities, or other tags of words. Choose one to see what speaks for the tag of" +
      " its first word.",
    fields: [["text", "Text", 4]],
    texts: (values) => values.text,
    call: (values, model) => ["tags", { model, inputs: values.text }],
    show: (entities, values) => entityText(values.text, entities),
  },
  span: {
    name: "Answers", send: "Answer",
    meaning: () => "The parts of a text that answer a question.",
    fields: [["question", "Question", 1], ["context", "Text that has the answer", 6]],
    texts: (values) => [values.question, values.context],
    call: (values, model) => ["answer", { model, ...values, top_k: 3 }],
    show: (answers, values) => [markedText(values.context, answers[0]),
      scoreTable("answer", answers.map(({ answer, score }) => ({
        label: answer || "(no answer in this text)", score, explain: answer ? { answer } : null,
      })))],
  },
  token: {
    name: "Masked words", send: "Fill",
    meaning: () => "The likeliest words in the place of every mask.",
    fields: [["text", "Text with the model's mask, [MASK] or <mask>", 3]],
    texts: (values) => values.text,
    call: (values, model) => ["fill-mask", { model, inputs: values.text, top_k: 5 }],
    show: (found) => (Array.isArray(found[0]) ? found : [found]).map((words, number, all) =>
      scoreTable(all.length > 1 ? `word for mask ${number + 1}` : "word",
        words.map(({ word: label, score }) => ({
          label, score, explain: { answer: label, mask: number },
        })))),
  },
  "next-sentence": {
    name: "Next sentence", send: "Judge",
    meaning: () => "Whether the second text follows the first.",
    fields: [["text", "First text", 2], ["second", "Second text", 2]],
    texts: (values) => [values.text, values.second],
    call: (values, model) => ["next-sentence", { model, inputs: [values.text, values.second] }],
    show: ({ probability }) => scoreTable("answer", [
      { label: "is next", score: probability, explain: { answer: "is next" } },
      { label: "is random", score: 1 - probability, explain: { answer: "is random" } },
    ]),
  },
  choice: {
    name: "Choices", send: "Choose",
    meaning: () => "The best of several continuations or answers.",
    fields: [["context", "Context", 3], ["choices", "Choices, one a line", 4]],
    texts: (values, chosen = 0) => [values.context, lines_of(values.choices)[chosen]],
    call: (values, model) => ["multiple-choice",
      { model, context: values.context, choices: lines_of(values.choices) }],
    show: ({ probabilities }, values) => scoreTable("choice", probabilities.map((score, number) => ({
      label: lines_of(values.choices)[number], score, explain: { choice: number },
    }))),
  },
  vector: {
    name: "Similarity", send: "Compare",
    meaning: () => "How near the vectors of texts are to that of the first text: their cosine.",
    fields: [["text", "Text", 2], ["others", "Texts to compare it with, one a line", 4]],
    texts: (values) => values.text,
    call: (values, model) => ["similarity",
      { model, inputs: { source_sentence: values.text, sentences: lines_of(values.others) } }],
    show: (scores, values) => scoreTable("text", lines_of(values.others)
      .map((label, number) => ({ label, score: scores[number] }))
      .sort((a, b) => b.score - a.score)),
  },
};

const lines_of = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

function makeField([id, title, rows], value) {
  const area = make("textarea", { id: `field-${id}`, name: id, rows, spellcheck: "false" });
  area.value = value || "";
  return make("label", { class: "field" }, make("span", {}, title), area);
}

// Rows of a table that are seen at once; of more, the best ones.
const MOST_ROWS = 20;

// A row for each answer, with a bar; a button explains those that can be explained.
function scoreTable(title, rows) {
  const head = (text, kind) => make("th", { scope: "col", class: kind }, text);
  const most = Math.max(...rows.map((row) => Math.abs(row.score)), 1e-9);
  const makeRow = (row) => {
    const bar = make("span", { class: "share", "aria-hidden": "true" });
    bar.style.width = `${100 * Math.max(0, row.score) / Math.max(1, most)}%`;
    return make("tr", {}, make("th", { scope: "row" }, row.label),
      make("td", { class: "numeric" }, showScore(row.score)), make("td", {}, bar),
      make("td", { class: "act" }, row.explain ? explainButton(row.label, row.explain) : ""));
  };
  const body = make("tbody", {});
  const table = make("table", { class: "scores" },
    make("thead", {}, make("tr", {}, head(title, ""), head("score", "numeric"), head("", ""),
      head("", "act"))), body);
  if (rows.length <= MOST_ROWS) {
    body.append(...rows.map(makeRow));
    return table;
  }
  const ranked = [...rows].sort((a, b) => b.score - a.score);
  body.append(...ranked.slice(0, MOST_ROWS).map(makeRow));
  const more = make("button", { type: "button" }, `Show all ${rows.length.toLocaleString("en")}`);
  more.addEventListener("click", () => {
    const rest = ranked.slice(MOST_ROWS).map(makeRow);
    body.append(...rest);
    more.remove();
    rest[0].tabIndex = -1; // so that the keyboard goes on where the button was
    rest[0].focus();
  });
  return make("div", {}, table, make("div", { class: "controls" }, more));
}

const showScore = (score) => (Math.abs(score) < 1e-9 ? "0.000" : show(score));

// Parts of a text by the numbers of its characters, as the server counts them: an emoji is one.
function cutter(text) {
  const letters = Array.from(text);
  return (start, end) => letters.slice(start, end).join("");
}

// The text with each entity as a button that explains its tag.
function entityText(text, entities) {
  const cut = cutter(text);
  const parts = [];
  let place = 0;
  for (const entity of entities) {
    const { start, end } = entity;
    if (start < place) continue;
    parts.push(cut(place, start));
    const tag = entity.entity_group || entity.entity;
    parts.push(explainButton(`${cut(start, end)}, ${tag}`, { start }, "entity",
      cut(start, end), make("small", {}, `${tag} ${showScore(entity.score)}`)));
    place = end;
  }
  const shown = make("p", { class: "text" }, ...parts, cut(place));
  return entities.length ? shown
    : [shown, make("p", { class: "meaning" }, "No entity was found in this text.")];
}

function markedText(text, answer) {
  if (!answer || !answer.answer) return make("p", { class: "text" }, text);
  const cut = cutter(text);
  return make("p", { class: "text" }, cut(0, answer.start),
    make("mark", {}, cut(answer.start, answer.end)), cut(answer.end));
}
