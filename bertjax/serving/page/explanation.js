// Words coloured by what each adds to an answer.

const METHOD_NAMES = {
  "integrated-gradients": "integrated gradients", "gradient-x-input": "gradient x input",
  rollout: "attention rollout", flow: "attention flow", relevance: "relevance",
};

// The texts as they were sent, every word coloured; read is called with a sentence for the reader.
function weighedTexts(texts, words, scores, read) {
  const largest = Math.max(...scores.map(Math.abs), 1e-12);
  return texts.map((text, number) => {
    const cut = cutter(text);
    const parts = [];
    let place = 0;
    words.forEach((word, index) => {
      if (word.text !== number) return;
      if (!word.special) {
        parts.push(cut(place, word.start));
        place = word.end;
      }
      parts.push(weighedWord(word.special ? word.word : cut(word.start, word.end),
        word.special, scores[index], largest, read));
    });
    return make("p", { class: "text" }, ...parts, cut(place));
  });
}

function weighedWord(label, special, score, largest, read) {
  const said = `${label}: ${score > 0 ? "+" : ""}${show(score)}`;
  const kind = score > 0 ? "for" : "against";
  const element = make("span", { class: `weighed ${kind}${special ? " special" : ""}`,
    title: said, tabindex: "-1" }, label);
  element.style.setProperty("--share", (Math.abs(score) / largest).toFixed(3));
  element.addEventListener("pointerover", () => read(said));
  element.addEventListener("focus", () => read(said));
  return element;
}

function showExplanation(found, texts) {
  const blocks = found.explanations.map((one) => explainedAnswer(one, found.words, texts));
  if (found.left_out) {
    blocks.push(make("p", { class: "meaning" }, `${found.left_out} more answers to this text are not` +
      " explained; choose one of them."));
  }
  byId("explanation-body").replaceChildren(...blocks);
}

function explainedAnswer(one, words, texts) {
  const parts = Object.entries(one.scores).flatMap(([method, scores]) => {
    const invitation = "Point at a word, or go there with the arrow keys, to read what it adds.";
    const reading = make("p", { class: "reading", "aria-live": "polite" }, invitation);
    const read = (text) => { reading.textContent = text || invitation; };
    const shown = weighedTexts(texts, words, scores, read);
    const block = make("div", {}, ...shown);
    roam(block, shown.map((text) => [...text.querySelectorAll(".weighed")]));
    block.addEventListener("pointerleave", () => read(""));
    return [make("p", { class: "meaning" }, describeMethod(method, one)), block, reading];
  });
  const place = one.place ? `${one.place} = ` : "";
  const value = one.probability === null ? `value ${show(one.value)}`
    : `probability ${show(one.probability)}, logit ${show(one.value)}`;
  const legend = make("div", { class: "legend" }, sample("for", "speaks for the answer"),
    sample("against", "speaks against it"));
  return make("div", { class: "explained" },
    make("h3", {}, `${place}${one.answer || "the answer"} `, make("span", { class: "interval" }, value)),
    ...parts, legend);
}

function describeMethod(method, one) {
  const gap = one.gaps[method];
  const meaning = {
    "integrated-gradients": "What each word adds to the logit, held against the same text of nothing" +
      ` but masks; the words' numbers sum to the difference, off by ${show(Math.abs(gap || 0))}.`,
    "gradient-x-input": "How the logit would change with the length of each word's vector.",
    rollout: "How much of each word attention brings to where the answer is read; the same for" +
      " every answer.",
    flow: "How much of each word could flow through attention to where the answer is read; the same" +
      " for every answer.",
    relevance: "Attention weighed by what it does for this answer, through all layers.",
  }[method];
  return `${METHOD_NAMES[method]}: ${meaning}`;
}

const sample = (kind, text) => make("span", { class: "scale" },
  make("span", { class: `sample ${kind}`, "aria-hidden": "true" }), text);
