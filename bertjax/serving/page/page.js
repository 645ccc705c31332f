// The page: which model and which form are chosen, what was asked, and what is shown of it.

let models = [];
const chosen = { model: 0, form: 0, method: "integrated-gradients" };
// What was typed, by field, so that another model or task finds it again.
const typed = {};
// What was asked last: its texts are those that are explained.
let asked = null;
let running = null;

const model = () => models[chosen.model];
const form = () => FORMS[model().forms[chosen.form]];
const listed = (parts) => [parts].flat(Infinity);

function drawAll() {
  lookAtTheme();
  if (grid) {
    drawGrid();
    drawHead();
  }
}

function hide(...ids) {
  ids.forEach((id) => { byId(id).hidden = true; });
}

function complain(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    byId("key-meaning").classList.toggle("problem", Boolean(apiKey));
    if (apiKey) byId("key-meaning").textContent = "The server does not know this key. Try another one.";
    apiKey = "";
    byId("key").hidden = false;
    byId("key-input").value = "";
    byId("key-input").focus();
    return;
  }
  if (!(error instanceof Refused)) throw error;
  byId("problem").textContent = error.message;
  byId("problem").hidden = false;
  byId("problem").scrollIntoView({ block: "nearest" });
}

// Runs work that asks the server; what was asked before and is not answered is given up.
async function run(what, work) {
  if (running) running.abort();
  const own = running = new AbortController();
  hide("problem");
  byId("status").textContent = what;
  document.body.setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    await work(own.signal);
    if (own === running) byId("status").textContent =
      `Answered in ${Math.round(performance.now() - began).toLocaleString("en")} ms.`;
  } catch (error) {
    if (own === running) byId("status").textContent = "";
    complain(error);
  } finally {
    if (own === running) {
      running = null;
      document.body.removeAttribute("aria-busy");
    }
  }
}

function drawForm() {
  const own = form();
  byId("ask-title").textContent = own.name;
  byId("task-meaning").textContent = own.meaning();
  const { architecture, engine, dtype } = model();
  byId("runs").textContent = `${architecture}, run by ${engine} in ${dtype}.`;
  byId("send").textContent = own.send;
  byId("fields").replaceChildren(...own.fields.map((field) => makeField(field, typed[field[0]])));
  const first = byId("fields").querySelector("textarea");
  first.required = true;
}

function drawChoices() {
  const parts = [];
  if (models.length > 1) {
    parts.push(chooser("Model", models.map((one, k) => [k, one.name]), chosen.model, (value) => {
      Object.assign(chosen, { model: Number(value), form: 0 });
      startAnew();
    }));
  }
  if (model().forms.length > 1) {
    parts.push(chooser("Task", model().forms.map((name, k) => [k, FORMS[name].name]), chosen.form,
      (value) => {
        chosen.form = Number(value);
        startAnew();
      }));
  }
  byId("choices").replaceChildren(...parts);
}

function startAnew() {
  if (running) running.abort();
  readFields();
  asked = grid = null;
  hide("answer", "explanation", "heads", "problem");
  byId("status").textContent = "";
  drawChoices();
  drawForm();
}

function readFields() {
  const values = {};
  byId("fields").querySelectorAll("textarea").forEach((area) => {
    values[area.name] = typed[area.name] = area.value;
  });
  return values;
}

async function send(event) {
  event.preventDefault();
  const own = form();
  const values = readFields();
  const [route, body] = own.call(values, model().name);
  await run("Asking the model …", async (signal) => {
    const found = await ask(route, body, signal);
    asked = { form: own, values, model: model() };
    grid = null;
    hide("explanation", "heads");
    byId("answer-body").replaceChildren(...listed(own.show(found, values)));
    drawAnswerControls();
    byId("answer").hidden = false;
  });
}

function drawAnswerControls() {
  const parts = [];
  if (asked.model.explains && byId("answer-body").querySelector(".explain")) {
    parts.push(chooser("Explain by", Object.entries(METHOD_NAMES), chosen.method,
      (value) => { chosen.method = value; }));
  }
  if (asked.model.attention) {
    const button = make("button", { type: "button" }, "Show attention");
    button.addEventListener("click", showAttention);
    parts.push(button);
  }
  byId("answer-controls").replaceChildren(...parts);
}

// A button that explains an answer; nothing but its text where the server explains nothing.
function explainButton(label, what, kind = "explain", ...content) {
  if (!model().explains || form() !== FORMS[model().explained]) {
    return kind === "explain" ? "" : make("mark", {}, ...content);
  }
  const button = make("button", { type: "button", class: `explain ${kind}`,
    "aria-label": `Explain ${label}` }, ...(content.length ? content : ["Explain"]));
  button.addEventListener("click", () => explain(what));
  return button;
}

function explain({ answer, start, choice, mask }) {
  const { form: own, values, model: its } = asked;
  const inputs = own.texts(values, choice);
  const call = { model: its.name, inputs, methods: [chosen.method] };
  if (answer !== undefined) call.answer = answer;
  if (start !== undefined) call.start = start;
  return run("Explaining …", async (signal) => {
    const found = await ask("explain", call, signal);
    // A word that is named is explained at every mask, and one of them was asked about.
    if (found.explanations[mask]) found.explanations = [found.explanations[mask]];
    showExplanation(found, [inputs].flat());
    byId("explanation").hidden = false;
    byId("explanation").scrollIntoView({ block: "nearest" });
  });
}

function showAttention() {
  const { form: own, values, model: its } = asked;
  const call = { model: its.name, inputs: own.texts(values), units: "tokens", encoding: "base64" };
  return run("Computing the attention of all heads …", async (signal) => {
    const found = await ask("attention", call, signal);
    data.shape = [found.layers.length, found.heads.length];
    data.sentences = [{
      tokens: found.tokens, words: found.words.map((one) => one.word), wordIds: found.word_ids,
      special: found.word_ids.map((word) => (found.words[word].special ? 1 : 0)),
      segments: found.word_ids.map((word) => found.words[word].text), maps: found.attention,
    }];
    decoded.clear();
    byId("heads").replaceChildren(byId("heads-parts").content.cloneNode(true));
    byId("heads").hidden = false;
    setUpHeads();
    drawAll();
    byId("heads-title").scrollIntoView({ block: "start" });
  });
}

async function begin() {
  await run("Asking what is served …", async (signal) => {
    models = (await ask("page/models", undefined, signal)).filter((one) => one.forms.length);
    hide("key");
    byId("ask").hidden = false;
    startAnew();
    byId("fields").querySelector("textarea").focus();
  });
  if (models.length) byId("status").textContent = "";
  document.documentElement.dataset.ready = "true";
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = byId("key-input").value.trim();
  byId("key-input").value = "";
  begin();
});
byId("form").addEventListener("submit", send);
byId("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
setUpTheme();
lookAtTheme();
begin();
