"use strict";
// Offsets of entities count UTF-16 units in this page, characters (code points) in what it sends and receives.

const $ = id => document.getElementById(id);
const BATCH = 16;  // texts a request
const LONG = 2000;  // units; longer paragraphs are answered in pieces
const WAIT = 250;  // milliseconds after the last key
const TYPES = 8;  // colours, as in reports

function element(name, attributes = {}, ...parts) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "type" && typeof value === "number") made.style.setProperty("--type", `var(--type-${value % TYPES})`);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...parts);
  return made;
}

function makeId() {  // crypto.randomUUID is there on https and localhost only
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = bytes[6] & 15 | 64;
  bytes[8] = bytes[8] & 63 | 128;
  const digits = [...bytes].map(byte => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

const percent = score => score === undefined ? "" : score.toFixed(2);
const say = text => { $("live").textContent = text; };
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function show(node, text, bad = false) {
  node.textContent = text;
  node.classList.toggle("bad", bad);
}

// The server.

let keyAsked = null;  // one dialog for all requests that wait for the key

async function ask(path, body, method = body === undefined ? "GET" : "POST") {
  for (let tries = 0; ; tries++) {
    const key = sessionStorage.getItem("api-key");
    const headers = key ? {Authorization: `Bearer ${key}`} : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    // Relative, so that the page also works below a path of another server.
    const response = await fetch(`.${path}`, {method, headers, body: body === undefined ? undefined : JSON.stringify(body)});
    if (response.status === 401) {
      if (key === sessionStorage.getItem("api-key")) await (keyAsked ??= askForKey().finally(() => { keyAsked = null; }));
    } else if ([429, 503].includes(response.status) && tries < (path === "/about" ? 300 : 5)) {
      if (path === "/about") show($("note"), "The model is being loaded …");
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise(done => setTimeout(done, 1000 * Math.min(seconds, 5)));
    } else {
      const answer = await response.json().catch(() => ({error: `the server answered ${response.status}`}));
      if (!response.ok) throw new Error(answer.error ?? `the server answered ${response.status}`);
      return answer;
    }
  }
}

async function askDialog(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise(done => dialog.addEventListener("close", done, {once: true}));
  return dialog.returnValue === "ok";
}

async function askForKey() {
  $("key").value = "";
  if (!await askDialog($("key-dialog"))) throw new Error("the server wants an API key");
  sessionStorage.setItem("api-key", $("key").value.trim());
}

// What the model is, see /about.

let about, model;  // all models; the one that is tried and corrected
const isTagging = () => model.task === "tagging";
const typesOf = labels => [...new Set(labels.filter(label => label !== "O").map(label => label.replace(/^[BIES]-/, "")))].sort();
const colourOf = label => model.types.indexOf(label);
const nameOfVersion = (found, number) => {
  const names = [found.stable === number ? "stable" : "", found.canary === number ? "canary" : ""].filter(Boolean);
  return [number, ...names].join(" · ");
};

// Answers, kept by what was asked; a stale one is simply not looked at.

const kept = new Map();
const keyOf = (source, text) => JSON.stringify([source.model, source.version, text]);
const answerOf = (source, text) => kept.get(keyOf(source, text));

async function fetchAnswers(source, texts) {
  const body = {texts, model: source.model};
  if (source.version !== "") body.version = Number(source.version);
  const answer = await ask({tagging: "/entities", classification: "/classify"}[model.task] ?? "/answers", body);
  if (kept.size > 5000) kept.clear();
  answer.answers.forEach((row, number) => kept.set(keyOf(source, texts[number]), {
    ...row, ...("entities" in row ? {entities: toUnits(texts[number], row.entities)} : {}),
    model: answer.model, version: answer.version,
  }));
}

// Texts and offsets.

const isWide = text => /[\ud800-\udfff]/.test(text);

function toUnits(text, entities) {
  if (!isWide(text)) return entities;
  const at = [];
  for (let unit = 0; unit <= text.length; unit += text.codePointAt(unit) > 0xffff ? 2 : 1) at.push(unit);
  return entities.map(each => ({...each, start: at[each.start], end: at[each.end]}));
}

function toCharacters(text, entities) {
  if (!isWide(text)) return entities;
  const at = offset => [...text.slice(0, offset)].length;
  return entities.map(each => ({...each, start: at(each.start), end: at(each.end)}));
}

// Paragraphs; long ones in pieces at line ends, else at ends of sentences chosen by the letters before them, so that
// an edit moves no other cut.
function splitText(text) {
  const cutAll = (parts, cut) => parts.flatMap(part => part.length > LONG ? cut(part) : [part]);
  const cutAt = (part, pattern, wanted = () => true) => {
    const pieces = [];
    let at = 0;
    for (const found of part.matchAll(pattern)) {
      const end = found.index + found[0].length;
      if (wanted(part, found.index, end - at)) { pieces.push(part.slice(at, end)); at = end; }
    }
    return [...pieces, part.slice(at)];
  };
  const sum = letters => [...letters].reduce((total, letter) => total * 31 + letter.codePointAt(0), 0);
  const chosen = (part, index, length) => length > LONG || length > LONG / 4 && sum(part.slice(Math.max(0, index - 6), index)) % 4 === 0;
  let parts = cutAt(text, /\n[ \t\r]*\n\s*/g);
  parts = cutAll(parts, part => cutAt(part, /\n\s*/g));
  parts = cutAll(parts, part => cutAt(part, /[.!?。！？]+\s*/g, chosen));
  parts = cutAll(parts, part => part.match(new RegExp(`[^]{1,${4 * LONG}}(?:\\s|$)|[^]{1,${4 * LONG}}`, "gu")));
  return parts.map(part => part.trim()).filter(Boolean);
}

// Words, one after the other; a script without spaces is taken letter by letter.
const WORD = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]\p{M}*|(?:(?![\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}])[\p{L}\p{N}\p{M}])+|[^\s]/gu;
const findWords = text => [...text.matchAll(WORD)].map(found => [found.index, found.index + found[0].length]);

// One text and the entities in it: the model's, and what a person made of them.
class Passage {
  constructor(text) {
    this.text = text;
    this.answer = this.entities = null;
    this.done = null;  // what was saved last
    this.node = element("p", {dir: "auto", class: "waiting"}, text);
    this.node.passage = this;
  }
  get words() { return this.found ??= findWords(this.text); }
  get state() { return JSON.stringify((this.entities ?? []).map(each => [each.start, each.end, each.label])); }
  get original() { return JSON.stringify((this.answer?.entities ?? []).map(each => [each.start, each.end, each.label])); }
  get edited() { return this.entities !== null && this.state !== (this.done ?? this.original); }
  get judged() { return this.done !== null && this.state === this.done; }
  receive(answer) {
    if (this.entities === null || !this.edited && this.done === null) this.entities = answer.entities;
    this.answer = answer;
  }
  // The nearest ends of words around a range that is not empty, or null.
  snap(start, end) {
    const inside = this.words.filter(([from, to]) => to > start && from < end);
    return inside.length ? [inside[0][0], inside.at(-1)[1]] : null;
  }
  correction(verdict) {
    const entities = each => toCharacters(this.text, each);
    return {
      text: this.text, verdict, model: this.answer.model, version: this.answer.version,
      answer: verdict === "flagged" || verdict === "skipped" ? {} : {entities: entities(this.entities).map(({start, end, label}) => ({start, end, label}))},
      prediction: {entities: entities(this.answer.entities).map(({start, end, label, score}) => ({start, end, label, score}))},
    };
  }
}

// Passages in which entities can be corrected with the mouse or the keys.
class SpanEditor {
  constructor(host, {fixed = false, changed = () => {}} = {}) {
    this.passages = [];
    this.history = [];
    this.picked = null;  // {passage, start, end, entity}: selected words, and the entity if they are one
    this.fixed = fixed;
    this.changed = changed;
    const named = fixed ? {role: "group", "aria-label": "Answer of the other version"}
      : {role: "application", tabindex: 0, "aria-label": "Entities in the text: arrow keys go from word to word, Enter opens the tools"};
    this.host = element("div", {class: "spans", ...named});
    host.replaceChildren(this.host);
    if (fixed) return;
    this.host.addEventListener("keydown", event => this.onKey(event));
    this.host.addEventListener("pointerdown", event => this.onPointer(event));
    this.host.addEventListener("click", event => this.onClick(event));
    document.addEventListener("selectionchange", () => {
      if (document.activeElement === this.host && !this.pointing) this.pickSelection();
    });
  }

  // Takes texts; what is in both keeps its node, its answer and its corrections.
  setTexts(texts) {
    const old = new Map();
    for (const passage of this.passages) old.set(passage.text, [...old.get(passage.text) ?? [], passage]);
    this.passages = texts.map(text => old.get(text)?.shift() ?? new Passage(text));
    for (const left of [...old.values()].flat()) left.node.remove();
    let next = this.host.firstChild;
    for (const {node} of this.passages) {
      if (node === next) next = next.nextSibling;
      else this.host.insertBefore(node, next);
    }
    if (this.picked && !this.passages.includes(this.picked.passage)) this.pick(null);
    this.history = this.history.filter(([passage]) => this.passages.includes(passage));
    this.changed();
  }

  render(passage) {
    const {text, node} = passage, parts = [];
    let at = 0;
    for (const entity of passage.entities ?? []) {
      parts.push(text.slice(at, entity.start), this.mark(passage, entity));
      at = entity.end;
    }
    node.replaceChildren(...parts.filter(part => part !== ""), text.slice(at));
    node.className = passage.entities === null ? "waiting" : passage.edited ? "edited" : passage.judged ? "saved" : "";
  }

  mark(passage, entity) {
    const {label, score} = entity, words = passage.text.slice(entity.start, entity.end);
    const sure = score === undefined ? "corrected" : `score ${score.toFixed(4)}`;
    const made = element("mark", {type: colourOf(label), "data-tag": `${label} ${percent(score) || "✎"}`, title: `${label}, ${sure}`}, words);
    made.entity = entity;
    if (this.differs?.(passage, entity)) made.classList.add("differs");
    if (!this.fixed) {
      for (const side of ["start", "end"]) made.append(element("span", {class: `handle ${side}`, "data-side": side, "aria-hidden": "true"}));
      made.classList.toggle("selected", this.picked?.entity === entity);
    }
    return made;
  }

  // Selecting.

  pick(picked, {spoken = false} = {}) {
    const before = this.picked?.passage;
    this.picked = picked;
    for (const passage of new Set([before, picked?.passage])) if (passage && this.passages.includes(passage)) this.render(passage);
    if (picked && spoken) this.selectNative();
    if (spoken) say(picked ? this.describe(picked) : "");
    if (picked) toolbar.open(this);
    else toolbar.close(this);
  }

  describe({passage, start, end, entity}) {
    const what = entity ? `${entity.label}${entity.score === undefined ? ", corrected" : `, score ${percent(entity.score)}`}` : "no entity";
    return `${passage.text.slice(start, end)}: ${what}`;
  }

  nodeAt(passage, offset, atEnd) {
    const walker = document.createTreeWalker(passage.node, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(), at = 0; node; at += node.length, node = walker.nextNode()) {
      if (offset < at + node.length || atEnd && offset === at + node.length) return [node, offset - at];
    }
    return [passage.node, passage.node.childNodes.length];
  }

  selectNative() {
    const {passage, start, end} = this.picked;
    this.pointing = true;  // what follows is not a selection by the user
    getSelection().setBaseAndExtent(...this.nodeAt(passage, start, false), ...this.nodeAt(passage, end, true));
    passage.node.scrollIntoView({block: "nearest"});
    setTimeout(() => { this.pointing = false; });
  }

  offsetOf(node, offset) {
    const home = (node.nodeType === Node.TEXT_NODE ? node.parentElement : node).closest(".spans > p");
    if (!home || !this.host.contains(home)) return null;
    const range = document.createRange();
    range.setStart(home, 0);
    range.setEnd(node, offset);
    return [home.passage, range.toString().length];
  }

  pickSelection() {
    const selection = getSelection();
    if (selection.isCollapsed || !this.host.contains(selection.anchorNode)) return;
    const range = selection.getRangeAt(0), from = this.offsetOf(range.startContainer, range.startOffset);
    const to = this.offsetOf(range.endContainer, range.endOffset);
    if (!from || from[0].entities === null) return;
    const snapped = from[0].snap(from[1], to && to[0] === from[0] ? to[1] : from[0].text.length);
    if (snapped) this.pickRange(from[0], ...snapped);
  }

  pickRange(passage, start, end, options) {
    const entity = passage.entities.find(each => each.start === start && each.end === end);
    if (this.picked?.passage === passage && this.picked.start === start && this.picked.end === end && !options) {
      if ($("toolbar").hidden) toolbar.open(this);  // words that are no entity any more are selected again
      return;
    }
    this.picked && this.picked.passage !== passage && this.render(this.picked.passage);
    if (entity || options) this.pick({passage, start, end, entity}, options);
    else { this.picked = {passage, start, end}; toolbar.open(this); }  // rendering would end the selection
  }

  onClick(event) {
    if (!getSelection().isCollapsed || this.dragged) return;
    const entity = event.target.closest?.("mark")?.entity, passage = event.target.closest?.(".spans > p")?.passage;
    this.pick(entity ? {passage, start: entity.start, end: entity.end, entity} : null);
  }

  onPointer(event) {
    this.dragged = false;
    const side = event.target.dataset?.side, mark = event.target.closest?.("mark");
    this.pointing = true;
    const end = () => { this.pointing = false; if (!side) setTimeout(() => this.pickSelection()); };
    addEventListener("pointerup", end, {once: true});
    // Pressed on selected words, a browser would drag them instead of selecting anew.
    if (!side && !event.shiftKey) getSelection().removeAllRanges();
    if (side) this.drag(event, side, mark.entity, mark.closest("p").passage);
  }

  drag(event, side, entity, passage) {
    event.preventDefault();
    this.host.focus({preventScroll: true});
    getSelection().removeAllRanges();
    this.dragged = true;
    this.pick({passage, start: entity.start, end: entity.end, entity});
    this.remember(passage);
    this.host.setPointerCapture(event.pointerId);
    this.host.classList.add("dragging");
    const move = at => {
      const found = caretAt(at.clientX, at.clientY), place = found && this.offsetOf(...found);
      if (place && place[0] === passage) this.moveEnd(side, place[1]);
    };
    const stop = () => {
      this.host.removeEventListener("pointermove", move);
      this.host.classList.remove("dragging");
      const [, before] = this.history.at(-1) ?? [];
      if (before === JSON.stringify(passage.entities)) this.history.pop();
      if (this.picked) say(this.describe(this.picked));
      this.changed();
    };
    this.host.addEventListener("pointermove", move);
    this.host.addEventListener("pointerup", stop, {once: true});
    this.host.addEventListener("pointercancel", stop, {once: true});
  }

  // Moves an end of the picked entity to the end of a word nearest to an offset, between its neighbours.
  moveEnd(side, offset) {
    const {passage, entity} = this.picked, number = passage.entities.indexOf(entity);
    const lowest = passage.entities[number - 1]?.end ?? 0, highest = passage.entities[number + 1]?.start ?? passage.text.length;
    const own = passage.words.filter(([from, to]) => from >= lowest && to <= highest);
    const places = side === "start" ? own.map(word => word[0]).filter(at => at < entity.end) : own.map(word => word[1]).filter(at => at > entity.start);
    if (!places.length) return;
    const nearest = places.reduce((best, at) => Math.abs(at - offset) < Math.abs(best - offset) ? at : best);
    if (nearest === entity[side]) return;
    this.replace(entity, {start: entity.start, end: entity.end, label: entity.label, [side]: nearest});
  }

  replace(entity, other) {
    const {passage} = this.picked;
    passage.entities = passage.entities.map(each => each === entity ? other : each);
    this.picked = {passage, start: other.start, end: other.end, entity: other};
    this.render(passage);
    toolbar.open(this);
    this.changed();
  }

  // Changing.

  remember(passage) { this.history.push([passage, JSON.stringify(passage.entities)]); }

  setType(label) {
    if (!this.picked) return;
    const {passage, start, end, entity} = this.picked;
    if (entity?.label === label) return;
    this.remember(passage);
    const other = {start, end, label};
    passage.entities = [...passage.entities.filter(each => each.end <= start || each.start >= end), other].sort((a, b) => a.start - b.start);
    getSelection().removeAllRanges();
    this.pick({passage, start, end, entity: other});
    this.changed();
    say(`${passage.text.slice(start, end)} is now ${label}`);
  }

  remove() {
    if (!this.picked) return;
    const {passage, start, end} = this.picked, left = passage.entities.filter(each => each.end <= start || each.start >= end);
    if (left.length === passage.entities.length) return;
    this.remember(passage);
    passage.entities = left;
    this.pick({passage, start, end, entity: undefined}, {spoken: this.host === document.activeElement});
    toolbar.close(this);
    this.changed();
    say(`${passage.text.slice(start, end)} is no entity now`);
  }

  undo() {
    const last = this.history.pop();
    if (!last) return;
    last[0].entities = JSON.parse(last[1]);
    this.picked = null;
    this.render(last[0]);
    toolbar.close(this);
    this.changed();
    say("undone");
  }

  // Keys.

  onKey(event) {
    const key = event.key, plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const types = model.types, number = Number(key);
    const done = () => { event.preventDefault(); event.stopPropagation(); };
    if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "z") { this.undo(); done(); }
    else if (!plain) return;
    else if (event.shiftKey && key.startsWith("Arrow")) { this.stretch(key.slice(5)); done(); }
    else if (key === "ArrowRight" || key === "ArrowLeft") { this.step(key === "ArrowRight" ? 1 : -1, false); done(); }
    else if (key === "n" || key === "p") { this.step(key === "n" ? 1 : -1, true); done(); }
    else if (number >= 1 && number <= Math.min(9, types.length) && this.picked) { this.setType(types[number - 1]); done(); }
    else if ((key === "Delete" || key === "Backspace") && this.picked) { this.remove(); done(); }
    else if (key === "Enter" && this.picked) { toolbar.open(this); toolbar.focus(); done(); }
    else if (key === "Escape" && this.picked) { this.pick(null, {spoken: true}); getSelection().removeAllRanges(); done(); }
  }

  // To the next word or entity, or the next entity.
  step(direction, entities) {
    const ready = this.passages.filter(passage => passage.entities !== null);
    let at = this.picked ? ready.indexOf(this.picked.passage) : direction > 0 ? -1 : ready.length;
    let from = this.picked ? (direction > 0 ? this.picked.end : this.picked.start) : null;
    if (at === -1 || at === ready.length) { at += direction; from = direction > 0 ? 0 : Infinity; }
    for (; at >= 0 && at < ready.length; at += direction, from = direction > 0 ? 0 : Infinity) {
      const passage = ready[at], marked = passage.entities;
      const free = entities ? [] : passage.words.filter(([start, end]) => !marked.some(each => start < each.end && end > each.start));
      const stops = [...marked.map(each => [each.start, each.end]), ...free].sort((a, b) => a[0] - b[0]);
      const found = direction > 0 ? stops.find(stop => stop[0] >= from) : stops.findLast(stop => stop[1] <= from);
      if (found) { this.pickRange(passage, ...found, {spoken: true}); return; }
    }
  }

  stretch(arrow) {
    if (!this.picked) return;
    const {passage, start, end, entity} = this.picked, words = passage.words;
    const side = arrow === "Left" || arrow === "Right" ? "end" : "start", later = arrow === "Right" || arrow === "Down";
    const places = words.map(word => word[side === "start" ? 0 : 1]), from = side === "start" ? start : end;
    const to = later ? places.find(at => at > from) : places.findLast(at => at < from);
    if (to === undefined || (side === "start" ? to >= end : to <= start)) return;
    if (entity) {
      this.remember(passage);
      this.moveEnd(side, to);
      if (this.picked.entity === entity) this.history.pop();
      this.selectNative();
    } else {
      this.picked = {passage, start: side === "start" ? to : start, end: side === "end" ? to : end};
      this.selectNative();
      toolbar.open(this);
    }
    say(this.describe(this.picked));
  }
}

function caretAt(x, y) {
  const place = document.caretPositionFromPoint?.(x, y);
  if (place) return [place.offsetNode, place.offset];
  const range = document.caretRangeFromPoint?.(x, y);
  return range && [range.startContainer, range.startOffset];
}

// The tools beside what is selected in an editor.
const toolbar = {
  open(editor) {
    const {passage, entity} = editor.picked, focused = $("toolbar").contains(document.activeElement);
    this.editor = editor;
    const button = (name, act, attributes = {}) => element("button", {type: "button", ...attributes, onclick: act, onpointerdown: event => event.preventDefault()}, name);
    const types = model.types.map((label, number) => {
      const made = button(label, () => editor.setType(label), {"aria-pressed": String(entity?.label === label)});
      made.style.setProperty("--type", `var(--type-${number % TYPES})`);
      if (number < 9) made.append(" ", element("kbd", {"aria-hidden": "true"}, String(number + 1)));
      return made;
    });
    const move = (name, arrow, hint) => button(name, () => editor.stretch(arrow), {"aria-label": hint, title: hint});
    $("toolbar").replaceChildren(
      ...types,
      ...(entity ? [button("Delete", () => editor.remove())] : []),
      move("◂|", "Up", "start one word earlier"), move("|▸", "Down", "start one word later"),
      move("◂‖", "Left", "end one word earlier"), move("‖▸", "Right", "end one word later"),
    );
    $("toolbar").hidden = false;
    if (focused) this.focus();
    const place = (passage.node.querySelector("mark.selected") ?? rangeOfSelection(passage)).getBoundingClientRect();
    const width = $("toolbar").offsetWidth;
    $("toolbar").style.top = `${scrollY + place.bottom + 10}px`;
    $("toolbar").style.left = `${scrollX + Math.max(8, Math.min(place.left, document.documentElement.clientWidth - width - 8))}px`;
  },
  close(editor) { if (!editor || this.editor === editor) $("toolbar").hidden = true; },
  focus() { $("toolbar").querySelector("button")?.focus(); },
};
const rangeOfSelection = passage => getSelection().rangeCount && !getSelection().isCollapsed ? getSelection().getRangeAt(0) : passage.node;

$("toolbar").addEventListener("keydown", event => {
  const buttons = [...$("toolbar").querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (step) buttons.at((at + step) % buttons.length).focus();
  else if (event.key === "Escape") toolbar.editor.host.focus();
  else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") toolbar.editor.undo();
  else return;
  event.preventDefault();
  event.stopPropagation();
});
document.addEventListener("pointerdown", event => {
  if (!event.target.closest("#toolbar, .spans")) toolbar.close();
});

// The labels of one text, of which one, or several, can be chosen.
class LabelChooser {
  constructor(host, {fixed = false, changed = () => {}} = {}) {
    Object.assign(this, {fixed, changed, row: null, chosen: [], done: null, history: [], all: false, wanted: ""});
    this.host = element("div", {class: fixed ? "labels fixed" : "labels"});
    host.replaceChildren(this.host);
  }
  get several() { return "labels" in this.row; }
  get predicted() { return this.several ? this.row.labels : this.row.label === null ? [] : [this.row.label]; }
  get edited() { return this.row !== null && String(this.chosen) !== String(this.done ?? [...this.predicted].sort()); }
  get judged() { return this.done !== null && String(this.chosen) === String(this.done); }

  receive(text, row) {
    if (row === this.row && text === this.text) return;
    if (text !== this.text || !this.edited) { this.chosen = null; this.done = null; this.history = []; }
    Object.assign(this, {text, row});
    this.chosen ??= [...this.predicted].sort();
    this.render();
    this.changed();
  }

  clear() {
    Object.assign(this, {text: "", row: null, chosen: [], history: [], done: null});
    this.host.replaceChildren();
  }

  choose(label, on) {
    this.history.push(this.chosen);
    this.chosen = (this.several ? [...this.chosen.filter(each => each !== label), ...(on ? [label] : [])] : label === null ? [] : [label]).sort();
    this.refresh();
    say(this.chosen.join(", ") || "no label");
  }

  undo() {
    if (!this.history.length) return;
    this.chosen = this.history.pop();
    this.refresh();
    say("undone");
  }

  refresh() {
    for (const input of this.host.querySelectorAll("fieldset input")) {
      input.checked = input.value === "" ? !this.chosen.length : this.chosen.includes(input.value);
      input.closest("label").classList.toggle("chosen", input.checked);
    }
    this.changed();
  }

  render() {
    const names = model.labels, many = names.length > 10;
    const search = element("input", {type: "search", placeholder: `Search ${names.length} labels`, "aria-label": "Search labels", value: this.wanted,
      oninput: () => { this.wanted = search.value; this.list(); },
      onkeydown: event => {
        const first = this.host.querySelector("fieldset input");
        if (event.key === "Enter" && first) { this.choose(first.value || null, !first.checked); first.focus(); }
        if (event.key === "ArrowDown" && first) { event.preventDefault(); first.focus(); }
      }});
    this.more = element("button", {type: "button", onclick: () => { this.all = !this.all; this.list(); }});
    this.set = element("fieldset", {});
    this.host.replaceChildren(...(many && !this.fixed ? [element("div", {class: "search"}, search, this.more)] : []), this.set);
    this.list();
  }

  list() {
    const plain = label => label.toLowerCase().replaceAll("_", " ").trim(), scores = this.row.scores;
    const wanted = plain(this.wanted), letters = wanted.split(/\s+/).filter(Boolean);
    const ranked = [...model.labels].sort((a, b) => (plain(b) === wanted) - (plain(a) === wanted) || scores[b] - scores[a]);
    const fitting = ranked.filter(label => letters.every(part => plain(label).includes(part)));
    const most = this.all || letters.length ? fitting.length : this.fixed ? 5 : 10;
    const shown = fitting.filter((label, number) => number < most || !letters.length && this.chosen.includes(label));
    this.more.textContent = this.all ? "Show fewer" : `Show all ${model.labels.length}`;
    const name = this.name ??= makeId();
    const line = (label, text, score) => {
      const on = label === null ? !this.chosen.length : this.chosen.includes(label);
      const input = element("input", {type: this.several ? "checkbox" : "radio", name, value: label ?? "", disabled: this.fixed,
        onchange: event => this.choose(label, event.target.checked)});
      input.checked = on;
      const bar = element("span", {}, element("span", {class: "meter", type: colourOf(label)}));
      bar.firstChild.style.cssText += `;display:block;width:${100 * (score ?? 0)}%`;
      return element("label", {class: on ? "chosen" : ""}, input, element("span", {}, text), bar, element("span", {class: "score"}, score === undefined ? "" : score.toFixed(3)));
    };
    const none = this.several || this.fixed ? [] : [line(null, "none of these", undefined)];
    const legend = element("legend", {class: "unseen"}, this.several ? "Labels of the text" : "Label of the text");
    this.set.replaceChildren(legend, ...shown.map(label => line(label, label, scores[label])), ...none);
    if (!shown.length) this.set.append(element("p", {class: "quiet"}, "No label fits the search."));
  }

  correction(verdict) {
    const {several, row, chosen} = this, right = several ? {labels: chosen} : {label: chosen[0] ?? null};
    return {
      text: this.text, verdict, model: row.model, version: row.version, answer: verdict === "flagged" || verdict === "skipped" ? {} : right,
      prediction: several ? {labels: row.labels, scores: row.scores} : {label: row.label, score: row.score, scores: row.scores},
    };
  }
}

// The answer of a task of one's own, value by value; it can be called right or flagged.
class PlainAnswer {
  constructor(host) {
    Object.assign(this, {row: null, text: "", history: [], chosen: [], done: null, edited: false});
    this.host = element("div", {class: "plain"});
    host.replaceChildren(this.host);
  }
  get judged() { return this.done !== null; }
  undo() {}

  receive(text, row) {
    if (row === this.row && text === this.text) return;
    Object.assign(this, {text, row, done: null});
    const {text: _, model: __, version: ___, ...values} = row;
    this.host.textContent = Object.entries(values).map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join("\n");
    changed();
  }

  clear() {
    Object.assign(this, {text: "", row: null});
    this.host.replaceChildren();
  }

  correction(verdict) {
    const {text: _, model, version, ...prediction} = this.row;
    return {text: this.text, verdict, model, version, answer: verdict === "accepted" ? prediction : {}, prediction};
  }
}

// Saving. The same content keeps its id until it is known to be stored, so that trying again stores it once.

const ids = new Map();
let unsaved = 0;  // requests on their way

async function save(corrections) {
  const author = $("author").value.trim();
  const sent = corrections.map(each => ({source: "page", author, ...each}));
  for (const each of sent) {
    const content = JSON.stringify(each);
    if (!ids.has(content)) ids.set(content, makeId());
    each.id = ids.get(content);
  }
  unsaved += 1;
  const answer = await ask("/feedback", {corrections: sent}).finally(() => { unsaved -= 1; });
  for (const {id, ...each} of sent) ids.delete(JSON.stringify(each));
  return [`saved in ${answer.stored_in}, ${plural(answer.count, "correction")} so far`, ...answer.taken_back].join("; ");
}

addEventListener("beforeunload", event => { if (unsaved || queue.sending.size || tryEditor && changedPassages().length) event.preventDefault(); });
$("author").value = localStorage.getItem("author") ?? "";
$("author").addEventListener("change", () => localStorage.setItem("author", $("author").value));

// Trying and correcting.

const EXAMPLES = {
  "News": "Angela Merkel met Emmanuel Macron in Berlin on Monday. The German chancellor said that Siemens would build a plant near Lyon.\n\nShares in Airbus rose 3 percent in Paris after the United Nations ordered helicopters.",
  "E-mail": "Hi Laura,\n\nthe meeting with Bosch in Stuttgart is moved to Thursday. Could you book a hotel near the station and tell Peter Schmidt from Microsoft?\n\nBest regards\nTom Baker\nAcme Ltd, London",
  "Ticket": "I ordered a new card two weeks ago and it still has not arrived in Madrid. Your colleague Anna Lopez told me it would take five days. When will I get it?",
};
let tryEditor, tryOther, typing, busy = false, again = false;

const trySource = () => ({model: model.name, version: $("version").value});
function otherSource() {
  if (!$("other").value) return null;
  const [name, version] = JSON.parse($("other").value);
  return {model: name, version};
}

// The text that is asked about; of a pair both texts with a tab between them, as files and requests have it.
function wholeText() {
  if (!model.pairs) return $("text").value;
  const [first, second] = [$("text"), $("second")].map(each => each.value.trim().replaceAll("\t", " "));
  return first && second ? `${first}\t${second}` : first;
}

function changeText() {
  const at = $("text").value.indexOf("\t");
  if (model.pairs && at >= 0) {  // a pasted line of a file
    $("second").value = $("text").value.slice(at + 1);
    $("text").value = $("text").value.slice(0, at);
  }
  const text = wholeText();
  if (isTagging()) {
    const parts = splitText(text);
    tryEditor.setTexts(parts);
    tryOther.setTexts($("other").value ? parts : []);
  } else if (!text.trim()) { tryEditor.clear(); tryOther.clear(); changed(); }
  clearTimeout(typing);
  typing = setTimeout(refresh, WAIT);
}

// Asks for what is missing now, one request at a time; what comes back for a text that is gone is not shown.
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  const began = performance.now();
  let asked = 0;
  try {
    do {
      again = false;
      for (;;) {
        showAnswers();
        const [source, texts] = missing();
        if (!texts.length) break;
        show($("saved"), "");  // that was about another text
        show($("note"), asked ? `${plural(asked, "text")} answered …` : "…");
        await fetchAnswers(source, texts);
        asked += texts.length;
      }
    } while (again);
    if (asked) show($("note"), `${plural(asked, isTagging() ? "paragraph" : "text")} in ${Math.round(performance.now() - began)} ms`);
  } catch (error) {
    show($("note"), error.message, true);
  } finally { busy = false; }
}

function missing() {
  const texts = isTagging() ? tryEditor.passages.map(passage => passage.text) : [wholeText().trim()].filter(Boolean);
  for (const source of [trySource(), otherSource()]) {
    if (!source) continue;
    const absent = [...new Set(texts)].filter(text => !answerOf(source, text));
    if (absent.length) return [source, absent.slice(0, BATCH)];
  }
  return [null, []];
}

function showAnswers() {
  const source = trySource(), other = otherSource();
  if (isTagging()) {
    for (const [editor, from] of [[tryEditor, source], [tryOther, other]]) {
      for (const passage of from ? editor.passages : []) {
        const answer = answerOf(from, passage.text);
        if (answer && answer !== passage.answer) { passage.receive(answer); editor.render(passage); }
      }
    }
    if (other) markDifferences(tryEditor, tryOther);
  } else {
    const text = wholeText().trim();
    for (const [chooser, from] of [[tryEditor, source], [tryOther, other]]) {
      const answer = from && answerOf(from, text);
      if (answer) chooser.receive(text, answer);
    }
  }
  changed();
}

function markDifferences(one, two) {
  const key = each => `${each.start} ${each.end} ${each.label}`;
  for (const [mine, theirs] of [[one, two], [two, one]]) {
    const known = new Map(theirs.passages.filter(each => each.answer).map(each => [each.text, new Set(each.answer.entities.map(key))]));
    mine.differs = (passage, entity) => known.has(passage.text) && !known.get(passage.text).has(key(entity));
    for (const passage of mine.passages) {
      const state = passage.state + [...known.get(passage.text) ?? []];
      if (passage.entities && passage.compared !== state) { passage.compared = state; mine.render(passage); }
    }
  }
}

const changedPassages = () => isTagging() ? tryEditor.passages.filter(passage => passage.edited && passage.answer) : tryEditor.edited ? [tryEditor] : [];
const openPassages = () => isTagging() ? tryEditor.passages.filter(passage => passage.answer && !passage.judged) : tryEditor.row && !tryEditor.judged ? [tryEditor] : [];

function changed() {
  if (!tryEditor) return;
  const edited = changedPassages().length, open = openPassages().length;
  $("save").disabled = !edited;
  $("save").textContent = edited > 1 ? `Save ${edited} corrections` : "Save correction";
  $("accept").disabled = !open || edited > 0;
  $("flag").disabled = !open;
  $("undo").disabled = !tryEditor.history.length;
  if (isTagging()) {
    const counts = new Map();
    for (const passage of tryEditor.passages) for (const {label} of passage.entities ?? []) counts.set(label, (counts.get(label) ?? 0) + 1);
    drawLegend($("legend"), counts);
  }
}

function drawLegend(node, counts) {
  const parts = model.types.map((label, number) => element("span", {class: "type", type: number, "data-tag": counts?.get(label) ?? (counts ? "0" : "")}, label));
  node.replaceChildren(...(isTagging() ? parts : []));
}

async function saveTried(passages, verdictOf) {
  const sent = passages.map(each => [each, each.correction(verdictOf(each)), isTagging() ? each.state : [...each.chosen]]);
  show($("saved"), "saving …");
  try {
    show($("saved"), await save(sent.map(each => each[1])));
    for (const [passage, {verdict}, state] of sent) {
      if (verdict !== "flagged") passage.done = state;
      if (isTagging()) tryEditor.render(passage);
    }
  } catch (error) {
    show($("saved"), `Not saved: ${error.message}. Press the button again; nothing will be stored twice.`, true);
  }
  changed();
}

for (const id of ["text", "second"]) $(id).addEventListener("input", changeText);
$("version").addEventListener("change", () => { forget(); changeText(); });
$("other").addEventListener("change", () => { drawSides(); changeText(); });
$("save").addEventListener("click", () => saveTried(changedPassages(), () => "fixed"));
$("accept").addEventListener("click", () => saveTried(openPassages(), () => "accepted"));
$("flag").addEventListener("click", () => saveTried(openPassages(), () => "flagged"));
$("undo").addEventListener("click", () => tryEditor.undo());

// Another version answers: what was not corrected is asked anew.
function forget() {
  if (isTagging()) for (const passage of tryEditor.passages) { passage.answer = null; if (!passage.edited && !passage.judged) passage.entities = null; }
}

function drawSides() {
  const other = otherSource(), name = source => source.version === "" ? source.model : `${source.model} ${nameOfVersion(find(source.model), Number(source.version))}`;
  $("other-side").hidden = $("side-title").hidden = !other;
  if (!other) { tryEditor.differs = null; if (isTagging()) tryEditor.passages.forEach(each => { each.compared = null; each.entities && tryEditor.render(each); }); return; }
  $("side-title").textContent = name(trySource());
  $("other-title").textContent = name(other);
}
const find = name => about.models.find(each => each.name === name);

// Reviewing.

const queue = {items: [], done: 0, left: 0, at: 0, fetching: false};
let itemEditor, itemOther;

async function fetchQueue() {
  if (queue.fetching) return;
  queue.fetching = true;
  try {
    const [wanted, by] = [model.name, $("by").value];
    const found = await ask(`/queue?model=${encodeURIComponent(wanted)}&by=${by}&limit=20`);
    if (wanted !== model.name || by !== $("by").value) return;
    const known = new Set([...queue.items.map(item => item.text), ...queue.sending]);
    queue.items.push(...found.items.filter(item => !known.has(item.text)));
    queue.done = found.done;
    queue.left = Math.max(found.left - queue.sending.size, queue.items.length);
  } catch (error) { show($("item-saved"), error.message, true); }
  finally { queue.fetching = false; showItem(); }
}
queue.sending = new Set();

function openQueue() {
  Object.assign(queue, {items: [], shown: null, fetching: false});
  fetchQueue();
}

function showItem() {
  const item = queue.items[0];
  $("item").hidden = !item;
  $("queue-empty").hidden = Boolean(item) || queue.fetching;
  show($("queue-empty"), queue.left ? `None of this kind; ${plural(queue.left, "text")} wait${queue.left === 1 ? "s" : ""} in another order.`
    : "Nothing is left to review. Add texts below, or flag a text where you try the model.");
  $("progress").max = Math.max(1, queue.done + queue.left);
  $("progress").value = queue.done;
  show($("progress-text"), `${queue.done} done, ${queue.left} left`);
  if (!item || item === queue.shown) return;
  queue.shown = item;
  $("reason").textContent = reasonOf(item);
  drawLegend($("item-legend"));
  const fill = (editor, row) => {
    const answer = {model: item.model ?? model.name, version: item.version, ...row, ...("entities" in row ? {entities: toUnits(item.text, row.entities)} : {})};
    if (!isTagging()) { editor.clear(); editor.receive(item.text, answer); return; }
    editor.history = [];
    editor.pick(null);
    editor.setTexts([]);
    editor.setTexts([item.text]);
    editor.passages[0].receive(answer);
    editor.render(editor.passages[0]);
  };
  $("item-text").textContent = isTagging() ? "" : model.pairs ? item.text.replace("\t", "\n\n") : item.text;
  const other = item.other_answer;
  $("item-other-side").hidden = $("item-title").hidden = $("item-other-accept").hidden = !other;
  fill(itemEditor, item.answer);
  if (other) {
    $("item-title").textContent = `version ${item.version}`;
    $("item-other-title").textContent = `version ${item.other_version}`;
    fill(itemOther, other);
    if (isTagging()) markDifferences(itemEditor, itemOther);
  }
  drawItemButtons();
}

function reasonOf({reason, uncertainty, answer, other_answer}) {
  const unknown = isTagging() && !answer.entities?.length ? "The model found nothing here." : "";
  const sure = uncertainty === null ? unknown : `The model is ${Math.round(100 * (1 - uncertainty))} % sure.`;
  return [reason === "flagged" ? "Somebody flagged this text." : "", other_answer ? "Two versions answer differently." : "", sure].filter(Boolean).join(" ");
}

const itemOf = () => isTagging() ? itemEditor?.passages[0] : itemEditor?.row && itemEditor;

function drawItemButtons() {
  const item = itemOf();
  $("item-accept").querySelector("span").textContent = item?.edited ? "Save the fix" : "Right";
  $("item-undo").disabled = !itemEditor?.history.length;
}

async function judge(verdict, correction) {
  const item = queue.items[0], judged = itemOf();
  if (!item || !judged) return;
  const sent = correction ?? judged.correction(verdict === "accepted" && judged.edited ? "fixed" : verdict);
  queue.items.shift();
  queue.sending.add(item.text);
  queue.done += 1;
  queue.left -= 1;
  toolbar.close();
  showItem();
  if (queue.items.length < 5 && queue.left > queue.items.length) fetchQueue();
  for (;;) {
    try {
      const said = await save([sent]);
      if (!queue.retry) show($("item-saved"), said);
      break;
    } catch (error) { await waitForRetry(`Not saved: ${error.message}. `); }
  }
  queue.sending.delete(item.text);
}

// One button for all judgements that could not be saved.
function waitForRetry(message) {
  queue.retry ??= new Promise(done => { queue.resume = () => { queue.retry = null; done(); }; });
  show($("item-saved"), message, true);
  $("item-saved").append(element("button", {type: "button", onclick: () => queue.resume()}, "Try again"));
  return queue.retry;
}

function fixItem() {
  if (itemOf()?.edited) { judge("fixed"); return; }
  if (!isTagging()) { (itemEditor.host.querySelector("input[type=search]") ?? itemEditor.host.querySelector("input:checked, input"))?.focus(); return; }
  itemEditor.host.focus();
  itemEditor.step(1, itemOf().entities.length > 0);
}

function takeOther() {
  const other = isTagging() ? itemOther.passages[0] : itemOther, mine = itemOf();
  const sent = mine.correction("fixed");
  judge("fixed", {...sent, answer: other.correction("accepted").answer});
}

$("item-accept").addEventListener("click", () => judge("accepted"));
$("item-fix").addEventListener("click", fixItem);
$("item-skip").addEventListener("click", () => judge("skipped"));
$("item-undo").addEventListener("click", () => itemEditor.undo());
$("item-other-accept").addEventListener("click", takeOther);
$("by").addEventListener("change", openQueue);

document.addEventListener("keydown", event => {
  const typed = event.target.closest("input:not([type=radio], [type=checkbox]), textarea, select, dialog");
  if ($("review").hidden || $("item").hidden || typed || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const acts = {a: () => judge("accepted"), f: fixItem, s: () => judge("skipped"), u: () => itemEditor.undo(), o: () => !$("item-other-accept").hidden && takeOther()};
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});

$("add").addEventListener("click", async () => {
  const texts = $("more").value.split("\n").map(line => line.trim()).filter(Boolean);
  if (!texts.length) { show($("added"), "There is no text yet.", true); return; }
  show($("added"), "adding …");
  try {
    let added = 0;
    for (let at = 0; at < texts.length; at += 100) {
      show($("added"), `adding ${at} of ${texts.length} …`);
      added += (await ask("/queue", {texts: texts.slice(at, at + 100), model: model.name})).added;
    }
    $("more").value = "";
    show($("added"), `${plural(added, "text")} added${added < texts.length ? `, ${texts.length - added} ${texts.length - added === 1 ? "was" : "were"} there already` : ""}`);
    openQueue();
  } catch (error) { show($("added"), error.message, true); }
});

$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  if (!file) return;
  try {
    const texts = readTexts(file.name, await file.text());
    $("more").value = texts.map(text => text.replace(/\s*\n\s*/g, " ")).join("\n");
    show($("added"), `${plural(texts.length, "text")} read from ${file.name}; press Add`);
  } catch (error) { show($("added"), `${file.name}: ${error.message}`, true); }
  $("file").value = "";
});

function readTexts(name, content) {
  if (name.endsWith(".jsonl")) {
    return content.split("\n").filter(line => line.trim()).map((line, number) => {
      let row;
      try { row = JSON.parse(line); } catch { throw new Error(`line ${number + 1} is not JSON`); }
      if (typeof row === "string") return row;
      if (typeof row?.text !== "string") throw new Error(`line ${number + 1} has no "text"`);
      return row.text;
    });
  }
  if (!name.endsWith(".csv")) return content.split("\n").map(line => line.trim()).filter(Boolean);
  const [head, ...rows] = readTable(content), column = head?.indexOf("text") ?? -1;
  if (column < 0) throw new Error("the first line names no column text");
  return rows.map(row => row[column] ?? "").filter(text => text.trim());
}

function readTable(content) {
  const rows = [[]];
  for (const [, quoted, plain, end] of content.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end !== ",") rows.push([]);
  }
  return rows.filter(row => row.some(Boolean));
}

// Versions.

async function openVersions() {
  try {
    const found = await ask(`/versions?model=${encodeURIComponent(model.name)}`);
    drawVersions(found);
    await drawRecent(0);
  } catch (error) { show($("versions-note"), error.message, true); }
}

const agreementOf = counts => counts?.judged ? `${Math.round(100 * counts.accepted / counts.judged)} % (${counts.accepted} of ${counts.judged})` : "not judged yet";

function drawVersions({versions, agreement}) {
  const head = element("thead", {}, element("tr", {}, ...["Version", "Label", "Made (UTC)", "Agreement", ""].map(name => element("th", {scope: "col"}, name || element("span", {class: "unseen"}, "Action")))));
  const rows = [...versions].sort((a, b) => b.version - a.version).map(({version, labels, time}) => {
    const try_out = labels.length ? "" : element("button", {type: "button", onclick: () => promote(version, "canary", agreement)}, "Try out as canary");
    return element("tr", {}, ...[String(version), labels.join(", ") || "–", time?.replace("T", " ").slice(0, 16) ?? "", agreementOf(agreement[version]), try_out].map(cell => element("td", {}, cell)));
  });
  $("version-table").replaceChildren(head, element("tbody", {}, ...rows));
  const with_label = label => versions.find(each => each.labels.includes(label))?.version;
  const canary = with_label("canary"), stable = with_label("stable");
  $("promote").hidden = $("withdraw").hidden = canary === undefined;
  $("promote").textContent = `Make the canary (${canary}) stable`;
  $("promote").onclick = () => promote(canary, "stable", agreement, stable);
  $("withdraw").onclick = () => withdraw(canary, stable, agreement);
  $("rollback").hidden = versions.length < 2;
  $("rollback").onclick = () => rollBack(stable, agreement);
}

function askWhetherSure(title, text, button) {
  $("sure-title").textContent = title;
  $("sure-text").textContent = text;
  $("sure-ok").textContent = button;
  return askDialog($("sure-dialog"));
}

async function promote(version, label, agreement, stable) {
  const text = label === "canary" ? "Stable goes on answering by default." : `People agreed with version ${version}: ${agreementOf(agreement[version])}; with version ${stable}, which is stable now: ${agreementOf(agreement[stable])}.`;
  if (!await askWhetherSure(`Make version ${version} ${label}?`, text, `Make it ${label}`)) return;
  await changeVersions("/promote", {model: model.name, version, label}, `Version ${version} is ${label} now.`);
}

async function withdraw(canary, stable, agreement) {
  const text = `Version ${canary}: ${agreementOf(agreement[canary])}. Version ${stable} stays stable: ${agreementOf(agreement[stable])}.`;
  if (await askWhetherSure(`Take the canary ${canary} back?`, text, "Take it back")) await changeVersions("/rollback", {model: model.name, label: "canary"}, `Version ${canary} is no canary now.`);
}

async function rollBack(stable, agreement) {
  const text = `Version ${stable} (${agreementOf(agreement[stable])}) is stable no more, and the version that was stable before is stable again.`;
  if (await askWhetherSure("Roll back?", text, "Roll back")) await changeVersions("/rollback", {model: model.name}, "Rolled back.");
}

async function changeVersions(path, body, done) {
  try {
    await ask(path, {...body, author: $("author").value.trim()});
    await loadAbout();
    await openVersions();
    show($("versions-note"), done);
  } catch (error) { show($("versions-note"), error.message, true); }
}

async function drawRecent(offset) {
  const found = await ask(`/feedback?model=${encodeURIComponent(model.name)}&limit=10&offset=${offset}`);
  const lines = found.corrections.map(each => {
    const right = each.answer.entities?.map(({start, end, label}) => `${[...each.text].slice(start, end).join("")} (${label})`).join(", ") ?? each.answer.labels?.join(", ") ?? each.answer.label;
    const line = element("li", {}, element("div", {}, each.text.slice(0, 300), element("div", {class: "quiet"}, [each.verdict, right || (["accepted", "fixed"].includes(each.verdict) ? "nothing" : ""), each.author, `version ${each.version}`, each.time.replace("T", " ").slice(0, 16)].filter(Boolean).join(" · "))),
      element("button", {type: "button", "aria-label": `Delete: ${each.text.slice(0, 60)}`, onclick: async () => {
        if (!await askWhetherSure("Delete what was said about this text?", each.text.slice(0, 300), "Delete")) return;
        try { await ask("/feedback", {text: each.text}, "DELETE"); await drawRecent(0); }
        catch (error) { show($("versions-note"), error.message, true); }
      }}, "Delete"));
    return line;
  });
  if (offset) $("recent").append(...lines);
  else $("recent").replaceChildren(...lines);
  show($("stored-in"), `${found.count === 1 ? "1 entry" : `${found.count.toLocaleString("en")} entries`} in ${found.stored_in}; flagged and skipped texts count too`);
  $("recent-more").hidden = $("recent").children.length >= found.count;
  $("recent-more").onclick = () => drawRecent($("recent").children.length);
}

// The page as a whole.

const TABS = ["try", "review", "versions"];

function openTab(name, focus = false) {
  for (const each of TABS) {
    const tab = $(`tab-${each}`), is = each === name;
    $(each).hidden = !is;
    tab.setAttribute("aria-selected", String(is));
    tab.tabIndex = is ? 0 : -1;
    if (is && focus) tab.focus();
  }
  toolbar.close();
  if (model && name === "review") openQueue();
  if (model && name === "versions") openVersions();
  if (location.hash.slice(1) !== name) history.replaceState(null, "", `#${name}`);
}
for (const name of TABS) $(`tab-${name}`).addEventListener("click", () => openTab(name));
document.querySelector("[role=tablist]").addEventListener("keydown", event => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (step) openTab(TABS.at((TABS.findIndex(name => !$(name).hidden) + step) % TABS.length), true);
});

async function loadAbout() {
  const chosen = model?.name;
  about = await ask("/about");
  about.models ??= [{...about, name: about.model, versions: [], stable: null, canary: null}];
  $("model-choice").hidden = about.models.length < 2;
  $("model").replaceChildren(...about.models.map(each => element("option", {value: each.name}, `${each.name} · ${each.title}`)));
  chooseModel(chosen ?? about.models[0].name);
}

function chooseModel(name) {
  const before = model?.name;
  model = find(name) ?? about.models[0];
  model.types = isTagging() ? typesOf(model.labels) : model.labels;
  $("model").value = model.name;
  document.title = document.querySelector("h1").textContent = model.title;
  $("answer-title").textContent = {tagging: "Entities", classification: "Labels"}[model.task] ?? "Answer";
  for (const node of document.querySelectorAll("[data-for]")) node.hidden = node.dataset.for !== model.task;
  const [version, other] = [$("version").value, $("other").value], option = (value, text) => element("option", {value}, text);
  $("version").replaceChildren(option("", "default"), ...model.versions.map(number => option(String(number), nameOfVersion(model, number))));
  $("second-text").hidden = !model.pairs;
  $("version-choice").hidden = model.versions.length < 2;
  const peers = about.models.filter(each => each.task === model.task).flatMap(each => each.versions.map(number => [each, number]));
  $("other").replaceChildren(option("", "nothing"), ...peers.map(([each, number]) => option(JSON.stringify([each.name, String(number)]), `${about.models.length > 1 ? `${each.name} ` : ""}${nameOfVersion(each, number)}`)));
  $("other-choice").hidden = peers.length < 2;
  if (before === model.name) {  // versions changed
    for (const [select, value] of [[$("version"), version], [$("other"), other]]) if ([...select.options].some(each => each.value === value)) select.value = value;
    kept.clear();
    forget();
  } else {
    const Editor = {tagging: SpanEditor, classification: LabelChooser}[model.task] ?? PlainAnswer;
    tryEditor = new Editor($("result"), {changed});
    tryOther = new Editor($("other-result"), {fixed: true});
    itemEditor = new Editor($("item-result"), {changed: drawItemButtons});
    itemOther = new Editor($("item-other"), {fixed: true});
    drawLegend($("legend"));
    if (!$("text").value || Object.values(EXAMPLES).includes($("text").value) || about.models.some(each => each.sample_text === $("text").value)) $("text").value = model.sample_text;
  }
  drawSides();
  changeText();
}

$("model").addEventListener("change", async () => {
  const lost = changedPassages().length && !await askWhetherSure("Leave without saving?", "What you corrected is not saved yet.", "Leave");
  if (lost) { $("model").value = model.name; return; }
  chooseModel($("model").value);
  openTab(TABS.find(name => !$(name).hidden));
});

for (const [name, text] of Object.entries(EXAMPLES)) {
  $("examples").append(element("button", {type: "button", onclick: () => { $("text").value = text; changeText(); }}, name));
}

loadAbout().then(() => openTab(TABS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "try"))
  .catch(error => show($("note"), error.message, true));
