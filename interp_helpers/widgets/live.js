// The view of patches while somebody types, for a notebook (anywidget) and for the live page alike.
//
// liveMap(root, choices, ask) draws the form into `root` and returns show(state). `ask` is called with what is wanted:
// {base, source, component, metric, words, cell, map}; a state is what sweeps/live.py tells of.

const LOOK = `
.glassbox-live { --gb-line: color-mix(in srgb, currentColor 45%, transparent); color: inherit; line-height: 1.5; max-width: 100%; }
.glassbox-live * { box-sizing: border-box; }
.glassbox-live label { display: block; font-weight: 600; font-size: .9em; flex: 1 1 9em; min-width: 0; }
.glassbox-live input, .glassbox-live select { display: block; width: 100%; font: inherit; font-weight: 400; color: inherit; background: transparent;
  border: 1px solid var(--gb-line); border-radius: .35em; padding: .35em .5em; margin: .2em 0 0; min-height: 2.4em; }
.glassbox-live select option { color: CanvasText; background: Canvas; }
.glassbox-live :focus-visible { outline: 3px solid #0a63b5; outline-offset: 1px; }
.glassbox-live .row { display: flex; flex-wrap: wrap; gap: .5em 1em; margin: 0 0 .6em; }
.glassbox-live .prompts { flex-direction: column; } .glassbox-live .prompts input { font-size: 1.15em; }
.glassbox-live .prompts label { flex-basis: auto; }
.glassbox-live p { margin: .5em 0; }
.glassbox-live .problem { border-left: 4px solid #c1121f; padding: .3em .8em; font-weight: 500; }
.glassbox-live .problem:empty { border: 0; padding: 0; margin: 0; }
.glassbox-live .scroll { overflow-x: auto; padding: 3px; }
.glassbox-live table { border-collapse: collapse; font-variant-numeric: tabular-nums; color: inherit; }
.glassbox-live th, .glassbox-live td { background: transparent; }
.glassbox-live .map th[scope=row] { text-align: right; font-weight: 400; padding: 0 .6em 0 0; white-space: pre; font-family: monospace; border: 0; }
.glassbox-live .map td { min-width: 1.75em; height: 1.75em; padding: 0; text-align: center; font-size: .78em; cursor: pointer;
  border: 1px solid color-mix(in srgb, currentColor 16%, transparent); }
.glassbox-live .map tfoot td { cursor: default; border: 0; }
.glassbox-live .map td.open { cursor: default; background: repeating-linear-gradient(135deg, transparent 0 4px, color-mix(in srgb, currentColor 14%, transparent) 4px 5px); }
.glassbox-live .map td.chosen { outline: 3px solid #e69f00; outline-offset: -2px; }
.glassbox-live .map td:focus-visible { outline: 3px solid #0a63b5; outline-offset: -1px; }
.glassbox-live .old { opacity: .35; }
.glassbox-live .top { margin-top: .3em; }
.glassbox-live .top th, .glassbox-live .top td { text-align: left; padding: .1em 1.4em .1em 0; border: 0; }
.glassbox-live code { white-space: pre; background: transparent; color: inherit; font-family: monospace; }
.glassbox-live .tokens { display: block; }
.glassbox-live .send { display: inline-block; min-width: 12em; } .glassbox-live .send select { display: inline-block; width: auto; margin-left: .5em; }
.glassbox-live .status { min-height: 1.5em; font-size: .9em; }
@media (prefers-reduced-motion: no-preference) { .glassbox-live .map td { transition: background-color .15s; } }
`;

function element(name, properties = {}, ...children) {
  const { data = {}, aria = {}, role, scope, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.dataset, data);
  for (const [key, value] of Object.entries(aria)) made.setAttribute(`aria-${key}`, value);
  if (role) made.setAttribute("role", role);
  if (scope) made.setAttribute("scope", scope);
  made.append(...children);
  return made;
}

const number = x => (x < -0.004 ? "−" : "") + Math.abs(x).toFixed(2);
const short = x => (x < 0 ? "−" : "") + Math.abs(x).toFixed(Math.abs(x) < 9.5 ? 1 : 0).replace(/^0\./, ".");

// A view's state with an event laid over it, as `laid_over` of sweeps/live.py.
export function merge(state, event) {
  const { waiting, ...kept } = "tokens" in event ? { words: state.words } : state;
  return { ...kept, ...event };
}

export function liveMap(root, { components, metrics, examples = [] }, ask) {
  const choice = names => element("select", {}, ...names.map(name => element("option", { value: name, textContent: name })));
  const base = element("input", { type: "text", spellcheck: false, autocomplete: "off", maxLength: 2000 });
  const source = element("input", { type: "text", spellcheck: false, autocomplete: "off", maxLength: 2000 });
  const component = choice(components), metric = choice(metrics);
  const words = [element("input", { type: "text", autocomplete: "off", maxLength: 100 }), element("input", { type: "text", autocomplete: "off", maxLength: 100 })];
  const example = element("select", {}, element("option", { value: "", textContent: "an example …" }),
    ...examples.map((each, i) => element("option", { value: i, textContent: `${each.source} → ${each.base}` })));
  const status = element("p", { className: "status", role: "status" });
  const problem = element("p", { className: "problem", role: "alert" });
  const said = element("p", { className: "said" });
  const map = element("div", { className: "scroll" });
  const site = element("div", { className: "site" });
  const labelled = (text, control) => element("label", {}, text, control);
  root.classList.add("glassbox-live");
  root.replaceChildren(
    element("style", { textContent: LOOK }),
    element("div", { className: "row prompts" },
      labelled("Base: the prompt that is patched", base), labelled("Source: the prompt that patches come from", source)),
    element("div", { className: "row" }, ...(examples.length ? [labelled("Example", example)] : []),
      labelled("Component", component), labelled("Metric", metric),
      labelled("The base’s word", words[0]), labelled("The source’s word", words[1])),
    problem, map, said, site, status);

  let state = {}, chosen = null, cursor = [0, 0], asked = null, back = null;

  function wanted(cell, whole) {
    return { base: base.value, source: source.value, component: component.value, metric: metric.value,
      words: words.map(word => word.value), cell, map: whole };
  }

  function again() {  // something was typed or chosen: what stands there is old
    map.classList.add("old"); said.classList.add("old"); site.classList.add("old");
    status.textContent = "Waiting for the model …";
    asked = wanted(chosen, true);
    ask(asked);
  }

  function patch(layer, position, to = position) {
    chosen = { layer, position, to };
    mark();
    // What is old has to be asked for again; a map that is whole and new is kept.
    const whole = !map.classList.contains("old") && state.layers && state.layers.length === state.of;
    asked = wanted(chosen, !whole);
    ask(asked);
  }

  for (const field of [base, source, ...words]) field.addEventListener("input", () => {
    if (field === base || field === source) for (const word of words) word.value = "";  // another prompt has words of its own
    example.value = ""; again();
  });
  for (const field of [component, metric]) field.addEventListener("change", again);
  example.addEventListener("change", () => {
    const it = examples[example.value];
    if (!it) return;
    [base.value, source.value] = [it.base, it.source];
    words.forEach((word, i) => { word.value = (it.words || ["", ""])[i]; });
    chosen = null; again();
  });

  const cells = () => [...map.querySelectorAll("tbody td")];
  const cellAt = (position, layer) => map.querySelector(`tbody td[data-position="${position}"][data-layer="${layer}"]`);

  function mark() {
    for (const cell of cells()) {
      const is = chosen && +cell.dataset.layer === chosen.layer && +cell.dataset.position === chosen.position;
      cell.classList.toggle("chosen", Boolean(is));
      cell.setAttribute("aria-selected", String(Boolean(is)));
      cell.tabIndex = +cell.dataset.position === cursor[0] && +cell.dataset.layer === cursor[1] ? 0 : -1;
    }
  }

  map.addEventListener("click", event => {
    const cell = event.target.closest("tbody td:not(.open)");
    if (!cell) return;
    cursor = [+cell.dataset.position, +cell.dataset.layer];
    patch(cursor[1], cursor[0]);
    cell.focus();
  });
  map.addEventListener("keydown", event => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const rows = (state.tokens || [[]])[0].length;
    if (event.key in moves) {
      const [down, right] = moves[event.key];
      cursor = [Math.max(0, Math.min(rows - 1, cursor[0] + down)), Math.max(0, Math.min(state.of - 1, cursor[1] + right))];
      mark();
      cellAt(...cursor)?.focus();
    } else if ((event.key === "Enter" || event.key === " ") && !cellAt(...cursor)?.classList.contains("open")) {
      patch(cursor[1], cursor[0]);
    } else return;
    event.preventDefault();
    event.stopPropagation();  // JupyterLab has plans of its own for these keys
  });
  // What is typed here isn't for the notebook's shortcuts.
  root.addEventListener("keydown", event => event.stopPropagation());

  function drawMap() {
    const focused = back === "map" || map.contains(root.getRootNode().activeElement);
    const [ours, theirs] = state.tokens || [[], []];
    const limit = Math.max(1e-9, ...state.ends.map(Math.abs), ...state.values.flat().map(Math.abs));
    const row = Object.fromEntries(state.layers.map((layer, i) => [layer, i]));
    const body = ours.map((token, position) => {
      const name = theirs[position] === token ? `${position} ${token.trim()}` : `${position} ${theirs[position].trim()} → ${token.trim()}`;
      const heading = element("th", { scope: "row", textContent: name });
      const line = Array.from({ length: state.of }, (_, layer) => {
        if (!(layer in row)) return element("td", { className: "open", role: "gridcell", tabIndex: -1, data: { layer, position }, aria: { label: `layer ${layer}, not measured yet` } });
        const value = state.values[row[layer]][position], strength = Math.min(1, Math.abs(value) / limit);
        const cell = element("td", { role: "gridcell", tabIndex: -1, title: `layer ${layer}, token ${position} ${token}: ${number(value)}`, data: { layer, position },
          aria: { label: `layer ${layer}, token ${position} ${token}: ${number(value)}` }, textContent: strength >= 0.25 ? short(value) : "" });
        cell.style.backgroundColor = `rgba(${value > 0 ? "178,24,43" : "33,102,172"},${strength.toFixed(2)})`;
        if (strength > 0.55) cell.style.color = "#fff";
        return cell;
      });
      return element("tr", {}, heading, ...line);
    });
    const feet = Array.from({ length: state.of }, (_, layer) => element("td", { textContent: state.of <= 16 || layer % 5 === 0 ? layer : "" }));
    const table = element("table", { className: "map", role: "grid", aria: { label: `${state.metric}, by layer and token` } },
      element("tbody", {}, ...body), element("tfoot", {}, element("tr", {}, element("th", { scope: "row", textContent: "layer" }), ...feet)));
    table.dataset.layers = state.layers.length;
    map.replaceChildren(table);
    if (cursor[0] >= ours.length) cursor[0] = ours.length - 1;
    if (!state.layers.includes(cursor[1]) && !focused) cursor[1] = state.layers[0];
    mark();
    if (focused) cellAt(...cursor)?.focus();
    if (back === "map") back = null;
  }

  function drawSite() {
    const { cell, top, tokens } = state;
    if (!cell || !tokens || cell.position >= tokens[0].length || cell.to >= tokens[0].length) { site.replaceChildren(); return; }
    const send = element("select", {}, ...tokens[0].map((token, i) => element("option", { value: i, textContent: `${i} ${token}` })));
    send.value = cell.to;
    send.addEventListener("change", () => patch(cell.layer, cell.position, +send.value));
    const names = { base: "base run", patched: "patched", source: "source run" };
    const focused = back === "site" || site.contains(root.getRootNode().activeElement);
    const code = text => element("code", { textContent: text });
    const rows = top.base.map((_, i) => element("tr", {}, ...Object.keys(names).map(name =>
      element("td", {}, code(top[name][i][0]), ` ${(100 * top[name][i][1]).toFixed(1)} %`))));
    site.dataset.layer = cell.layer; site.dataset.position = cell.position; site.dataset.to = cell.to;
    site.replaceChildren(
      element("p", {}, element("strong", { textContent: `Layer ${cell.layer}: the source’s vector at token ${cell.position} (` }), code(tokens[1][cell.position]),
        element("strong", { textContent: ") " }), element("label", { className: "send" }, "is sent to the base’s token", send)),
      element("table", { className: "top" }, element("thead", {}, element("tr", {}, ...Object.values(names).map(name => element("th", { scope: "col", textContent: name })))),
        element("tbody", {}, ...rows)));
    if (focused) send.focus();
    if (back === "site") back = null;
  }

  return function show(next, other = false) {
    const active = root.getRootNode().activeElement;  // what is drawn anew takes the focus back
    if (map.contains(active)) back = "map"; else if (site.contains(active)) back = "site"; else if (root.contains(active)) back = null;
    const first = !Object.keys(state).length;
    state = next;
    const mine = state.asked;  // the view that is shown first, or that was chosen by code, comes with what it was asked for
    if (mine && (first || !asked || other)) {
      [base.value, source.value, component.value, metric.value] = [mine.base, mine.source, mine.component, mine.metric];
      words.forEach((word, i) => { word.value = mine.words[i]; });
      chosen = mine.cell; if (chosen) cursor = [chosen.position, chosen.layer];
    }
    problem.textContent = state.problem || "";
    words.forEach((word, i) => { word.placeholder = (state.words || ["", ""])[i]; });
    for (const part of [map, said, site]) part.classList.toggle("old", Boolean(state.waiting));
    const drawn = state.layers && !state.problem;
    if (drawn) drawMap(); else map.replaceChildren();
    said.textContent = drawn ? state.said : "";
    if (state.problem && state.tokens && state.tokens[0].length !== state.tokens[1].length)
      said.append(...["Base", "Source"].map((name, i) => element("span", { className: "tokens" }, `${name}: `, element("code", { textContent: state.tokens[i].map(token => token.trim()).join(" | ") }))));
    drawSite();
    const whole = drawn && state.layers.length === state.of;
    status.textContent = state.waiting || (whole ? `All ${state.of} layers. Choose a cell for the words before and after its patch.`
      : drawn ? `Coarse: ${state.layers.length} of ${state.of} layers. The others are being measured …` : state.problem ? "" : "Patching …");
    root.dataset.state = state.problem ? "problem" : whole ? "whole" : drawn ? "coarse" : "waiting";
  };
}

function render({ model, el }) {
  const root = document.createElement("div");
  el.append(root);
  let number = 0;
  const show = liveMap(root, model.get("choices"), asked => {
    number = Math.max(number, (model.get("asked") || {}).number || 0) + 1;  // another view may have asked, too
    model.set("asked", { ...asked, number });
    model.save_changes();
  });
  const changed = () => {
    const state = model.get("state");
    const theirs = state.number ?? 0;
    if (theirs >= number) show(state, theirs > number);  // what was asked for before is old
    number = Math.max(number, theirs);
  };
  model.on("change:state", changed);
  number = (model.get("asked") || {}).number || 0;
  changed();
  return () => model.off("change:state", changed);
}
export default { render };
