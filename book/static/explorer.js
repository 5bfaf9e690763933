// The unit explorer: one front end for a page without a kernel, whose data are files, and for a
// widget (anywidget) that asks a kernel. A host gives it
//   index(study), layer(study, key), sheet(study, network, layer), images(study)   (promises)
//   ask(question, about, buffers)                                   (with a kernel only)
// All that a reader chooses is in `state`; the address follows it and restores it.
"use strict";
(() => {
  const SIDES = { s: "S (standard)", r: "R (robust)" };
  const LETTERS = ["s", "r"];
  const registry = (globalThis.unitExplorer ??= {});
  const indexes = new Map(), layers = new Map(), awaited = new Map();

  // -- small things ---------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  const make = (tag, attributes, children, space) => {
    const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {}))
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false)
        element.setAttribute(name, value === true ? "" : value);
    element.append(...[children ?? []].flat(2).filter((child) => child !== null && child !== ""));
    return element;
  };
  const h = (tag, attributes, ...children) => make(tag, attributes, children);
  const svg = (tag, attributes, ...children) => make(tag, attributes, children, SVG);
  const text = (value, digits) =>
    value === null || value === undefined ? "–" : value.toFixed(digits);
  const tile = (url, place, columns, rows) => {
    const x = place % columns, y = Math.floor(place / columns);
    return (
      `background-image:url("${url}");background-size:${100 * columns}% ${100 * rows}%;` +
      `background-position:${(100 * x) / Math.max(1, columns - 1)}% ` +
      `${(100 * y) / Math.max(1, rows - 1)}%`
    );
  };
  const save = (name, type, content) => {
    const url = URL.createObjectURL(new Blob([content], { type }));
    h("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };

  // -- the page without a kernel --------------------------------------------------------------

  const script = (src) =>
    new Promise((done, failed) => {
      document.head.append(h("script", { src, onload: done, onerror: failed }));
    });

  const files = (root) => ({
    index: async (study) => indexes.get(study),
    layer: async (study, key) => {
      const name = `${study}/${key}`;
      if (!layers.has(name)) {
        if (!awaited.has(name)) awaited.set(name, script(`${root}explorer/${name}.js`));
        try {
          await awaited.get(name);
        } catch {
          awaited.delete(name);
          throw new Error(`The data of ${key} did not load.`);
        }
      }
      return layers.get(name);
    },
    sheet: async (study, network, layer) => `${root}visualisations/${study}/${network}-${layer}.avif`,
    images: async (study) => `${root}explorer/${study}/images.avif`,
  });

  registry.layer = (name, value) => layers.set(name, value);
  registry.index = (study, value) => {
    indexes.set(study, value);
    for (const root of document.querySelectorAll(`[data-explorer="${study}"]`))
      new Explorer(root, files(root.dataset.root), study).start();
  };

  // -- the explorer ---------------------------------------------------------------------------

  class Explorer {
    constructor(root, host, study) {
      Object.assign(this, { root, host, study });
      this.state = {};
    }

    async start() {
      this.root.replaceChildren(h("p", { role: "status" }, "Loading …"));
      try {
        this.index = await this.host.index(this.study);
      } catch (error) {
        this.root.replaceChildren(h("p", { role: "alert" }, error.message));
        return;
      }
      this.build();
      this.state = this.fromAddress() ?? this.atStart();
      await this.show();
      if (!this.listening) {
        this.listening = () => {
          if (this.written === location.hash || !this.root.isConnected) return;
          const state = this.fromAddress();
          if (state) this.show(state);
        };
        addEventListener("hashchange", this.listening);
      }
    }

    atStart() {
      return { ...this.index.start, d: "", o: "iou", v: "grid", x: "iou", y: this.axis(), more: "" };
    }

    axis() {
      return "shape_minus_texture" in this.index.facts ? "shape_minus_texture" : "picture_tv_normalised";
    }

    // `#unit-googlenet-r-inception4c-17` names one unit, `#explorer&a=…` all choices
    fromAddress() {
      const hash = decodeURIComponent(location.hash.slice(1));
      const asked = new URLSearchParams(location.search).get("unit");
      const name = asked ?? (hash.startsWith("unit-") ? hash.slice(5) : null);
      if (name) {
        const found = name.match(/^([^-]+)-([sr])-(.+)-(\d+)$/);
        const state = found && this.valid({
          ...this.atStart(), a: found[1], l: found[3], s: null, r: null, [found[2]]: +found[4],
        });
        if (!state) this.say(`${name} is no unit of this study.`, "alert");
        return state;
      }
      if (!hash.startsWith("explorer&")) return null;
      const given = Object.fromEntries(new URLSearchParams(hash.slice(9)));
      if (given.study && given.study !== this.index.study && !this.host.ask) return null;
      const state = { ...this.atStart(), s: null, r: null, ...given };
      delete state.study;
      for (const side of LETTERS)
        state[side] = /^\d+$/.test(state[side] ?? "") ? +state[side] : null;
      return this.valid(state);
    }

    valid(state) {
      const layer = this.index.architectures[state.a]?.layers.find((one) => one.id === state.l);
      if (!layer || LETTERS.some((side) => state[side] !== null && state[side] >= layer.n[side]))
        return null;
      for (const axis of ["x", "y"]) if (!(state[axis] in this.index.facts)) state[axis] = "iou";
      if (!(state.o.replace(/^-/, "") in this.index.facts)) state.o = "iou";
      return state;
    }

    address(part) {
      if (part) return `#unit-${this.state.a}-${part}-${this.state.l}-${this.state[part]}`;
      const said = new URLSearchParams({ study: this.index.study });
      for (const [key, value] of Object.entries(this.state))
        if (value !== "" && value !== null) said.set(key, value);
      return `#explorer&${said}`;
    }

    remember() {
      this.written = this.address();
      // a frame without an address of its own may not change it
      try {
        const search = new URLSearchParams(location.search);
        search.delete("unit");
        const query = search.size ? `?${search}` : "";
        history.replaceState(history.state, "", location.pathname + query + this.written);
        this.written = location.hash;
      } catch {}
    }

    say(words, role = "status") {
      this.status.setAttribute("role", role);
      this.status.textContent = words;
    }

    // -- frame ---------------------------------------------------------------------------------

    build() {
      const select = (name, title, change) => {
        const list = h("select", { class: `unit-${name}`, onchange: () => change(list.value) });
        this[name] = list;
        return h("label", {}, h("span", {}, title), list);
      };
      const set = (key, reset) => (value) => this.show({ ...this.state, [key]: value, ...reset });
      const units = { s: null, r: null };
      this.concepts = h("datalist", { id: `concepts-${this.index.study}` },
        Object.keys(this.index.detectors).map((at) =>
          h("option", { value: this.conceptName(at) })));
      this.search = h("input", {
        type: "search", class: "unit-search", list: this.concepts.id, placeholder: "any concept",
        onchange: () => this.find(this.search.value),
      });
      const step = (by, sign, name) => h("button", {
        type: "button", class: "unit-step", "aria-label": name, title: `${name} (arrow key)`,
        onclick: () => this.step(by),
      }, sign);
      this.status = h("p", { class: "unit-status", role: "status" });
      this.found = h("div", { class: "unit-found" });
      this.pair = h("div", { class: "unit-pair" });
      this.layerView = h("div", { class: "unit-layer-view" });
      this.live = h("div", { class: "unit-live" });
      const controls = [
        select("architecture", "Network", (a) => this.show({
          ...this.state, ...units, a, d: "", l: this.sameDepth(a),
        })),
        select("layer", "Layer", (l) => this.show({ ...this.state, ...units, l, d: this.kept(l) })),
        select("detects", "Units that detect", set("d", units)),
        select("order", "Order", set("o", units)),
        h("label", {}, h("span", {}, "Find"), this.search),
        h("span", { class: "unit-steps" },
          step(-1, "‹", "previous units"), step(1, "›", "next units")),
      ];
      this.root.replaceChildren(
        h("div", { class: "unit-controls" }, controls, this.concepts),
        this.found, this.status, this.pair, this.layerView, this.live,
      );
      this.root.onkeydown = (event) => this.key(event);
      this.fill(this.architecture, Object.entries(this.index.architectures)
        .map(([id, one]) => [id, one.title]));
      if (this.host.ask) this.buildLive();
    }

    fill(list, options) {
      list.replaceChildren(...options.map(([value, title, disabled]) =>
        h("option", { value, disabled: disabled ?? false }, title)));
    }

    conceptName(at) {
      const [name, category] = this.index.concepts[at];
      return `${name} (${category})`;
    }

    here(l = this.state.l) {
      return this.index.architectures[this.state.a].layers.find((one) => one.id === l);
    }

    sameDepth(a) {
      const from = this.index.architectures[this.state.a].layers;
      const to = this.index.architectures[a].layers;
      const share = from.findIndex((one) => one.id === this.state.l) / Math.max(1, from.length - 1);
      return to[Math.round(share * (to.length - 1))].id;
    }

    // a filter stays when the other layer has such units
    kept(l) {
      const d = this.state.d;
      if (d.startsWith("concept "))
        return this.index.detectors[d.slice(8)].some(([a, one]) => a === this.state.a && one === l)
          ? d : "";
      return LETTERS.some((side) => this.here(l).detects[side][d]) ? d : "";
    }

    // -- one state on the page -------------------------------------------------------------------

    async show(state = this.state) {
      const before = this.state;
      this.state = state = { ...state };
      const key = `${state.a}/${state.l}`;
      const turn = (this.turn = (this.turn ?? 0) + 1);
      if (this.key_ !== key) this.say(`Loading ${state.l} …`);
      try {
        const [data, s, r, images] = await Promise.all([
          this.host.layer(this.index.study, key),
          this.sheetOf("s"), this.sheetOf("r"),
          this.index.images ? this.host.images(this.index.study) : null,
        ]);
        if (turn !== this.turn) return; // the reader has gone on
        Object.assign(this, { data, key_: key, sheets: { s, r }, images });
      } catch (error) {
        this.state = before;
        this.say(error.message, "alert");
        return;
      }
      this.ranked = Object.fromEntries(LETTERS.map((side) => [side, this.rank(side)]));
      for (const side of LETTERS)
        if (state[side] === null) state[side] = this.ranked[side][0] ?? null;
      this.drawControls();
      this.drawFound();
      this.pair.replaceChildren(...LETTERS.map((side) => this.card(side)));
      this.drawLayer();
      this.remember();
      const said = LETTERS.map((side) =>
        state[side] === null ? `no unit of ${side.toUpperCase()}` : `${side.toUpperCase()} unit ${state[side]}`);
      this.say(`${this.index.architectures[state.a].title}, ${state.l}: ${said.join(", ")}.`);
      this.root.dataset.shown = this.address();
      if (this.host.ask) this.shownLive();
    }

    sheetOf(side) {
      const one = this.index.architectures[this.state.a];
      return one.drawn[side].includes(this.state.l)
        ? this.host.sheet(this.index.study, one.networks[side], this.state.l) : null;
    }

    fits(side, unit) {
      const d = this.state.d, data = this.data[side];
      if (!d) return true;
      if (d.startsWith("concept "))
        return data.detects[unit] !== "no concept" && String(data.best[unit][0]?.[0]) === d.slice(8);
      return data.detects[unit] === d;
    }

    // units that pass the filter and have a value, equal ones by number
    rank(side) {
      const rising = this.state.o.startsWith("-");
      const values = this.data[side].facts[this.state.o.replace(/^-/, "")];
      const units = [...Array(this.data[side].n).keys()].filter((unit) => this.fits(side, unit));
      if (!values) return units;
      return units.filter((unit) => values[unit] !== null)
        .sort((a, b) => (rising ? values[a] - values[b] : values[b] - values[a]) || a - b);
    }

    drawControls() {
      const { state } = this, layers = this.index.architectures[state.a].layers;
      this.fill(this.layer, layers.map((one, i) => [one.id, `${i + 1} of ${layers.length}: ${one.id}`]));
      const counts = this.here().detects;
      this.fill(this.detects, [
        ["", "anything"],
        ...this.index.categories.map((name) => {
          const n = LETTERS.map((side) => counts[side][name] ?? 0);
          return [name, `${name} (S ${n[0]}, R ${n[1]})`, !n[0] && !n[1]];
        }),
        ...(state.d.startsWith("concept ") ? [[state.d, this.conceptName(state.d.slice(8))]] : []),
      ]);
      const here = Object.keys(this.index.facts).filter((name) =>
        LETTERS.some((side) => this.data[side].facts[name]?.some((value) => value !== null)));
      this.available = here;
      this.fill(this.order, here.flatMap((name) => [
        [name, `${this.index.facts[name][0]}, highest first`],
        [`-${name}`, `${this.index.facts[name][0]}, lowest first`],
      ]));
      for (const [list, value] of [["architecture", state.a], ["layer", state.l],
        ["detects", state.d], ["order", state.o]]) this[list].value = value;
      this.search.value = state.d.startsWith("concept ") ? this.conceptName(state.d.slice(8)) : "";
    }

    find(words) {
      if (!words.trim()) return this.show({ ...this.state, d: "", s: null, r: null });
      const asked = words.trim().toLowerCase();
      const names = Object.keys(this.index.detectors).map((at) => [at, this.conceptName(at).toLowerCase()]);
      const [at] = names.find(([, name]) => name === asked)
        ?? names.find(([, name]) => name.startsWith(asked)) ?? names.find(([, name]) => name.includes(asked)) ?? [];
      if (at === undefined) {
        this.say(`No unit detects “${words.trim()}”.`, "alert");
        return null;
      }
      const places = this.index.detectors[at];
      const [a, l] = places.find(([one, layer]) => one === this.state.a && layer === this.state.l)
        ?? places.find(([one]) => one === this.state.a)
        ?? places.reduce((x, y) => (y[2] + y[3] > x[2] + x[3] ? y : x));
      return this.show({ ...this.state, a, l, d: `concept ${at}`, o: "iou", s: null, r: null });
    }

    // where the concept that was searched for is detected
    drawFound() {
      const { d, a, l } = this.state;
      if (!d.startsWith("concept ")) return this.found.replaceChildren();
      const places = this.index.detectors[d.slice(8)];
      const links = places.map(([one, layer, s, r]) => h("button", {
        type: "button", "aria-pressed": String(one === a && layer === l),
        onclick: () => this.show({ ...this.state, a: one, l: layer, s: null, r: null }),
      }, `${this.index.architectures[one].title} ${layer}: S ${s}, R ${r}`));
      this.found.replaceChildren(
        h("p", {}, `Units that detect ${this.conceptName(d.slice(8))}:`), h("div", {}, links));
      return null;
    }

    choose(side, unit) {
      return this.show({ ...this.state, [side]: unit });
    }

    step(by) {
      const next = { ...this.state };
      for (const side of LETTERS) {
        const units = this.ranked[side], at = units.indexOf(this.state[side]);
        if (units.length) next[side] = units[Math.min(Math.max(at + by, 0), units.length - 1)];
      }
      return this.show(next);
    }

    key(event) {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.target.closest("select, input, dialog")) return;
      const grid = event.target.closest(".unit-grid");
      if (grid) {
        event.preventDefault();
        const tiles = [...grid.children], at = tiles.indexOf(event.target.closest("button"));
        const across = tiles.findIndex((one) => one.offsetTop > tiles[0].offsetTop);
        const wide = event.key.endsWith("Left") || event.key.endsWith("Right");
        const to = tiles[at + by * (wide || across < 1 ? 1 : across)];
        if (to) {
          tiles[at].tabIndex = -1;
          to.tabIndex = 0;
          to.focus();
        }
      } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        event.preventDefault();
        this.step(by);
      }
    }

    // -- a unit ---------------------------------------------------------------------------------

    picture(side, unit, name = "unit-picture", tag = "span") {
      const url = this.sheets[side], { columns } = this.index.picture;
      if (!url) return null;
      const rows = Math.ceil(this.data[side].n / columns);
      return h(tag, {
        class: name, role: "img", style: tile(url, unit, columns, rows),
        "aria-label": `${side.toUpperCase()}, unit ${unit}: image that excites it most, by gradient ascent`,
      });
    }

    card(side) {
      const unit = this.state[side], data = this.data[side];
      const title = `${SIDES[side]} `;
      if (unit === null)
        return h("section", { class: `unit unit-${side} unit-none` }, h("h3", {}, title),
          h("p", {}, "No unit of this layer is of this kind."));
      const [best] = data.best[unit];
      const label = data.detects[unit] === "no concept" || !best
        ? h("p", { class: "unit-label" }, "detects no concept")
        : h("p", { class: "unit-label" }, "detects ", h("b", {}, this.index.concepts[best[0]][0]), " ",
          h("small", {}, `(${data.detects[unit]})`));
      return h("section", {
        class: `unit unit-${side}`, "data-unit": this.address(side).slice(6),
        "aria-label": `${side.toUpperCase()}, unit ${unit}`,
      },
        h("h3", {}, title, h("b", {}, `unit ${unit}`), " ", h("small", {}, `of ${data.n}`),
          h("span", { class: "unit-tools" },
            h("button", { type: "button", class: "unit-copy", title: "copy a link to this unit",
              onclick: (event) => this.copy(side, event.currentTarget) }, "copy link"),
            h("button", { type: "button", class: "unit-json", title: "its numbers as JSON",
              onclick: () => this.export(side, "json") }, "JSON"),
            h("button", { type: "button", class: "unit-csv", title: "its numbers as CSV",
              onclick: () => this.export(side, "csv") }, "CSV"))),
        label,
        h("div", { class: data.top ? "unit-face" : "unit-face unit-alone" }, this.wanted(side, unit), this.ious(data, unit)),
        this.examples(side, unit), this.facts(data, unit),
        h("div", { class: "unit-foot" }, this.histogram(data, unit), this.attacked(data, unit)),
        this.reads(side, unit),
      );
    }

    wanted(side, unit) {
      const picture = this.picture(side, unit), data = this.data[side], { facts } = data;
      const filter = data.filters && h("span", {
        class: "unit-filter", role: "img", "aria-label": "its filter on colours",
        style: tile(data.filters, unit, this.index.picture.columns,
          Math.ceil(data.n / this.index.picture.columns)),
      });
      if (!picture) return h("div", { class: "unit-figure" }, filter ?? h("span", { class: "unit-picture unit-blank" }),
        h("p", { class: "unit-caption" }, "not visualised"));
      const like = facts.picture_likeness?.[unit], ceiling = facts.picture_likeness_of_image?.[unit];
      return h("div", { class: "unit-figure" }, picture, filter ?? null,
        h("p", { class: "unit-caption", title: this.index.facts.picture_likeness[1] },
          "what it responds to most", h("br"),
          `likeness to natural images ${text(like, 2)}`, h("br"), h("small", {}, `(its best image: ${text(ceiling, 2)})`)));
    }

    ious(data, unit) {
      const best = data.best[unit], scale = Math.max(0.05, ...best.map(([, iou]) => iou));
      return h("table", { class: "unit-ious" },
        h("caption", {}, "IoU with concepts ", h("small", {}, "(line: by chance)")),
        h("tbody", {}, best.map(([at, iou, none]) => h("tr", {},
          h("th", { scope: "row", title: this.conceptName(at) }, this.index.concepts[at][0]),
          h("td", {}, h("i", { style: `width:${(100 * iou) / scale}%` }),
            h("b", { style: `left:${Math.min(100, (100 * none) / scale)}%` })),
          h("td", {}, iou.toFixed(3))))));
    }

    image(at, overlay, words) {
      const { columns, n } = this.index.image;
      const button = h("button", {
        type: "button", class: "unit-image", "aria-label": `enlarge: ${words}`,
        style: tile(this.images, at, columns, Math.ceil(n / columns)),
        title: words,
        onclick: () => this.enlarge(button),
      }, overlay ?? []);
      return button;
    }

    enlarge(button) {
      const close = () => dialog.remove();
      const large = h("div", { class: "unit-image", style: button.getAttribute("style") },
        [...button.children].map((child) => child.cloneNode(true)));
      const dialog = h("dialog", { class: "unit-dialog", onclose: close, onclick: () => dialog.close() },
        large, h("p", {}, button.title), h("button", { type: "button" }, "close"));
      this.root.append(dialog);
      dialog.showModal();
    }

    examples(side, unit) {
      const data = this.data[side];
      if (!data.top) return null;
      const words = this.index.image.words, side_ = 8, size = side_ * side_;
      if (data.quantiles[unit].at(-1) <= 0) return h("p", {}, "Silent on every image.");
      const top = data.top[unit].map((at, i) => h("div", { class: "unit-figure" },
        this.image(at, svg("svg", { viewBox: "0 0 128 128", "aria-hidden": "true" },
          svg("path", { d: data.outlines[unit][i] })), words[at]),
        this.map(data.maps[unit].slice(i * size, (i + 1) * size), side_)));
      const lower = data.lower[unit].map((at, i) => h("div", { class: "unit-figure" },
        this.image(at, null, words[at]), h("p", { class: "unit-caption" }, ["75 %", "50 %", "25 %"][i])));
      return h("div", { class: "unit-examples" },
        h("div", {}, h("p", {}, "maximally activating images, its region outlined, its maps"),
          h("div", { class: "unit-tiles" }, top)),
        h("div", {}, h("p", {}, "at lower quantiles"), h("div", { class: "unit-tiles" }, lower)));
    }

    map(digits, side) {
      const canvas = h("canvas", { width: side, height: side, "aria-hidden": "true" });
      const context = canvas.getContext("2d"), image = context.createImageData(side, side);
      [...digits].forEach((digit, i) => {
        const v = parseInt(digit, 16) / 15; // dark blue over green to yellow
        image.data.set([255 * Math.min(1, 0.27 + 0.75 * v * v), 255 * (0.05 + 0.85 * v),
          255 * (0.33 + 0.3 * v - 0.5 * v * v), 255], 4 * i);
      });
      context.putImageData(image, 0, 0);
      return canvas;
    }

    facts(data, unit) {
      const names = this.available.filter((name) =>
        data.facts[name] && !["clean_peak", "attacked_peak", "picture_likeness", "picture_likeness_of_image"].includes(name));
      return h("dl", { class: "unit-facts" }, names.flatMap((name) => {
        const [title, about, digits] = this.index.facts[name];
        const of = name.endsWith("_score") && data.decisions ? `/${data.decisions}` : "";
        return [h("div", {}, h("dt", {}, h("abbr", { title: about, tabindex: "0" }, title)),
          h("dd", { "data-fact": name }, text(data.facts[name][unit], digits) + of))];
      }));
    }

    histogram(data, unit) {
      const bars = data.histogram[unit], quantiles = data.quantiles[unit];
      const low = Math.min(0, quantiles[0]), high = quantiles.at(-1);
      if (!bars) return null;
      const at = (value) => (120 * (value - low)) / (high - low);
      const line = (value, name, title) => svg("path", { class: name, d: `M${at(value).toFixed(1)} 0V34` },
        svg("title", {}, `${title}: ${value}`));
      const shown = [["25 %", 1], ["median", 2], ["75 %", 3], ["95 %", 4]];
      const threshold = data.facts.threshold?.[unit];
      return h("div", { class: "unit-histogram" },
        svg("svg", { viewBox: "0 0 120 36", role: "img",
          "aria-label": `strongest activation in each image, from ${low} to ${high}; median ${quantiles[2]}` },
          [...bars].map((digit, i) => svg("rect", { x: 5 * i, width: 4.6,
            y: 34 - parseInt(digit, 36) * 0.95, height: parseInt(digit, 36) * 0.95 })),
          shown.map(([title, i]) => line(quantiles[i], "unit-quantile", title)),
          threshold > 0 ? line(threshold, "unit-threshold", "threshold") : null),
        h("p", { class: "unit-caption" }, `peaks in images: ${low} to ${high} · lines: quartiles, 95 %; dashed: threshold`));
    }

    attacked(data, unit) {
      const clean = data.facts.clean_peak?.[unit], after = data.facts.attacked_peak?.[unit];
      if (clean === undefined || clean === null) return null;
      const scale = Math.max(clean, after, 1e-9);
      const bar = (title, value) => h("tr", {}, h("th", { scope: "row" }, title),
        h("td", {}, h("i", { style: `width:${(100 * Math.max(0, value)) / scale}%` })), h("td", {}, text(value, 2)));
      return h("table", { class: "unit-ious unit-attacked" },
        h("caption", { title: this.index.facts.attacked_peak[1] }, "mean peak ",
          h("small", {}, `(attack: ${this.index.threat.norm} ${this.index.threat.eps})`)),
        h("tbody", {}, bar("clean", clean), bar("attacked", after)));
    }

    reads(side, unit) {
      const { reads, below } = this.data[side];
      if (!reads) return null;
      const one = this.index.architectures[this.state.a];
      const drawn = one.drawn[side].includes(below);
      const n = one.layers.find((layer) => layer.id === below)?.n[side];
      const links = h("div", { class: "unit-reads" },
        h("span", { title: "gradient × activation: weight × mean activation where nothing nonlinear lies between" },
          `reads most from ${below}: `));
      const sheet = drawn ? this.host.sheet(this.index.study, one.networks[side], below) : Promise.resolve(null);
      sheet.then((url) => links.append(...reads[unit].map(([from, value]) => h("button", {
        type: "button", title: `unit ${from} of ${below}: ${value}`, disabled: n === undefined,
        onclick: () => this.show({ ...this.state, l: below, d: "", s: null, r: null, [side]: from }),
      }, url ? h("span", { class: "unit-thumb", style: tile(url, from, this.index.picture.columns,
        Math.ceil(n / this.index.picture.columns)) }) : [], `${from} ${value < 0 ? "−" : "+"}`))));
      return links;
    }

    copy(side, button) {
      const link = location.href.replace(/[#?].*$/, "") + this.address(side);
      const done = () => {
        button.textContent = "copied";
        setTimeout(() => { button.textContent = "copy link"; }, 1500);
      };
      this.copied = link;
      const written = navigator.clipboard?.writeText(link) ?? Promise.reject();
      written.then(done, () => {
        // without a secure address there is no clipboard; the old way still works
        const field = h("input", { value: link });
        button.after(field);
        field.value = link;
        field.select();
        document.execCommand("copy");
        field.remove();
        done();
      });
    }

    numbers(side) {
      const unit = this.state[side], data = this.data[side];
      const name = (at) => this.index.concepts[at];
      return {
        study: this.index.study, network: this.index.architectures[this.state.a].networks[side],
        layer: this.state.l, unit, detects: data.detects[unit],
        ...Object.fromEntries(Object.entries(data.facts).map(([key, values]) => [key, values[unit]])),
        concepts: data.best[unit].map(([at, iou, none]) => ({
          concept: name(at)[0], category: name(at)[1], iou, null_iou: none,
        })),
        peak_quantiles: data.quantiles[unit],
        reads: data.reads?.[unit].map(([from, value]) => ({ layer: data.below, unit: from, value })) ?? [],
      };
    }

    export(side, kind) {
      const numbers = this.numbers(side), name = `${this.address(side).slice(1)}.${kind}`;
      const cell = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
      const rows = Object.entries(numbers).flatMap(([key, value]) =>
        Array.isArray(value)
          ? value.flatMap((one, i) => typeof one === "object"
            ? Object.entries(one).map(([part, of]) => [`${key} ${i + 1} ${part}`, of]) : [[`${key} ${i + 1}`, one]])
          : [[key, value]]);
      this.exported = kind === "json" ? JSON.stringify(numbers, null, 1)
        : ["name,value", ...rows.map((row) => row.map((one) => cell(one ?? "")).join(","))].join("\n");
      save(name, kind === "json" ? "application/json" : "text/csv", `${this.exported}\n`);
    }

    // -- a layer --------------------------------------------------------------------------------

    drawLayer() {
      const { v } = this.state, modes = { grid: "All units", scatter: "Scatter plot" };
      const count = LETTERS.map((side) => `${side.toUpperCase()} ${this.ranked[side].length}`).join(", ");
      this.layerView.replaceChildren(
        h("div", { class: "unit-modes", role: "group", "aria-label": "view of the layer" },
          h("b", {}, `Layer ${this.state.l} `), h("small", {}, `(${count})`),
          Object.entries(modes).map(([mode, title]) => h("button", {
            type: "button", class: `unit-mode-${mode}`, "aria-pressed": String(v === mode),
            onclick: () => this.show({ ...this.state, v: mode }),
          }, title))),
        v === "scatter" ? this.scatter()
          : h("div", { class: "unit-pair unit-grids" }, LETTERS.map((side) => this.grid(side))));
    }

    grid(side) {
      const data = this.data[side], chosen = this.state[side];
      const tiles = this.ranked[side].map((unit, i) => {
        const [best] = data.best[unit];
        const words = data.detects[unit] === "no concept" || !best
          ? "" : `, ${this.index.concepts[best[0]][0]} ${best[1]}`;
        return h("button", {
          type: "button", "data-u": unit, title: `unit ${unit}${words}`,
          "aria-label": `${side.toUpperCase()}, unit ${unit}${words}`,
          "aria-pressed": String(unit === chosen),
          tabindex: (this.ranked[side].includes(chosen) ? unit === chosen : i === 0) ? "0" : "-1",
          onclick: async () => {
            const focused = this.root.contains(document.activeElement);
            await this.choose(side, unit);
            if (focused)
              this.layerView.querySelector(`.unit-${side} [data-u="${unit}"]`)?.focus({ preventScroll: true });
          },
        }, this.picture(side, unit, "unit-thumb") ? h("span", {
          class: "unit-thumb", style: this.thumb(side, unit),
        }) : h("span", { class: "unit-number" }, String(unit)));
      });
      return h("section", { class: `unit-${side}` }, h("h4", {}, SIDES[side]),
        tiles.length ? h("div", { class: "unit-grid", role: "group", "aria-label": `units of ${SIDES[side]}` }, tiles)
          : h("p", {}, "No unit of this kind."));
    }

    thumb(side, unit) {
      const { columns } = this.index.picture;
      return tile(this.sheets[side], unit, columns, Math.ceil(this.data[side].n / columns));
    }

    scatter() {
      const { x, y } = this.state;
      const axis = (key, value) => {
        const list = h("select", { class: `unit-axis-${key}`,
          onchange: () => this.show({ ...this.state, [key]: list.value }) },
          this.available.map((name) => h("option", { value: name, selected: name === value },
            this.index.facts[name][0])));
        return h("label", {}, h("span", {}, key), list);
      };
      const range = (name) => {
        const values = LETTERS.flatMap((side) => (this.data[side].facts[name] ?? []).filter((v) => v !== null));
        const low = Math.min(...values), high = Math.max(...values);
        return [low, high > low ? high : low + 1];
      };
      const [x0, x1] = range(x), [y0, y1] = range(y);
      const plot = (side) => {
        const xs = this.data[side].facts[x], ys = this.data[side].facts[y];
        const points = this.ranked[side].filter((unit) => (xs?.[unit] ?? null) !== null && (ys?.[unit] ?? null) !== null);
        points.sort((a, b) => (a === this.state[side]) - (b === this.state[side]));
        return h("section", { class: `unit-${side}` }, h("h4", {}, SIDES[side]),
          svg("svg", { class: "unit-scatter", viewBox: "-24 -4 236 156", role: "img",
            "aria-label": `${this.index.facts[y][0]} against ${this.index.facts[x][0]}, ${points.length} units` },
            svg("path", { class: "unit-frame", d: "M0 0V130H206" }),
            svg("text", { x: 0, y: 141 }, String(x0)), svg("text", { x: 206, y: 141, "text-anchor": "end" }, String(x1)),
            svg("text", { x: 103, y: 149, "text-anchor": "middle" }, this.index.facts[x][0]),
            svg("text", { x: -3, y: 130, "text-anchor": "end" }, String(y0)),
            svg("text", { x: -3, y: 6, "text-anchor": "end" }, String(y1)),
            svg("text", { x: 4, y: 6 }, this.index.facts[y][0]),
            points.map((unit) => svg("circle", {
              cx: (3 + (200 * (xs[unit] - x0)) / (x1 - x0)).toFixed(1),
              cy: (127 - (124 * (ys[unit] - y0)) / (y1 - y0)).toFixed(1),
              r: unit === this.state[side] ? 4 : 2.2, "data-u": unit,
              class: unit === this.state[side] ? "unit-chosen" : null,
              onclick: () => this.choose(side, unit),
            }, svg("title", {}, `unit ${unit}: ${xs[unit]}, ${ys[unit]}`)))));
      };
      return h("div", {}, h("div", { class: "unit-controls" }, axis("x", x), axis("y", y)),
        h("div", { class: "unit-pair" }, LETTERS.map(plot)));
    }

    // -- with a kernel --------------------------------------------------------------------------

    buildLive() {
      const { index } = this;
      const list = (name, options) => {
        const one = h("select", { class: `unit-${name}`, onchange: () => this.try(name) },
          options.map(([value, title]) => h("option", { value }, title)));
        return one;
      };
      this.file = h("input", { type: "file", accept: "image/*", class: "unit-file", hidden: true,
        onchange: () => this.upload() });
      this.stimulus = list("stimulus", [["", "a stimulus …"], ...index.live.stimuli.map((name, i) => [i, name])]);
      this.method = list("method", [["", "none"], ...index.live.methods.map((name) => [name, name])]);
      this.eps = h("input", { type: "range", class: "unit-eps", min: 0, max: 8, step: 1, value: 0,
        oninput: () => { this.radius.textContent = this.epsilon().toPrecision(2); },
        onchange: () => this.try("attack") });
      this.radius = h("output", {}, "0");
      this.trials = h("div", { class: "unit-pair unit-trials" });
      this.silenced = h("div", { class: "unit-pair" });
      const label = (title, ...of) => h("label", {}, h("span", {}, title), of);
      this.live.replaceChildren(
        h("h3", {}, "An image of your own, attacked"),
        h("div", { class: "unit-controls" },
          h("button", { type: "button", class: "unit-upload", onclick: () => this.file.click() }, "Your image"),
          this.file, label("or", this.stimulus),
          label(`Attack, ${index.threat.norm}`, this.eps, this.radius), label("Attribution", this.method)),
        this.trials,
        h("h3", {}, "Without these units"),
        h("button", { type: "button", class: "unit-silence", onclick: () => this.silence() }, "Silence these units"),
        this.silenced);
    }

    epsilon() {
      return (2 * this.index.threat.eps * this.eps.value) / 8;
    }

    where() {
      const { a, l, s, r } = this.state;
      return { study: this.index.study, architecture: a, layer: l, s, r };
    }

    async asked(words, question, about, buffers) {
      const began = performance.now();
      this.say(`${words} …`);
      try {
        const answer = await this.host.ask(question, about, buffers);
        this.say(`${words}: done in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
        return answer;
      } catch (error) {
        this.say(error.message, "alert");
        return null;
      }
    }

    async upload() {
      const [file] = this.file.files;
      if (!file) return;
      const content = await file.arrayBuffer();
      this.file.value = ""; // so that the same file can be chosen again
      const answer = await this.asked(`Reading ${file.name}`, "upload",
        { ...this.where(), name: file.name }, [content]);
      if (!answer) return;
      this.stimulus.value = "";
      this.given = true;
      await this.try("upload");
    }

    async try(changed) {
      if (changed === "stimulus" && this.stimulus.value === "") return;
      if (changed === "stimulus") this.given = true;
      if (!this.given) {
        this.say("Choose an image first: your own or a stimulus.");
        return;
      }
      const about = { ...this.where(), stimulus: this.stimulus.value === "" ? null : +this.stimulus.value,
        eps: this.epsilon(), method: this.method.value };
      const answer = await this.asked(about.eps ? "Attacking S and R" : "Looking at the image", "trial", about);
      if (!answer) return;
      this.trials.replaceChildren(...answer.sides.map((one) => {
        const figures = one.views.map((view) => h("div", { class: "unit-figure" },
          h("img", { src: view.image, alt: `the image, ${view.title}` }),
          view.map ? h("img", { src: view.map, alt: `map of unit ${one.unit}` }) : null,
          h("p", { class: "unit-caption" }, view.title,
            h("ol", {}, (view.answers ?? []).map(([name, share]) => h("li", {}, `${name} ${share.toFixed(2)}`))),
            view.peak === undefined ? "" : `unit's peak ${view.peak.toFixed(2)}`)));
        return h("section", { class: `unit unit-${one.side}` },
          h("h4", {}, `${SIDES[one.side]}, unit ${one.unit}`), h("div", { class: "unit-looks" }, figures),
          one.words ? h("p", {}, one.words) : null);
      }));
    }

    async silence() {
      const answer = await this.asked("Silencing", "silence", this.where());
      if (!answer) return;
      this.silenced.replaceChildren(...answer.sides.map((one) => h("section", { class: `unit unit-${one.side}` },
        h("h4", {}, `${SIDES[one.side]} without unit ${one.unit}`), h("p", {}, one.words),
        h("div", { class: "unit-looks" }, one.changes.map((change) => h("div", { class: "unit-figure" },
          h("img", { src: change.image, alt: change.name }), h("p", { class: "unit-caption" }, change.answer)))))));
    }

    shownLive() {
      this.silenced.replaceChildren();
      if (this.given) this.try("unit");
    }
  }

  // -- the widget -------------------------------------------------------------------------------

  registry.render = ({ model, el }) => {
    const answers = new Map();
    let number = 0;
    const ask = (question, about = {}, buffers = []) =>
      new Promise((done, failed) => {
        answers.set((number += 1), { done, failed });
        model.send({ id: number, ask: question, about }, undefined, buffers);
      });
    model.on("msg:custom", ({ id, error, answer }) => {
      const waiting = answers.get(id);
      if (!waiting) return;
      answers.delete(id);
      if (error) waiting.failed(new Error(error));
      else waiting.done(answer);
    });
    const once = (question) => {
      const kept = new Map();
      return (...about) => {
        const key = about.join(" ");
        if (!kept.has(key)) {
          const promise = ask(question, { about });
          promise.catch(() => kept.delete(key));
          kept.set(key, promise);
        }
        return kept.get(key);
      };
    };
    const host = { ask };
    for (const part of ["index", "layer", "sheet", "images"]) host[part] = once(part);
    const studies = model.get("studies");
    const root = h("div", { class: "unit-explorer" });
    const open = (study) => new Explorer(root, host, study).start();
    const list = h("select", { class: "unit-study", onchange: () => open(list.value) },
      studies.map((name) => h("option", { value: name }, name)));
    el.append(h("div", { class: "unit-explorer unit-controls" },
      h("label", {}, h("span", {}, "Study"), list)), root);
    if (studies.length) open(studies[0]);
    else root.append(h("p", { role: "alert" }, "No networks are here: run `make train STUDY=iconworld`."));
  };
})();
