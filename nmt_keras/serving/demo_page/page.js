"use strict";
// Every text is put into the page as text: by textContent and values of fields, never as HTML.

const DELAY = 250; // milliseconds without a key before text is translated
const DWELL = 300; // milliseconds on a word until its sentence is chosen
const KNOWN = 2000; // translations that are kept
const OTHERS = 5; // translations of the chosen sentence

const $ = (id) => document.getElementById(id);
const state = { models: [], limits: null, chosen: null, mistakes: new Map() }; // mistakes of glossaries

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

async function ask(path, request, signal) {
  let reply;
  try {
    reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The demo does not answer: is pipelines.demo still running?");
  }
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

// A model and what it has said: lines of text to their translations, and beginnings that a person has chosen.
class Model {
  constructor(number, card) {
    this.number = number;
    this.card = card;
    this.known = new Map(); // of keys
    this.prefixes = new Map(); // of lines
    this.shown = []; // lines
    this.root = $("model-template").content.firstElementChild.cloneNode(true);
    this.root.querySelector("h2").textContent = card.name;
    this.select = this.root.querySelector("select");
    for (const code of card.target_languages) this.select.append(element("option", code));
    this.root.querySelector(".language").hidden = card.target_languages.length < 2;
    this.select.addEventListener("change", () => {
      this.prefixes.clear();
      update();
    });
    this.list = this.root.querySelector("ol");
    this.root.querySelector(".copy").addEventListener("click", () => this.copy());
  }

  // The code of the language that it translates into, "" where nobody said.
  language() {
    return this.select.value || this.card.language_pair[1];
  }

  key(line) {
    return JSON.stringify([line, this.select.value, this.prefixes.get(line) ?? "", this.glossary()]);
  }

  glossary() {
    return this.card.takes_terms ? $("glossary").value : "";
  }

  // How many terms are in the text, and how many of them in the translations.
  placed() {
    const terms = this.shown.flatMap((line) => this.found(line)?.hypotheses[0].terms ?? []);
    return [terms.length, terms.filter((term) => term.is_placed).length];
  }

  found(line) {
    return line.trim() ? this.known.get(this.key(line)) : null;
  }

  async copy() {
    const text = this.shown.map((line) => this.found(line)?.hypotheses[0].text ?? "").join("\n");
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("The browser does not let this page copy; select the text instead");
    }
  }

  fail(message) {
    const error = this.root.querySelector(".error");
    error.textContent = message;
    error.hidden = !message;
  }

  // Translates what is not known yet, a request of some lines after the other.
  async translate(lines, isCurrent, signal) {
    if (this.known.size > KNOWN) this.known.clear();
    this.shown = lines;
    this.show();
    this.root.querySelector(".copy").disabled = true;
    const wanted = [...new Set(lines)].filter((line) => line.trim() && !this.known.has(this.key(line)));
    try {
      for (let start = 0; start < wanted.length; start += state.limits.lines) {
        if (!isCurrent()) return;
        const part = wanted.slice(start, start + state.limits.lines);
        const keys = part.map((line) => this.key(line));
        const request = {
          model: this.number,
          lines: part,
          prefixes: part.map((line) => this.prefixes.get(line) ?? ""),
          target_language: this.select.value,
          glossary: this.glossary(),
        };
        const reply = await ask("/api/translate", request, signal);
        state.mistakes.set(request.glossary, reply.mistakes);
        reply.translations.forEach((each, number) => this.known.set(keys[number], each));
        if (isCurrent()) this.show();
      }
      this.fail("");
      this.root.querySelector(".copy").disabled = false;
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error.message);
    }
  }

  show() {
    const focused = this.focusedPlace();
    this.list.replaceChildren(
      ...this.shown.map((line, number) => {
        const item = element("li");
        item.dir = "auto";
        item.lang = this.language();
        const found = this.found(line);
        if (found) this.fill(item, line, number, found);
        else if (line.trim()) item.classList.add("late");
        item.addEventListener("click", () => choose(this, number));
        return item;
      })
    );
    if (state.chosen?.model === this) this.list.children[state.chosen.number]?.classList.add("chosen");
    if (focused) this.list.children[focused.line]?.querySelectorAll(".word")[focused.word]?.focus();
  }

  focusedPlace() {
    const word = document.activeElement;
    if (!word?.matches?.(".word") || !this.list.contains(word)) return null;
    const item = word.closest("li");
    return {
      line: [...this.list.children].indexOf(item),
      word: [...item.querySelectorAll(".word")].indexOf(word),
    };
  }

  fill(item, line, number, found) {
    const best = found.hypotheses[0];
    const box = element("span", "", "words");
    for (const part of words(best.text, this.language())) {
      if (!part.isWord) {
        box.append(part.text);
        continue;
      }
      const button = element("button", part.text, "word");
      button.type = "button";
      const isInTerm = ({ span }) => span && span[0] < part.end && span[1] > part.start;
      if (best.terms?.some(isInTerm)) button.classList.add("term");
      const pieces = best.pieces.filter(([start, end]) => start < part.end && end > part.start);
      const sure = pieces.reduce((least, piece) => Math.min(least, piece[2]), 1);
      if (pieces.length) {
        button.style.background = `rgba(var(--doubt), ${((1 - sure) * 0.5).toFixed(2)})`;
        button.title = `${Math.round(sure * 100)}% sure`;
      }
      const reads = pieces.map((piece) => found.source_pieces[piece[3]]).filter((span) => span && span[1] > span[0]);
      const light = () => {
        $("details").hidden = !this.card.has_details;
        highlight(line, reads);
        clearTimeout(dwelling);
        if (state.chosen?.model !== this || state.chosen?.number !== number)
          dwelling = setTimeout(() => choose(this, number).then(() => highlight(line, reads)), DWELL);
      };
      const dark = () => {
        clearTimeout(dwelling);
        highlight(line, []);
      };
      button.addEventListener("mouseenter", light);
      button.addEventListener("mouseleave", dark);
      button.addEventListener("blur", dark);
      button.addEventListener("focus", () => {
        for (const other of box.querySelectorAll(".word")) other.tabIndex = other === button ? 0 : -1;
        light();
      });
      button.tabIndex = box.querySelector(".word") ? -1 : 0; // a sentence is one stop, its words by the arrow keys
      if (this.card.takes_prefixes) {
        button.setAttribute("aria-haspopup", "dialog");
        button.addEventListener("click", () => openMenu(this, line, number, best.text, part, button));
      }
      button.addEventListener("keydown", (event) => move(event, box));
      box.append(button);
    }
    item.append(box);
    if (best.terms) item.append(listOf(best.terms));
    if (found.truncated) item.append(element("span", " (the text is too long: translated in part)", "note"));
    if (!found.is_prefix_kept) item.append(element("span", " (the model cannot write all of your beginning)", "note"));
    if (this.prefixes.get(line)) {
      const undo = element("button", "undo", "note");
      undo.type = "button";
      undo.addEventListener("click", (event) => {
        event.stopPropagation();
        this.prefixes.delete(line);
        update();
      });
      item.append(" ", undo);
    }
  }
}

function say(text) {
  $("status").textContent = text;
}

// Terms of a line, and whether its translation has them.
function listOf(terms) {
  const list = element("ul", "", "terms");
  list.ariaLabel = "Terms of the glossary";
  for (const { term, is_placed } of terms) {
    const item = element("li", is_placed ? "✓ " : "✗ ", is_placed ? "" : "lacking");
    item.append(element("bdi", term), is_placed ? ": placed" : ": not placed");
    list.append(item);
  }
  return list;
}

// What is wrong with lines of the glossary.
function showMistakes(mistakes) {
  const more = mistakes.length > 1 ? ` (and ${mistakes.length - 1} more lines)` : "";
  const text = mistakes.length ? mistakes[0] + more : "";
  if ($("glossary-note").textContent !== text) $("glossary-note").textContent = text;
}

// The words of a text and what is between them.
function words(text, language) {
  let segmenter;
  try {
    segmenter = new Intl.Segmenter(language || undefined, { granularity: "word" });
  } catch {
    segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
  }
  const found = [];
  for (const { segment, index, isWordLike } of segmenter.segment(text)) {
    const last = found.at(-1);
    const joins = segment === "-" && last?.isWordLike; // T-Shirt is a word
    if (joins || (isWordLike && last?.endsWithHyphen)) {
      last.text += segment;
      last.end += segment.length;
      last.endsWithHyphen = joins;
      continue;
    }
    const part = { text: segment, start: index, end: index + segment.length };
    found.push({ ...part, isWord: segment.trim() !== "", isWordLike, endsWithHyphen: false });
  }
  return found;
}

// Arrow keys go from word to word of a sentence.
function move(event, box) {
  const isRightToLeft = getComputedStyle(box).direction === "rtl";
  const step = { ArrowRight: isRightToLeft ? -1 : 1, ArrowLeft: isRightToLeft ? 1 : -1 }[event.key];
  if (!step) return;
  const all = [...box.querySelectorAll(".word")];
  const next = all[all.indexOf(event.currentTarget) + step];
  if (next) {
    next.focus();
    event.preventDefault();
  }
}

// The chosen sentence: its source, other translations, and attention.
async function choose(model, number) {
  const line = model.shown[number] ?? "";
  document.querySelectorAll("li.chosen").forEach((item) => item.classList.remove("chosen"));
  model.list.children[number]?.classList.add("chosen");
  const chosen = { model, number, line, key: model.key(line) };
  const isSame = state.chosen?.model === model && state.chosen.key === chosen.key;
  state.chosen = chosen;
  $("details").hidden = !line.trim() || !model.card.has_details;
  if (isSame || $("details").hidden) return;
  $("source-words").textContent = line;
  $("others").replaceChildren();
  $("attention").replaceChildren();
  const isCurrent = () => state.chosen === chosen || (state.chosen?.model === model && state.chosen.key === chosen.key);
  const common = { model: model.number, target_language: model.select.value, glossary: model.glossary() };
  try {
    const prefixes = [model.prefixes.get(line) ?? ""];
    const reply = await ask("/api/translate", { ...common, lines: [line], prefixes, hypotheses: OTHERS });
    if (!isCurrent()) return;
    showOthers(reply.translations[0].hypotheses, model.language());
    if (!model.card.gives_attention) return;
    const attention = await ask("/api/attention", { ...common, line, prefix: prefixes[0] });
    if (isCurrent()) showAttention(attention);
  } catch (error) {
    model.fail(error.message);
  }
}

function showOthers(hypotheses, language) {
  const list = element("ol");
  for (const each of hypotheses) {
    const item = element("li", each.text);
    item.dir = "auto";
    item.lang = language;
    if (each.score !== null) item.append(element("span", each.score.toFixed(2), "score"));
    list.append(item);
  }
  $("others").replaceChildren(element("h2", "Other translations, with their scores"), list);
}

function showAttention({ source, target, weights }) {
  if (!weights.some((row) => row.some((weight) => weight > 0))) return;
  const table = element("table");
  table.append(element("caption", "Attention: what each piece of the best translation (a row) reads of the text"));
  const head = table.createTHead().insertRow();
  for (const piece of ["", ...source]) {
    const cell = element("th", piece);
    cell.scope = "col";
    cell.dir = "auto";
    head.append(cell);
  }
  const body = table.createTBody();
  target.forEach((piece, number) => {
    const row = body.insertRow();
    const name = element("th", piece);
    name.scope = "row";
    name.dir = "auto";
    row.append(name);
    weights[number].forEach((weight, place) => {
      const cell = row.insertCell();
      cell.style.background = `rgba(59, 125, 216, ${weight / 100})`;
      cell.title = `${piece} reads ${source[place]}: ${weight}%`;
      cell.append(element("span", `${weight}%`, "hidden"));
    });
  });
  $("attention").replaceChildren(table);
}

// Shows the source of a sentence with some spans of it marked.
function highlight(line, spans) {
  const marks = [...spans].sort((a, b) => a[0] - b[0]);
  const parts = [];
  let place = 0;
  for (let [start, end] of marks) {
    start = Math.max(start, place);
    if (end <= start) continue;
    while (start < end && line[start] === " ") start += 1;
    parts.push(line.slice(place, start), element("mark", line.slice(start, end), "reads"));
    place = end;
  }
  $("source-words").replaceChildren(...parts, line.slice(place));
}

// Other words in the place of one of a translation.
let menuFor = null;
let dwelling;

async function openMenu(model, line, number, text, part, button) {
  const prefix = text.slice(0, part.start);
  menuFor = { model, line, number, prefix, button, hasSpace: text[part.end] === " " };
  const current = menuFor;
  const menu = $("menu");
  const place = button.getBoundingClientRect();
  menu.hidden = false;
  menu.style.top = `${place.bottom + window.scrollY + 4}px`;
  menu.style.left = `${Math.max(8, Math.min(place.left, document.documentElement.clientWidth - menu.offsetWidth - 8))}px`;
  $("own").value = part.text;
  $("own").select();
  $("own").focus();
  $("words").replaceChildren();
  $("words-status").textContent = "looking for words …";
  try {
    const request = { model: model.number, line, prefix, target_language: model.select.value };
    const reply = await ask("/api/words", { ...request, glossary: model.glossary() });
    if (menuFor !== current) return;
    const found = new Map();
    for (const [texts, areCut] of [[reply.texts, false], [reply.cut_texts, true]]) {
      for (const each of texts) {
        const rest = each.slice(prefix.length);
        const next = words(rest, model.language()).find((one) => one.isWord);
        if (!next || !each.startsWith(prefix) || (areCut && next.end === rest.length)) continue; // perhaps half a word
        const hasSpace = rest[next.end] === " "; // which says that the word is whole
        if (![...found.values()].includes(next.text))
          found.set(each.slice(0, prefix.length + next.end) + (hasSpace ? " " : ""), next.text);
      }
    }
    const items = [...found].map(([beginning, word]) => {
      const item = element("li", word);
      item.role = "option";
      item.dir = "auto";
      item.lang = model.language();
      item.tabIndex = -1;
      item.ariaSelected = "false";
      item.addEventListener("click", () => goOn(beginning));
      item.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          goOn(beginning);
        }
      });
      return item;
    });
    $("words").replaceChildren(...items);
    $("words-status").textContent = items.length ? "" : "the model has no other word here";
  } catch (error) {
    if (menuFor === current) $("words-status").textContent = error.message;
  }
}

function goOn(beginning) {
  const { model, line, number } = menuFor;
  closeMenu();
  model.prefixes.set(line, beginning);
  state.chosen = null;
  update().then(() => {
    choose(model, number);
    const all = [...(model.list.children[number]?.querySelectorAll(".word") ?? [])];
    const said = words(beginning, model.language()).filter((part) => part.isWord).length;
    all[Math.min(said, all.length) - 1]?.focus();
  });
}

function closeMenu() {
  $("menu").hidden = true;
  const button = menuFor?.button;
  menuFor = null;
  if (button?.isConnected) button.focus();
}

$("close").addEventListener("click", closeMenu);
$("own-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const own = $("own").value;
  if (menuFor && own.trim()) goOn(menuFor.prefix + own + (menuFor.hasSpace && !own.endsWith(" ") ? " " : ""));
});
document.addEventListener("keydown", (event) => {
  if ($("menu").hidden) return;
  if (event.key === "Escape") closeMenu();
  if (event.key === "Tab") {
    const stops = [...$("menu").querySelectorAll("input, button, [role=option]")];
    const place = stops.indexOf(document.activeElement) + (event.shiftKey ? -1 : 1);
    stops[(place + stops.length) % stops.length].focus(); // the dialog keeps the focus
    event.preventDefault();
  }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const items = [...$("words").querySelectorAll("[role=option]")];
  const next = items[items.indexOf(document.activeElement) + step];
  items.forEach((item) => (item.ariaSelected = String(item === next)));
  (next ?? $("own")).focus();
  event.preventDefault();
});
document.addEventListener("mousedown", (event) => {
  if (!$("menu").hidden && !$("menu").contains(event.target)) closeMenu();
});

let round = 0;
let running = new AbortController();

// Translates the text as it is now with every model.
async function update() {
  round += 1;
  running.abort(); // of the text before
  running = new AbortController();
  const own = round;
  const { signal } = running;
  const isCurrent = () => own === round;
  const lines = $("source").value.split("\n");
  const long = lines.findIndex((line) => line.length > state.limits.characters);
  const count = lines.filter((line) => line.trim()).length;
  $("count").textContent = `${count} ${count === 1 ? "sentence" : "sentences"}`;
  if (long >= 0) {
    say(`Line ${long + 1} has more than ${state.limits.characters} characters: shorten it`);
    return;
  }
  if ($("glossary").value.length > state.limits.glossary) {
    say(`The glossary has more than ${state.limits.glossary} characters: shorten it`);
    return;
  }
  say("translating …");
  const start = performance.now();
  await Promise.all(state.models.map((model) => model.translate(lines, isCurrent, signal)));
  if (!isCurrent()) return;
  showMistakes(state.mistakes.get($("glossary").value) ?? []);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const placed = state.models.flatMap((model) => {
    const [count, there] = model.placed();
    const name = state.models.length > 1 ? `, ${model.card.name}` : "";
    return count ? [`; ${there} of ${count} ${count === 1 ? "term" : "terms"} placed${name}`] : [];
  });
  say(`translated in ${seconds} s${placed.join("")}`);
}

let timer;
for (const field of ["source", "glossary"]) {
  $(field).addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      state.chosen = null;
      $("details").hidden = true;
      update();
    }, DELAY);
  });
}

async function begin() {
  const reply = await fetch("/api/models");
  const { models, limits } = await reply.json();
  state.limits = limits;
  state.models = models.map((card, number) => new Model(number, card));
  $("models").replaceChildren(...state.models.map((model) => model.root));
  document.querySelector("main").classList.toggle("two", models.length > 1);
  $("glossary-box").hidden = !models.some((card) => card.takes_terms);
  document.title = `Translate: ${models.map((card) => card.name).join(", ")}`;
  const sources = new Set(models.map((card) => card.language_pair[0]));
  if (sources.size === 1) $("source").lang = $("source-words").lang = [...sources][0];
  say("ready");
  if ($("source").value) update();
}

begin().catch(() => say("The demo does not answer: is pipelines.demo still running?"));
