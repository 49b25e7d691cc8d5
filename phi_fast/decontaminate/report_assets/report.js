// The list of matches and the document beside its item. No library, no network; data is the JSON beside this script.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { parts, docs, excerpts, matches: m, verbs } = data;
  const count = m.doc.length;
  const number = (value) => value.toLocaleString("en");
  const ROW = 56;
  const EXTRA = 6; // rows drawn above and below what is seen

  // ---- theme -------------------------------------------------------------------------------------------------------
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });
  if (!count) return;

  // ---- what is shown, in which order -------------------------------------------------------------------------------
  const natural = new Intl.Collator("en", { numeric: true }).compare;
  const ranks = (names) => {
    const rank = new Map([...new Set(names)].sort(natural).map((name, at) => [name, at]));
    return names.map((name) => rank.get(name));
  };
  const itemRank = ranks(parts.map((part) => part.item));
  const docRank = ranks(docs.map((doc) => doc.id));
  const haystack = docs.map((doc) => `${doc.id}\n${doc.place}\n${doc.reason}`.toLowerCase());
  const itemNames = parts.map((part) => `${part.suite}\n${part.item}`.toLowerCase());
  const keys = {
    worst: [(at) => -at, "desc"],
    item: [(at) => itemRank[m.part[at]], "asc"],
    document: [(at) => docRank[m.doc[at]], "asc"],
    coverage: [(at) => m.cover[at], "desc"],
    run: [(at) => m.run[at], "desc"],
  };
  const state = { sort: "worst", way: "desc", chosen: -1 };
  let shown = [];

  const filters = {
    text: $("f-text"), suite: $("f-suite"), part: $("f-part"), verdict: $("f-verdict"), n: $("f-n"), cover: $("f-cover"),
  };
  const passes = () => {
    const words = filters.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [suite, part, verdict, n] = ["suite", "part", "verdict", "n"].map((name) => filters[name].value);
    const cover = Number(filters.cover.value) / 100;
    return (at) => {
      const what = parts[m.part[at]];
      const doc = m.doc[at];
      return (
        (!suite || what.suite === suite) && (!part || what.part === part) && (!n || m.n[at] === Number(n)) &&
        (!verdict || docs[doc].verdict === verdict) && m.cover[at] >= cover &&
        words.every((word) => haystack[doc].includes(word) || itemNames[m.part[at]].includes(word))
      );
    };
  };
  const refresh = () => {
    const wanted = passes();
    shown = [];
    for (let at = 0; at < count; at++) if (wanted(at)) shown.push(at);
    const [key] = keys[state.sort];
    const sign = state.way === "asc" ? 1 : -1;
    shown.sort((a, b) => sign * (key(a) - key(b)) || a - b);
    $("f-cover-out").textContent = `${filters.cover.value} %`;
    $("count").textContent =
      shown.length === count ? `${number(count)} matches` : `${number(shown.length)} of ${number(count)} matches`;
    $("none").hidden = shown.length > 0;
    $("sizer").style.height = `${shown.length * ROW}px`;
    for (const button of document.querySelectorAll(".sorts button")) {
      const mine = button.dataset.sort === state.sort;
      button.setAttribute("aria-pressed", mine);
      if (mine) button.dataset.arrow = state.way === "asc" ? "↑" : "↓";
      else delete button.dataset.arrow;
    }
    list.scrollTop = 0;
    draw();
  };

  // ---- the list: only rows in view exist ---------------------------------------------------------------------------
  const list = $("list");
  const pool = [];
  const makeRow = () => {
    const row = document.createElement("div");
    row.setAttribute("role", "option");
    row.innerHTML =
      '<div class="item"><b></b> <span></span></div><div class="cover"></div><div class="doc"></div><div class="run"></div>';
    const [item, cover, doc, run] = row.children;
    row.cells = { item: item.children[0], part: item.children[1], cover, doc, run };
    row.addEventListener("click", () => choose(row.at, false));
    $("sizer").append(row);
    return row;
  };
  const draw = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - EXTRA);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + EXTRA);
    while (pool.length < last - first) pool.push(makeRow());
    pool.forEach((row, slot) => {
      const position = first + slot;
      row.hidden = position >= last;
      if (row.hidden) {
        row.removeAttribute("id");
        return;
      }
      const at = shown[position];
      const what = parts[m.part[at]];
      const doc = docs[m.doc[at]];
      row.at = at;
      row.id = `m${at}`;
      row.className = `row v-${doc.verdict}${m.condemns[at] ? "" : " spared"}`;
      row.style.transform = `translateY(${position * ROW}px)`;
      row.setAttribute("aria-posinset", position + 1);
      row.setAttribute("aria-setsize", shown.length);
      row.setAttribute("aria-selected", at === state.chosen);
      row.cells.item.textContent = what.item;
      row.cells.part.textContent = what.part;
      row.cells.cover.textContent = `${percent(m.cover[at])}`;
      row.cells.doc.textContent = doc.id;
      row.cells.doc.title = doc.id;
      row.cells.run.textContent = `run ${number(m.run[at])}`;
    });
    const chosen = state.chosen >= 0 && $(`m${state.chosen}`);
    if (chosen) list.setAttribute("aria-activedescendant", chosen.id);
    else list.removeAttribute("aria-activedescendant");
  };
  const percent = (value) => `${value < 1 ? Math.min(99, Math.round(value * 100)) : 100} %`;
  const reveal = (position) => {
    const top = position * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  };
  const choose = (at, scroll = true) => {
    state.chosen = at;
    const position = shown.indexOf(at);
    if (scroll && position >= 0) reveal(position);
    draw();
    open(at);
  };
  const step = (by) => {
    if (!shown.length) return;
    const now = shown.indexOf(state.chosen);
    choose(shown[Math.min(shown.length - 1, Math.max(0, now < 0 ? 0 : now + by))]);
  };
  let waiting = false;
  list.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  });
  new ResizeObserver(draw).observe(list);
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -count, End: count }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    $("matches").scrollIntoView({ block: "nearest" });
    step(by);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape" && event.target === filters.text) { filters.text.value = ""; refresh(); list.focus(); }
      return;
    }
    if (event.key === "/") { event.preventDefault(); filters.text.focus(); }
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });

  // ---- spans: offsets count Unicode characters, JavaScript strings count UTF-16 units ------------------------------
  const units = (text, characters) => {
    if (!/[\ud800-\udfff]/.test(text)) return characters;
    let at = 0;
    for (; characters > 0 && at < text.length; characters--) at += text.codePointAt(at) > 0xffff ? 2 : 1;
    return at;
  };
  const wordsOf = (text) => {
    const found = [];
    for (const hit of text.matchAll(/[\p{L}\p{M}\p{N}_]+/gu)) {
      const form = Array.from(hit[0].normalize("NFKC"), (one) => one.toLowerCase()).join("");
      found.push({ start: hit.index, end: hit.index + hit[0].length, form });
    }
    return found;
  };
  // Common runs of n words and more, each word used once, longest first: the tiling that coverage counts.
  const tile = (left, right, n) => {
    if (left.length > 6000 || right.length > 6000) return null;
    const places = new Map();
    const gram = (words, at) => words.slice(at, at + n).map((word) => word.form).join(" ");
    for (let j = 0; j + n <= right.length; j++) {
      const key = gram(right, j);
      if (!places.has(key)) places.set(key, []);
      places.get(key).push(j);
    }
    const runs = [];
    for (let i = 0; i + n <= left.length; i++) {
      for (const j of places.get(gram(left, i)) || []) {
        if (i && j && left[i - 1].form === right[j - 1].form) continue;
        let length = n;
        while (i + length < left.length && j + length < right.length && left[i + length].form === right[j + length].form) length++;
        runs.push([i, j, length]);
        if (runs.length > 50000) return null;
      }
    }
    runs.sort((a, b) => b[2] - a[2] || a[0] - b[0] || a[1] - b[1]);
    const sides = [new Int32Array(left.length).fill(-1), new Int32Array(right.length).fill(-1)];
    runs.forEach(([i, j, length], run) => {
      for (let t = 0; t < length; t++) {
        if (sides[0][i + t] < 0 && sides[1][j + t] < 0) sides[0][i + t] = sides[1][j + t] = run;
      }
    });
    return sides;
  };
  const visible = (text) => text.replace(/[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/g, (one) => String.fromCharCode(one === "\x7f" ? 0x2421 : 0x2400 + one.charCodeAt(0)));
  const passage = (text, words, owner) => {
    const mark = document.createElement("mark");
    let done = 0;
    for (let at = 0; owner && at < words.length; at++) {
      if (owner[at] < 0) continue;
      let last = at;
      while (last + 1 < words.length && owner[last + 1] === owner[at]) last++;
      mark.append(visible(text.slice(done, words[at].start)));
      // Line by line, so that indentation is not painted.
      for (const piece of visible(text.slice(words[at].start, words[last].end)).split(/(\s*\n\s*)/)) {
        if (!piece.trim()) { mark.append(piece); continue; }
        const hit = document.createElement("b");
        hit.dataset.run = owner[at];
        hit.textContent = piece;
        mark.append(hit);
      }
      done = words[last].end;
      at = last;
    }
    mark.append(visible(text.slice(done)));
    return mark;
  };
  const away = (text) => {
    const span = document.createElement("span");
    span.className = "away";
    span.textContent = text;
    return span;
  };
  const paint = (pre, side) => {
    const tail = side.total === undefined ? side.cut : side.total > side.start + side.length;
    pre.replaceChildren(
      ...(side.start ? [away(`… ${number(side.start)} characters before\n`)] : []),
      visible(side.text.slice(0, side.from)), side.mark, visible(side.text.slice(side.to)),
      ...(tail ? [away("\n… goes on")] : []),
    );
    const top = side.mark.offsetTop - pre.offsetTop;
    pre.scrollTop = Math.max(0, top - Math.max(48, (pre.clientHeight - side.mark.offsetHeight) / 3));
  };
  const cutOut = (text, start, from, to) => {
    const side = { text, start, from: units(text, from - start), to: units(text, to - start) };
    side.inner = text.slice(side.from, side.to);
    side.words = wordsOf(side.inner);
    return side;
  };

  // ---- one match: the document beside the item ---------------------------------------------------------------------
  const ofDocument = new Map();
  m.doc.forEach((doc, at) => { if (!ofDocument.has(doc)) ofDocument.set(doc, []); ofDocument.get(doc).push(at); });
  const chip = (at) => {
    const button = document.createElement("button");
    const what = parts[m.part[at]];
    button.textContent = `${what.item} ${what.part} ${percent(m.cover[at])}${data.n.length > 1 ? ` · n ${m.n[at]}` : ""}`;
    button.addEventListener("click", () => choose(at));
    return button;
  };
  const open = (at) => {
    const what = parts[m.part[at]];
    const doc = docs[m.doc[at]];
    $("d-item").textContent = `${what.item} ${what.part}`;
    $("d-verdict").textContent = `document ${verbs[doc.verdict]}`;
    $("d-verdict").className = `badge v-${doc.verdict}`;
    $("d-reason").textContent = doc.reason || "The policy lets this document be.";
    $("d-cover").textContent = percent(m.cover[at]);
    $("d-run").textContent = `${number(m.run[at])} words`;
    $("d-score").textContent = `${number(m.score[at])} of length ${m.n[at]}`;
    $("d-span").textContent = `${number(m.ds[at])}–${number(m.de[at])}`;
    $("d-document").textContent = doc.id;
    $("d-place").textContent = doc.place;
    $("d-suite").textContent = `${what.item} · ${what.part}`;
    $("d-words").textContent = `${what.suite}, ${number(what.words)} words`;
    const others = ofDocument.get(m.doc[at]).filter((other) => other !== at);
    $("d-others").replaceChildren(...(others.length ? ["Also here", ...others.slice(0, 8).map(chip)] : []));
    if (others.length > 8) $("d-others").append(`and ${number(others.length - 8)} more`);
    $("panes").hidden = false;
    const item = cutOut(what.text, what.start, m.is[at], m.ie[at]);
    item.total = what.length;
    item.length = Array.from(what.text).length;
    const excerpt = m.excerpt[at] < 0 ? null : excerpts[m.excerpt[at]];
    const text = excerpt && cutOut(excerpt.text, excerpt.start, m.ds[at], m.de[at]);
    const owners = (text && tile(text.words, item.words, m.n[at])) || [null, null];
    item.mark = passage(item.inner, item.words, owners[1]);
    paint($("d-part-text"), item);
    if (text) {
      text.cut = excerpt.cut;
      text.mark = passage(text.inner, text.words, owners[0]);
      paint($("d-doc-text"), text);
    } else {
      $("d-doc-text").replaceChildren(away("This text is not in the report, to keep it small. documents.parquet in the run's folder holds it."));
    }
    try { history.replaceState(null, "", `#match-${at + 1}`); } catch { /* some browsers forbid it on file:// */ }
  };
  const warm = (event) => {
    const run = event.type === "mouseover" && event.target.dataset ? event.target.dataset.run : undefined;
    for (const hit of $("panes").querySelectorAll("b[data-run]")) hit.classList.toggle("hot", hit.dataset.run === run);
  };
  $("panes").addEventListener("mouseover", warm);
  $("panes").addEventListener("mouseleave", warm);

  // ---- controls ----------------------------------------------------------------------------------------------------
  for (const control of Object.values(filters)) control.addEventListener("input", refresh);
  for (const button of document.querySelectorAll(".sorts button")) {
    button.addEventListener("click", () => {
      const same = state.sort === button.dataset.sort;
      state.way = same ? (state.way === "asc" ? "desc" : "asc") : keys[button.dataset.sort][1];
      state.sort = button.dataset.sort;
      refresh();
    });
  }
  const clear = () => {
    for (const control of Object.values(filters)) control.value = control === filters.cover ? "0" : "";
    refresh();
  };
  $("clear").addEventListener("click", clear);
  for (const link of document.querySelectorAll("[data-suite], [data-item]")) {
    link.addEventListener("click", () => {
      clear();
      if (link.dataset.suite) filters.suite.value = link.dataset.suite;
      if (link.dataset.item) filters.text.value = link.dataset.item;
      refresh();
      if (shown.length) choose(shown[0]);
      $("matches").scrollIntoView();
    });
  }
  filters.n.value = data.n.length > 1 ? String(data.policy_n) : "";
  refresh();
  const asked = Number((location.hash.match(/^#match-(\d+)$/) || [])[1]) - 1;
  if (asked >= 0 && asked < count) { if (!shown.includes(asked)) clear(); choose(asked); $("matches").scrollIntoView(); }
  else choose(shown.length ? shown[0] : 0, false);
})();
