// The list of matches, its filters, and what is said of one match. No library, no network; data is the JSON beside this.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { parts, docs, matches: m, verbs, channels } = data;
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
  const showBeside = besideEachOther(data, $, number);
  const channel = (at) => channels[m.channel[at]];

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
    coverage: [(at) => m.like[at], "desc"],
    run: [(at) => m.run?.[at] ?? 0, "desc"],
  };
  const state = { sort: "worst", way: "desc", chosen: -1 };
  // A find is a document and an item with all matches between the two: one row of the list, its first match shown.
  const itemNumber = new Map();
  const itemOf = parts.map((part) => {
    const name = `${part.suite}\n${part.item}`;
    if (!itemNumber.has(name)) itemNumber.set(name, itemNumber.size);
    return itemNumber.get(name);
  });
  const findOf = m.doc.map((doc, at) => doc * itemNumber.size + itemOf[m.part[at]]);
  let shown = []; // the first match of each find
  let found = new Map(); // find to its matches that pass the filters

  const filters = {
    text: $("f-text"), channel: $("f-channel"), suite: $("f-suite"), part: $("f-part"), verdict: $("f-verdict"),
    n: $("f-n"), cover: $("f-cover"),
  };
  const passes = () => {
    const words = filters.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [way, suite, part, verdict, n] = ["channel", "suite", "part", "verdict", "n"].map((name) => filters[name].value);
    const cover = Number(filters.cover.value) / 100;
    return (at) => {
      const what = parts[m.part[at]];
      const doc = m.doc[at];
      return (
        (!way || channel(at) === way) && (!suite || what.suite === suite) && (!part || what.part === part) &&
        (!n || m.n[at] === Number(n)) && (!verdict || docs[doc].verdict === verdict) && m.like[at] >= cover &&
        words.every((word) => haystack[doc].includes(word) || itemNames[m.part[at]].includes(word))
      );
    };
  };
  const counted = (some) => `${number(some)} match${some === 1 ? "" : "es"}`;
  const refresh = () => {
    const wanted = passes();
    const passing = [];
    for (let at = 0; at < count; at++) if (wanted(at)) passing.push(at);
    const [key] = keys[state.sort];
    const sign = state.way === "asc" ? 1 : -1;
    passing.sort((a, b) => sign * (key(a) - key(b)) || a - b);
    found = new Map();
    for (const at of passing) {
      if (found.has(findOf[at])) found.get(findOf[at]).push(at);
      else found.set(findOf[at], [at]);
    }
    shown = [...found.values()].map((matches) => matches[0]);
    $("f-cover-out").textContent = `${filters.cover.value} %`;
    const matches = passing.length === count ? counted(count) : `${number(passing.length)} of ${counted(count)}`;
    const finds = `${number(shown.length)} find${shown.length === 1 ? "" : "s"}`;
    $("count").textContent = shown.length === passing.length ? matches : `${finds}, ${matches}`;
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
      '<div class="item"><b></b> <span></span> <span class="tags"></span></div><div class="cover"></div><div class="doc"></div><div class="run"></div>';
    const [item, cover, doc, run] = row.children;
    row.cells = { item: item.children[0], part: item.children[1], tags: item.children[2], cover, doc, run };
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
      row.setAttribute("aria-selected", chosen(at));
      row.cells.item.textContent = what.item;
      row.cells.part.textContent = what.part;
      row.cells.tags.textContent = tags(at);
      row.cells.cover.textContent = percent(m.like[at]);
      row.cells.doc.textContent = doc.id;
      row.cells.doc.title = doc.id;
      row.cells.run.textContent = brief(at);
    });
    const active = shown.find(chosen);
    if (active !== undefined && $(`m${active}`)) list.setAttribute("aria-activedescendant", `m${active}`);
    else list.removeAttribute("aria-activedescendant");
  };
  const chosen = (at) => state.chosen >= 0 && findOf[at] === findOf[state.chosen];
  // How many matches a find has, and by which channels where there are several.
  const tags = (at) => {
    const all = found.get(findOf[at]);
    const ways = channels.filter((_, way) => all.some((one) => m.channel[one] === way));
    const names = channels.length > 1 ? ways.map((way) => data.channel_names[way]) : [];
    return [...(all.length > 1 ? [`×${number(all.length)}`] : []), names.join(", ")].filter(Boolean).join(" · ");
  };
  const rate = (value) => (value < 1 ? Math.min(0.99, value) : 1).toFixed(2);
  const brief = (at) => ({
    ngram: () => `run ${number(m.run[at])}`,
    syntax: () => `τ ${rate(m.tau[at])}`,
    embedding: () => `distance ${m.distance[at].toFixed(2)}`,
  })[channel(at)]();
  const percent = (value) => `${value < 1 ? Math.min(99, Math.round(value * 100)) : 100} %`;
  const reveal = (position) => {
    const top = position * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  };
  const choose = (at, scroll = true) => {
    state.chosen = at;
    const position = shown.findIndex(chosen);
    if (scroll && position >= 0) reveal(position);
    draw();
    open(at);
  };
  const step = (by) => {
    if (!shown.length) return;
    const now = shown.findIndex(chosen);
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

  // ---- one match ---------------------------------------------------------------------------------------------------
  const ofDocument = new Map();
  m.doc.forEach((doc, at) => { if (!ofDocument.has(doc)) ofDocument.set(doc, []); ofDocument.get(doc).push(at); });
  const FORMS = { function: "whole function", body: "body" };
  const chip = (text) => (at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text(at);
    button.addEventListener("click", () => choose(at));
    return button;
  };
  const ofFind = chip((at) => {
    const what = { ngram: () => `n ${m.n[at]}`, syntax: () => FORMS[m.form[at]], embedding: () => "embedding" }[channel(at)]();
    return `${parts[m.part[at]].part} · ${what} · ${percent(m.like[at])}`;
  });
  const ofOther = chip((at) => `${parts[m.part[at]].item} ${parts[m.part[at]].part} ${percent(m.like[at])}`);
  const chips = (id, label, some, make) => {
    $(id).replaceChildren(...(some.length ? [label, ...some.slice(0, 8).map(make)] : []));
    if (some.length > 8) $(id).append(`and ${number(some.length - 8)} more`);
  };
  const facts = (at) => {
    const near = m.distance?.[at] == null ? [] : [["distance of embeddings", m.distance[at].toFixed(2)]];
    return [...{
      ngram: () => [
        ["coverage", percent(m.like[at])], ["longest run", `${number(m.run[at])} words`],
        ["shared n-grams", `${number(m.score[at])} of length ${m.n[at]}`],
      ],
      syntax: () => [
        ["alike but for names", percent(m.like[at])], ["by node types τ", rate(m.tau[at])],
        ["nodes", `${number(m.nodes[at])}, item ${number(m.item_nodes[at])}`], ["compared", FORMS[m.form[at]]], ...near,
      ],
      embedding: () => near,
    }[channel(at)](), ["characters", `${number(m.ds[at])}–${number(m.de[at])}`]];
  };
  const open = (at) => {
    const what = parts[m.part[at]];
    const doc = docs[m.doc[at]];
    $("d-item").textContent = `${what.item} ${what.part}`;
    $("d-verdict").textContent = `document ${verbs[doc.verdict]}`;
    $("d-verdict").className = `badge v-${doc.verdict}`;
    $("d-reason").textContent = doc.reason || "The policy lets this document be.";
    $("d-facts").replaceChildren(...facts(at).map(([name, value]) => {
      const fact = document.createElement("div");
      fact.append(document.createElement("dt"), document.createElement("dd"));
      [fact.firstChild.textContent, fact.lastChild.textContent] = [name, value];
      return fact;
    }));
    $("d-document").textContent = doc.id;
    $("d-place").textContent = doc.place;
    $("d-suite").textContent = `${what.item} · ${what.part}`;
    $("d-words").textContent = `${what.suite}, ${number(what.words)} words`;
    const all = ofDocument.get(m.doc[at]);
    const others = new Map();
    for (const one of all) if (findOf[one] !== findOf[at] && !others.has(findOf[one])) others.set(findOf[one], one);
    chips("d-same", "This find", all.filter((one) => findOf[one] === findOf[at] && one !== at), ofFind);
    chips("d-others", "Also here", [...others.values()], ofOther);
    showBeside(at);
    try { history.replaceState(null, "", `#match-${at + 1}`); } catch { /* some browsers forbid it on file:// */ }
  };

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
  refresh();
  const asked = Number((location.hash.match(/^#match-(\d+)$/) || [])[1]) - 1;
  if (asked >= 0 && asked < count) { choose(asked); $("matches").scrollIntoView(); }
  else choose(shown.length ? shown[0] : 0, false);
})();
