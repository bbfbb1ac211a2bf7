// The board of the patch inspector. Python, or a page with JSON in it, says what the puzzle is and what each model
// believes of it, once; everything that is pointed at, placed or opened after that is answered here.

export const letter = (place) => String.fromCharCode(65 + (place % 26)) + (place >= 26 ? Math.floor(place / 26) : "");
export const percent = (share) => `${Math.round(100 * share)}%`;
const largest = (values) => values.indexOf(Math.max(...values));
const many = (count, one) => `${count} ${one}${count === 1 ? "" : one.endsWith("ch") ? "es" : "s"}`;

// Attention comes as 16-bit numbers: (1 + blocks, 1 + heads, rows, visible), each first one the mean of the others.
export function unpack(attention) {
  if (!attention) return null;
  const bytes = Uint8Array.from(atob(attention.weights), (char) => char.charCodeAt(0));
  const [blocks, heads, rows, seen] = attention.shape;
  const all = new Uint16Array(bytes.buffer);
  const of = (block, head, row) => {
    const start = ((block * heads + head) * rows + row) * seen;
    return Array.from(all.subarray(start, start + seen), (value) => value / 65535);
  };
  return { blocks, heads, rows, of };
}

// Playing. `placed` says which candidate lies at a location; a candidate lies at one place only.
export const begin = (puzzle, score) => ({ id: puzzle.id, placed: {}, checked: false, peeked: false, score: score ?? {} });

export function place(play, location, candidate) {
  if (play.checked) return play;
  const kept = Object.entries(play.placed).filter(([at, lies]) => lies !== candidate && Number(at) !== location);
  return { ...play, placed: Object.fromEntries(candidate === null ? kept : [...kept, [location, candidate]]) };
}

export const left = (puzzle, play) => puzzle.masked.filter((at) => !(at in play.placed));
export const right = (puzzle, play) => puzzle.masked.filter((at, row) => play.placed[at] === row).length;

export function check(puzzle, play, models) {
  if (play.checked || left(puzzle, play).length) return play;
  const score = structuredClone(play.score);
  const add = (name, value) => (score[name] = (score[name] ?? 0) + value);
  if (!play.peeked) {
    add("rounds", 1), add("patches", puzzle.masked.length), add("you", right(puzzle, play));
    score.models ??= {};
    for (const { name, right_once } of models) score.models[name] = (score.models[name] ?? 0) + right_once;
  }
  return { ...play, checked: true, score };
}

// What to do next, in one sentence or two.
export function hint(puzzle, play, view, tried) {
  const count = puzzle.masked.length, open = left(puzzle, play).length;
  if (view !== "play") {
    if (!tried.has("hole")) return "Point at a hole: the bars say how likely each patch is there, the light where the model looks.";
    if (!tried.has("candidate")) return "Now point at a patch below the image: where would the model put it?";
    if (!tried.has("puzzle")) return "Next: “whole puzzle” puts all patches in, with and without using one twice.";
    if (!tried.has("attention")) return "Next: “attention” shows every block and head at once; press one to lay it over the image.";
    return "Try other images, more holes or a second model: open the line below.";
  }
  if (play.checked) {
    const all = right(puzzle, play) === count;
    return `${all ? "All right!" : `${right(puzzle, play)} of ${count} right.`} Take the next puzzle, or see what the model believes.`;
  }
  if (!open) return "All are placed. Check, or move some first.";
  if (open < count) return `${many(open, "patch")} to go. The next goes into the framed hole.`;
  const what = count === 1 ? "One patch of this image is" : `${count} patches of this image are`;
  return `${what} cut out. Put them back: drag each to its hole, or press one to put it into the framed hole.`;
}

// The score over rounds, in words.
export function told({ score, peeked }) {
  if (peeked) return "You had looked first, so this round does not count.";
  const models = Object.entries(score.models).map(([name, value]) => `${name} ${value}`).join(", ");
  return `So far, ${many(score.patches, "patch")} in ${many(score.rounds, "round")}: you ${score.you}, ${models}, guessing ${score.rounds}.`;
}

// Where a token looks, in words.
export function gaze(visible, weights, who) {
  const best = weights.map((value, i) => [value, visible[i]]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const list = best.map(([value, at]) => `${at} (${percent(value)})`).join(", ");
  const even = weights.reduce((sum, value) => sum + value, 0) / weights.length;
  return `${who} looks most at ${best.length > 1 ? "locations" : "location"} ${list}; an even share is ${percent(even)}.`;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const button = (text, click, kind = "") => make("button", { type: "button", class: kind, click }, text);
const write = (element, text) => element.textContent === text || (element.textContent = text); // a live region is quiet
const show = (element, shown) => !(element.hidden = !shown);

// The same patch as a background, whatever the element's size.
function patch(element, puzzle, at) {
  const side = puzzle.side, part = (n) => (side > 1 ? (100 * n) / (side - 1) : 0);
  element.style.backgroundImage = at === null ? "" : `url(${puzzle.image})`;
  element.style.backgroundSize = at === null ? "" : `${100 * side}%`;
  element.style.backgroundPosition = at === null ? "" : `${part(at % side)}% ${part(Math.floor(at / side))}%`;
  element.classList.toggle("hole", at === null);
}

const VIEWS = { guess: "one hole", puzzle: "whole puzzle", matrix: "matrix", attention: "attention" };

class Board {
  constructor(model, el) {
    this.model = model;
    this.tried = new Set();
    this.pointed = {}; // what the mouse or the focus is at: {hole} or {candidate}, before what is chosen
    this.candidate = null; // the candidate that is asked about: the columns
    this.changing = false; // pressing a patch hides or shows it
    this.build(el);
    this.listen();
    this.read();
  }

  // From Python

  listen() {
    const names = ["puzzle", "first", "second", "chosen", "lists", "shown", "lines", "message", "turn"];
    this.heard = () => (this.reading ??= requestAnimationFrame(() => this.read())); // one reading of all that changes
    for (const name of names) this.model.on(`change:${name}`, this.heard);
    this.model.on("msg:custom", (this.saved = ({ save }, buffers) => save && download(save, buffers[0])));
  }

  close() {
    cancelAnimationFrame(this.reading), this.model.off(null, this.heard), this.model.off("msg:custom", this.saved);
  }

  read() {
    this.reading = undefined;
    const get = (name) => this.model.get(name);
    const [first, second] = [get("first"), get("second")];
    this.puzzle = get("puzzle");
    const hidden = new Set(this.puzzle.masked);
    this.visible = [...Array(this.puzzle.side ** 2).keys()].filter((at) => !hidden.has(at));
    if (first !== this.first || second !== this.second) {
      [this.first, this.second] = [first, second];
      this.models = [first, second].filter((one) => one.name).map((one) => ({ ...one, gaze: unpack(one.attention) }));
    }
    this.shown = { ...get("shown") };
    if (!hidden.has(this.shown.location)) this.shown.location = this.puzzle.masked[0];
    const played = get("played");
    this.play = played.id === this.puzzle.id ? played : begin(this.puzzle, played.score);
    if (played.id !== this.puzzle.id) this.candidate = null;
    this.answered();
    this.fill();
    this.paint();
  }

  // To Python. While an answer is awaited only the last wish is kept, so that dragging a slider leaves no queue.

  ask(message, buffers) {
    if (this.waiting !== undefined) return void (this.wish = [message, buffers]);
    this.waiting = this.model.get("turn");
    this.model.send(message, undefined, buffers);
  }

  answered() {
    if (this.waiting === undefined || this.model.get("turn") === this.waiting) return;
    this.waiting = undefined;
    const wish = this.wish;
    this.wish = undefined;
    if (wish) this.ask(...wish);
  }

  tell(name, value) { // of `shown` and `played`, which are the board's own
    this[name === "played" ? "play" : name] = value;
    this.model.set(name, value);
    this.model.save_changes();
  }

  look(changes) {
    this.tell("shown", { ...this.shown, ...changes });
    this.paint();
  }

  get playing() { return this.shown.view === "play"; }

  // What a person does

  open(view) {
    this.tried.add(view);
    if (!this.play.checked) this.tell("played", { ...this.play, peeked: true });
    this.look({ view });
  }

  put(location, candidate) {
    this.tell("played", place(this.play, location, candidate));
    const open = left(this.puzzle, this.play);
    this.look({ location: candidate !== null && open.length ? open[0] : location });
  }

  press(at) {
    if (this.dragged) return;
    if (this.changing) return this.ask({ do: ["toggle", at] });
    this.candidate = null;
    this.tried.add("hole");
    this.look({ location: at });
  }

  pick(candidate) {
    if (this.dragged) return;
    if (this.playing) return this.put(this.shown.location, candidate);
    this.candidate = this.candidate === candidate ? null : candidate;
    this.tried.add("candidate");
    this.paint();
  }

  point(pointed) {
    if (this.playing) return;
    this.pointed = pointed;
    Object.keys(pointed).forEach((name) => this.tried.add(name));
    this.paint();
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select, textarea, summary")) return;
    const group = event.target.closest(".patches, .candidates");
    const candidate = this.puzzle.order[[...this.puzzle.order.keys()].findIndex((k) => letter(k) === event.key.toUpperCase())];
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (step && group) {
      const all = [...group.querySelectorAll("button:enabled")], now = all.indexOf(event.target);
      all[(now + step + all.length) % all.length].focus();
    } else if (candidate !== undefined && group) {
      this.pick(candidate);
    } else if (["Backspace", "Delete"].includes(event.key) && this.playing && group) {
      this.put(this.shown.location, null);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  drag(event, seen, candidate) {
    if (!this.playing || this.play.checked || candidate === undefined || event.button) return;
    const ended = new AbortController(), origin = event.currentTarget.dataset.at;
    const on = (name, act) => document.addEventListener(name, act, { signal: ended.signal });
    let ghost = null, over = null;
    on("pointermove", ({ clientX, clientY }) => {
      if (!ghost) {
        if (Math.hypot(clientX - event.clientX, clientY - event.clientY) < 6) return;
        const size = `${seen.getBoundingClientRect().width}px`;
        ghost = this.root.appendChild(make("div", { class: "ghost", style: `width: ${size}; height: ${size}` }));
        patch(ghost, this.puzzle, this.puzzle.masked[candidate]);
      }
      ghost.style.left = `${clientX - ghost.offsetWidth / 2}px`;
      ghost.style.top = `${clientY - ghost.offsetHeight / 2}px`;
      over?.classList.remove("over");
      over = this.root.getRootNode().elementFromPoint(clientX, clientY)?.closest?.(".cell:enabled");
      over?.classList.add("over");
    });
    const end = ({ type }) => {
      ended.abort();
      over?.classList.remove("over");
      if (!ghost) return;
      ghost.remove();
      this.dragged = true; // a click may follow, which means nothing
      setTimeout(() => (this.dragged = false));
      if (type === "pointerup" && over) this.put(Number(over.dataset.at), candidate);
      else if (type === "pointerup" && origin !== undefined) this.put(Number(origin), null);
    };
    on("pointerup", end), on("pointercancel", end);
  }

  // Elements: made once, and again where their number changes

  build(el) {
    const p = (kind, role) => make("p", { class: kind, role });
    [this.hint, this.message, this.panels] = [p("hint", "status"), p("message", "alert"), make("div", { class: "panels" })];
    this.check = button("check", () => this.paint(this.tell("played", check(this.puzzle, this.play, this.models))));
    this.next = button("next puzzle", () => this.ask({ do: ["next_puzzle"] }), "next");
    this.believes = button("see what the model believes", () => this.open(this.playing ? "guess" : "play"));
    this.result = make("div", { class: "result", role: "status" });
    this.tabs = make("div", { class: "tabs", role: "group", "aria-label": "What to see" });
    for (const [view, words] of Object.entries(VIEWS)) this.tabs.append(button(words, () => this.open(view), view));
    this.step = make("input", { type: "range", min: 0, input: () => this.ask({ set: ["step", this.lists.steps[this.step.value]] }) });
    this.steps = make("label", { class: "steps" }, "after step ", this.step, (this.stepNow = make("output")));
    const actions = make("div", { class: "actions" }, this.check, this.next, this.believes);
    this.choose = make("details", { class: "choose" }, (this.summary = make("summary")), this.controls());
    this.lines = make("textarea", { readonly: true, rows: 3, spellcheck: "false", "aria-label": "Python that opens this view" });
    const save = this.model.still ? null : button("save as PNG", () => this.ask({ save: true }));
    const take = make("details", { class: "take" }, make("summary", {}, "take this view away"), this.lines, save);
    const parts = [this.hint, this.message, this.tabs, this.steps, this.panels, make("div", { class: "aside" }, this.result, actions), this.choose, take];
    this.root = make("div", { class: "selfie-board", role: "region", "aria-label": "Patch inspector", "data-lm-suppress-shortcuts": "true" }, ...parts);
    this.root.addEventListener("keydown", (event) => this.key(event));
    el.append(this.root);
  }

  controls() {
    const set = (name, read) => (event) => this.ask({ set: [name, read(event.target)] });
    const text = ({ value }) => value || null, number = ({ value }) => Number(value);
    const kinds = {
      data: ["images", "select", text], image_class: ["class", "select", text], image_number: ["image number", "number", number],
      num_masked: ["patches hidden", "range", number], seed: ["seed of the holes", "number", number],
      model: ["model", "select", text], compare: ["compare with", "select", text],
    };
    this.inputs = {};
    const labels = Object.entries(kinds).map(([name, [words, kind, read]]) => {
      const input = make(kind === "select" ? "select" : "input", { "aria-label": words, ...(kind === "select" ? {} : { type: kind, min: 0 }) });
      input.addEventListener(kind === "range" ? "input" : "change", set(name, read));
      this.inputs[name] = input;
      return make("label", { class: name }, words, input);
    });
    const file = make("input", { type: "file", accept: "image/*", change: () => this.upload(file) });
    this.hand = button("choose the holes by hand", () => this.paint((this.changing = !this.changing)));
    const random = button("random image", () => this.ask({ do: ["random_image"] }));
    this.crop = make("figure", { class: "crop" });
    const own = this.model.still ? [] : [make("label", {}, "an image of your own", file), random, this.hand];
    return make("div", { class: "controls" }, ...labels, ...own, this.crop);
  }

  async upload(input) {
    const [file] = input.files;
    if (!file) return;
    const buffer = await smaller(file);
    input.value = "";
    this.ask({ upload: file.name }, [buffer]);
  }

  fill() {
    const { puzzle, models } = this, signature = [puzzle.side, puzzle.masked.length, models.length].join();
    if (signature !== this.signature) {
      this.signature = signature;
      this.parts = [0, 1].slice(0, models.length).map((number) => this.panel(number));
      this.panels.replaceChildren(...this.parts.map((part) => part.panel));
    }
    this.lists = this.model.get("lists");
    const chosen = this.model.get("chosen");
    const { data = [], model, classes = [], images, patches = 0, seeds = 0, steps = [] } = this.lists;
    const fit = (name, list, none) => options(this.inputs[name], list, none, chosen[name]);
    fit("data", data), fit("image_class", classes, "any"), fit("model", model), fit("compare", model, "nothing");
    for (const [name, most] of [["image_number", images - 1], ["num_masked", patches], ["seed", seeds]]) {
      Object.assign(this.inputs[name], { max: most, value: chosen[name] ?? 0, min: name === "num_masked" ? 1 : 0 });
      show(this.inputs[name].parentElement, most > 0);
    }
    show(this.steps, steps.length > 1);
    Object.assign(this.step, { max: steps.length - 1, value: steps.indexOf(chosen.step) });
    write(this.stepNow, `${chosen.step}`);
    const named = models.map((one) => one.name).join(" and ");
    write(this.summary, `${puzzle.title}; ${many(puzzle.masked.length, "patch")} of ${puzzle.side ** 2} hidden; model${models.length > 1 ? "s" : ""}: ${named}`);
    cropped(this.crop, puzzle.crop);
    this.lines.value = this.model.get("lines");
    const message = this.model.get("message");
    write(this.message, message), show(this.message, message);
  }

  panel(number) {
    const { puzzle } = this, cells = [], bars = [];
    const enter = (what) => ({ pointerenter: () => this.point(what()), pointerleave: () => this.point({}) });
    for (let at = 0; at < puzzle.side ** 2; at++) {
      const focus = () => !this.changing && this.shown.location !== at && this.puzzle.masked.includes(at) && this.press(at);
      const cell = make("button", { type: "button", class: "cell", "data-at": at, click: () => this.press(at), focus, ...enter(() => ({ hole: at })) });
      cell.addEventListener("pointerdown", (event) => this.drag(event, cell, this.play.placed[at]));
      cell.append(make("span", { class: "level" }), make("span", { class: "text" }));
      cells.push(cell);
    }
    puzzle.order.forEach((_, k) => {
      const candidate = () => this.puzzle.order[k];
      const bar = make("button", { type: "button", class: "candidate", click: () => this.pick(candidate()), ...enter(() => ({ candidate: candidate() })) });
      bar.append(make("span", { class: "share" }), make("span", { class: "track" }, make("span", { class: "bar" })));
      bar.append(make("span", { class: "patch" }), make("span", { class: "letter" }));
      bar.addEventListener("focus", () => bar.matches(":focus-visible") && this.point({ candidate: candidate() }));
      bar.addEventListener("blur", ({ relatedTarget }) => relatedTarget?.closest(".candidate") || this.point({}));
      bar.addEventListener("pointerdown", (event) => this.drag(event, bar.querySelector(".patch"), candidate()));
      bars.push(bar);
    });
    const patches = make("div", { class: "patches", role: "group", "aria-label": "The image, in patches", style: `--side: ${puzzle.side}` }, ...cells);
    const candidates = make("div", { class: "candidates", role: "group", "aria-label": "The hidden patches, shuffled", style: `--columns: ${Math.min(bars.length, 6)}` }, ...bars);
    const name = make("p", { class: "name" }), words = make("p", { class: "words", role: "status" }), extra = make("div", { class: "extra" });
    const board = make("div", { class: "with-candidates" }, patches, candidates, words);
    return { panel: make("section", { class: `panel model-${number}` }, name, board, extra), name, cells, bars, words, extra };
  }

  // Painting: the whole board from what is known now, without a question to anyone

  paint() {
    const { puzzle, play, models, shown } = this, playing = this.playing, open = left(puzzle, play);
    this.root.classList.toggle("playing", playing);
    this.root.classList.toggle("changing", this.changing);
    write(this.hint, this.changing ? "Press a patch to hide it, or a hole to show it." : hint(puzzle, play, shown.view, this.tried));
    this.parts.forEach((part, number) => {
      show(part.panel, !playing || number === 0);
      show(part.name, !playing);
      write(part.name, models[number].name);
      if (playing) number || this.paintPlay(part);
      else this.paintBeliefs(part, models[number]);
    });
    show(this.check, playing && !play.checked);
    this.check.disabled = open.length > 0;
    this.check.classList.toggle("first", playing && !open.length && !play.checked);
    this.next.classList.toggle("first", playing && play.checked);
    write(this.believes, playing ? `see what the model${models.length > 1 ? "s believe" : " believes"}` : "back to the puzzle");
    show(this.tabs, !playing);
    for (const tab of this.tabs.children) {
      tab.setAttribute("aria-pressed", tab.classList.contains(shown.view));
      if (tab.classList.contains("attention")) show(tab, models.some((model) => model.gaze));
    }
    this.hand?.setAttribute("aria-pressed", this.changing);
    show(this.result, playing && play.checked);
    if (!this.result.hidden) this.paintResult();
  }

  paintPlay({ cells, bars, words, extra }) {
    const { puzzle, play, shown } = this;
    extra.replaceChildren();
    const placeOf = (candidate) => letter(puzzle.order.indexOf(candidate));
    cells.forEach((cell, at) => {
      const row = puzzle.masked.indexOf(at), lies = play.placed[at], hole = row >= 0;
      const mark = play.checked && hole ? (lies === row ? "✓" : "✗") : "";
      patch(cell, puzzle, hole ? (lies === undefined ? null : puzzle.masked[lies]) : at);
      cell.disabled = !hole && !this.changing;
      cell.className = `cell ${cell.classList.contains("hole") ? "hole" : ""} ${hole ? "hidden" : ""} ${hole && at === shown.location && !play.checked ? "asked" : ""} ${mark && (mark === "✓" ? "right" : "wrong")}`;
      cell.style.setProperty("--dark", 0), cell.style.setProperty("--level", 0);
      write(cell.lastChild, mark || (hole && lies === undefined ? "?" : ""));
      const said = lies === undefined ? "empty" : `patch ${placeOf(lies)}${{ "✓": ", right", "✗": ", wrong" }[mark] ?? ""}`;
      cell.setAttribute("aria-label", hole ? `hole at location ${at}: ${said}` : `location ${at}, visible`);
    });
    const lying = new Set(Object.values(play.placed));
    bars.forEach((bar, k) => {
      const candidate = puzzle.order[k];
      patch(bar.querySelector(".patch"), puzzle, puzzle.masked[candidate]);
      bar.className = `candidate ${lying.has(candidate) ? "placed" : ""}`;
      bar.disabled = play.checked;
      write(bar.lastChild, letter(k));
      bar.setAttribute("aria-label", `patch ${letter(k)}${lying.has(candidate) ? ", placed" : `: put it at location ${shown.location}`}`);
      bar.removeAttribute("aria-pressed");
    });
    write(words, "");
  }

  paintBeliefs({ cells, bars, words, extra }, model) {
    const { puzzle, shown } = this, { probabilities } = model;
    const candidate = this.pointed.candidate ?? (this.pointed.hole === undefined ? this.candidate : null);
    const location = puzzle.masked.includes(this.pointed.hole) ? this.pointed.hole : shown.location;
    const row = puzzle.masked.indexOf(location), column = candidate === null ? null : probabilities.map((chances) => chances[candidate]);
    const light = column ? null : this.gazeOf(model, row), top = light && Math.max(...light.weights, 1e-9);
    cells.forEach((cell, at) => {
      const here = puzzle.masked.indexOf(at), hole = here >= 0;
      patch(cell, puzzle, hole ? null : at);
      cell.disabled = !hole && !this.changing;
      cell.className = `cell ${hole ? "hole hidden" : ""} ${hole && !column && at === location ? "asked" : ""} ${hole && column && here === largest(column) ? "most" : ""}`;
      cell.style.setProperty("--dark", light && !hole ? 0.8 * (1 - light.weights[this.visible.indexOf(at)] / top) : 0);
      cell.style.setProperty("--level", hole && column ? column[here] : 0);
      write(cell.lastChild, !hole ? "" : column ? percent(column[here]) : `${at}`);
      cell.setAttribute("aria-label", hole ? `hole at location ${at}` : `location ${at}, visible`);
    });
    bars.forEach((bar, k) => {
      const one = puzzle.order[k], chance = probabilities[row][one], chosen = !column && one === model.choices[row];
      patch(bar.querySelector(".patch"), puzzle, puzzle.masked[one]);
      bar.className = `candidate ${chosen ? "choice" : ""} ${!column && one === row ? "truth" : ""} ${one === candidate ? "asked" : ""}`;
      bar.disabled = false;
      bar.querySelector(".bar").style.transform = `scaleY(${column ? 0 : chance})`;
      write(bar.firstChild, column ? "" : `${chosen ? "▼ " : ""}${percent(chance)}`);
      write(bar.lastChild, `${letter(k)}${!column && one === row ? " ✓" : ""}`);
      bar.setAttribute("aria-label", `patch ${letter(k)}, ${percent(chance)} at location ${location}`);
      bar.setAttribute("aria-pressed", one === candidate);
    });
    const where = column && puzzle.masked[largest(column)];
    const columnWords = column && `Patch ${letter(puzzle.order.indexOf(candidate))} is likeliest at location ${where}, with ${percent(Math.max(...column))}; it belongs at ${puzzle.masked[candidate]}.`;
    write(words, columnWords ?? { guess: model.words.guess[row], attention: light?.words ?? model.words.guess[row] }[shown.view] ?? model.words[shown.view]);
    const key = [shown.view, puzzle.id, model.name, this.model.get("turn"), shown.view === "attention" ? [model.gaze?.rows > 1 && row, shown.block, shown.head] : "", this.first === model].join();
    if (extra.dataset.key !== key) (this[`draw_${shown.view}`] ?? (() => extra.replaceChildren())).call(this, extra, model, row);
    extra.dataset.key = key;
    if (shown.view === "matrix") for (const line of extra.querySelectorAll("tbody tr")) line.classList.toggle("asked", Number(line.dataset.row) === row);
  }

  gazeOf(model, row) {
    if (!model.gaze) return null;
    const own = model.gaze.rows > 1, { block, head } = this.shown, { blocks, heads } = model.gaze;
    const [b, h] = [block === null || block + 1 >= blocks ? 0 : block + 1, head === null || head + 1 >= heads ? 0 : head + 1];
    const where = [b ? `In block ${block}` : "Over all blocks", h ? `head ${head}` : "all heads"].join(", ");
    const who = own ? `the mask token of location ${this.puzzle.masked[row]}` : "u0, whatever is asked,";
    const weights = model.gaze.of(b, h, own ? 1 + row : 0);
    return { weights, words: gaze(this.visible, weights, `${where}, ${who}`) };
  }

  draw_puzzle(extra, model) {
    const both = [
      ["each hole by itself", model.choices, model.right],
      ["each patch once", model.assigned, model.right_once],
    ];
    extra.replaceChildren(...both.map(([words, choices, hits]) => {
      const said = `${words}: ${hits} of ${choices.length} right`;
      const cells = Array.from({ length: this.puzzle.side ** 2 }, (_, at) => {
        const row = this.puzzle.masked.indexOf(at), cell = make("span", { class: row < 0 ? "" : choices[row] === row ? "right" : "wrong" });
        patch(cell, this.puzzle, row < 0 ? at : this.puzzle.masked[choices[row]]);
        if (row >= 0) cell.textContent = choices[row] === row ? "✓" : "✗";
        return cell;
      });
      const small = make("div", { class: "small", role: "img", "aria-label": said, style: `--side: ${this.puzzle.side}` }, ...cells);
      return make("figure", {}, small, make("figcaption", {}, said));
    }));
  }

  draw_matrix(extra, model) {
    const { masked, order } = this.puzzle, names = masked.map((_, k) => letter(order.indexOf(k))), few = masked.length <= 6;
    const head = make("tr", {}, make("td"), ...names.map((name) => make("th", { scope: "col" }, name)));
    const rows = masked.map((at, row) => {
      const cells = model.probabilities[row].map((chance, k) => {
        const kind = `${k === row ? "truth" : ""} ${k === model.choices[row] ? "choice" : ""}`;
        const square = make("span", { class: "square", style: `--size: ${Math.sqrt(chance)}` });
        const number = make("span", { class: few ? "number" : "unseen" }, percent(chance));
        return make("td", { class: kind, title: `${names[k]} at ${at}: ${percent(chance)}` }, square, number);
      });
      const line = make("tr", { "data-row": row, pointerenter: () => this.point({ hole: at }), pointerleave: () => this.point({}) });
      line.append(make("th", { scope: "row" }, `${at}`), ...cells);
      return line;
    });
    const caption = make("caption", {}, "a row each hole, a column each patch, by where it belongs; framed: right; dark: the model's choice");
    extra.replaceChildren(make("table", {}, caption, make("thead", {}, head), make("tbody", {}, ...rows)));
  }

  draw_attention(extra, model, row) {
    if (!model.gaze) return extra.replaceChildren(make("p", {}, "It has no attention: it pools by mean or max, or not at all."));
    const { blocks, heads, rows } = model.gaze, { block, head } = this.shown;
    const url = sheet(this.puzzle.side, this.visible, model.gaze, rows > 1 ? 1 + row : 0);
    const lines = Array.from({ length: blocks }, (_, b) => {
      const maps = Array.from({ length: heads }, (_, h) => {
        const name = `${b ? `block ${b - 1}` : "mean of blocks"}, ${h ? `head ${h - 1}` : "mean of heads"}`;
        const now = (block ?? -1) + 1 === b && (head ?? -1) + 1 === h;
        const press = () => {
          this.look({ block: b ? b - 1 : null, head: h ? h - 1 : null });
          extra.querySelectorAll("button")[b * heads + h].focus(); // it has been drawn anew
        };
        const style = `background: var(--hole) url(${url}) ${(100 * h) / (heads - 1)}% ${(100 * b) / (blocks - 1)}% / ${100 * heads}% ${100 * blocks}%`;
        return make("button", { type: "button", "aria-label": name, title: name, "aria-pressed": now, click: press, style });
      });
      return make("div", { class: "maps" }, make("span", {}, b ? `block ${b - 1}` : "mean"), make("div", {}, ...maps));
    });
    extra.replaceChildren(...lines, make("p", { class: "note" }, "first the mean of the heads, then every head; press one to lay it over the image"));
  }

  paintResult() {
    const { puzzle, play, models } = this, count = puzzle.masked.length;
    const rows = [["you", right(puzzle, play)], ...models.map((model) => [model.name, model.right_once]), ["guessing", 1]];
    const lines = rows.map(([name, hits], i) => make("div", { class: `line line-${i}` }, make("span", {}, name),
      make("span", { class: "track" }, make("span", { class: "bar", style: `transform: scaleX(${hits / count})` })),
      make("span", {}, `${hits} of ${count}`)));
    const note = make("p", { class: "note" }, "Here the models use each patch once, as you do. Guessing: on average.");
    this.result.replaceChildren(...lines, make("p", {}, told(play)), note);
  }
}

function options(select, list, none, value) {
  const wanted = [...(none ? [["", none]] : []), ...list.map((name) => [name, name])], signature = JSON.stringify(wanted);
  if (select.dataset.list !== signature) select.replaceChildren(...wanted.map(([key, words]) => make("option", { value: key }, words)));
  select.dataset.list = signature;
  select.value = value ?? "";
  show(select.parentElement, list.length > 1 || (none && list.length));
}

function cropped(figure, crop) {
  if (!show(figure, crop)) return;
  const frame = make("span", { style: `left: ${crop.left}%; top: ${crop.top}%; width: ${crop.width}%; height: ${crop.height}%` });
  figure.replaceChildren(make("div", {}, make("img", { src: crop.image, alt: "the whole image" }), frame), make("figcaption", {}, crop.words));
}

// Every block (rows) and head (columns) in one picture: dark blue to yellow over the visible patches, holes left clear.
function sheet(side, visible, { blocks, heads, of }, row) {
  const canvas = make("canvas", { width: heads * side, height: blocks * side }), context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  for (let map = 0; map < blocks * heads; map++) {
    const weights = of(Math.floor(map / heads), map % heads, row), top = Math.max(...weights, 1e-9);
    const corner = Math.floor(map / heads) * side * canvas.width + (map % heads) * side;
    const pixel = (at) => 4 * (corner + Math.floor(at / side) * canvas.width + (at % side));
    visible.forEach((at, i) => pixels.data.set([255, 232, 68, 255].map((to, k) => to * (weights[i] / top) + [0, 32, 78, 255][k] * (1 - weights[i] / top)), pixel(at)));
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
}

// Files beyond what a socket of Jupyter carries are shrunk here, where the browser can read them.
async function smaller(file, most = 8e6, side = 2048) {
  if (file.size <= most) return file.arrayBuffer();
  try {
    const bitmap = await createImageBitmap(file), scale = Math.min(1, side / Math.min(bitmap.width, bitmap.height));
    const canvas = new OffscreenCanvas(bitmap.width * scale, bitmap.height * scale);
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return (await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 })).arrayBuffer();
  } catch {
    return new ArrayBuffer(0); // Python says that it cannot be read
  }
}

function download(name, bytes) {
  const link = make("a", { href: URL.createObjectURL(new Blob([bytes], { type: "image/png" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function render({ model, el }) {
  const board = new Board(model, el);
  return () => board.close();
}

export default { render };
