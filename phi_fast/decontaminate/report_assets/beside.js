// A document's text beside an item's: line by line where the report has worked it out, else as two columns.
"use strict";
const besideEachOther = ({ parts, excerpts, beside, matches: m }, $, number) => {
  const visible = (text) => text.replace(/[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/g, (one) => String.fromCharCode(one === "\x7f" ? 0x2421 : 0x2400 + one.charCodeAt(0)));
  const make = (name, className, text) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const away = (text) => make("span", "away", text);

  // ---- offsets count Unicode characters, JavaScript strings count UTF-16 units -------------------------------------
  const units = (text, characters) => {
    if (!/[\ud800-\udfff]/.test(text)) return characters;
    let at = 0;
    for (; characters > 0 && at < text.length; characters--) at += text.codePointAt(at) > 0xffff ? 2 : 1;
    return at;
  };
  const length = (text) => (/[\ud800-\udfff]/.test(text) ? Array.from(text).length : text.length);

  // ---- line by line ------------------------------------------------------------------------------------------------
  const KINDS = ["", "same", "renamed", "changed", "only", "aside"];
  const SAID = {
    same: "the same", renamed: "renamed", changed: "changed", only: "only here", aside: "docstring or comment only here",
  };
  const own = (names) => new Map(names.map((name, at) => [name, at]));
  // The nodes of each line of a text. White space at either end of a piece's line is not painted.
  const linesOf = (text, pieces, names, counterparts) => {
    const lines = [[]];
    const renaming = own(names);
    let at = 0;
    for (let piece = 0; piece < pieces.length; piece += 2) {
      const end = at + units(text.slice(at), pieces[piece]);
      const kind = KINDS[pieces[piece + 1]];
      text.slice(at, end).split("\n").forEach((line, first) => {
        if (first) lines.push([]);
        const [, before, inside, after] = line.match(/^(\s*)([^]*?)(\s*)$/);
        if (!kind || !inside) { lines.at(-1).push(visible(line)); return; }
        const node = make("b", `k-${kind}`, visible(inside));
        if (kind === "renamed") {
          const name = renaming.get(inside);
          node.dataset.run = name;
          node.title = `${inside} ↔ ${counterparts[name]}`;
        }
        lines.at(-1).push(before, node, after);
      });
      at = end;
    }
    return lines;
  };
  const cell = (lines) => {
    const node = make("td");
    lines.forEach((line, at) => node.append(...(at ? ["\n"] : []), ...line));
    return node;
  };
  const context = (className, sides) => {
    const row = make("tr", `around ${className}`);
    for (const { cut, text } of sides) {
      const node = make("td");
      const shown = visible(text);
      if (className === "before") node.append(...(cut ? [away(`… ${number(cut)} characters before\n`)] : []), shown.replace(/\n$/, ""));
      else node.append(shown.replace(/^\n/, ""), ...(cut ? [away("\n… goes on")] : []));
      row.append(node);
    }
    return sides.some(({ cut, text }) => cut || text.trim()) ? [row] : [];
  };
  const key = (names, kinds) => {
    const nodes = Object.keys(SAID).filter((kind) => kinds.has(KINDS.indexOf(kind))).map((kind) => {
      const entry = make("span");
      entry.append(make("b", `k-${kind}`, SAID[kind]));
      if (kind !== "renamed") return entry;
      names.forEach(([ours, theirs], at) => {
        const pair = make("b", "pair", `${visible(ours)} → ${visible(theirs)}`);
        pair.dataset.run = at;
        entry.append(at ? ", " : " ", pair);
      });
      return entry;
    });
    $("d-key").replaceChildren(...nodes);
  };
  const lineByLine = (laid, excerpt, part) => {
    const cut = (text, [from, to]) => {
      const [a, b] = [units(text, from), units(text, to)];
      return [text.slice(0, a), text.slice(a, b), text.slice(b)];
    };
    const [before, text, after] = cut(excerpt.text, laid.doc);
    const [itemBefore, itemText, itemAfter] = cut(part.text, laid.item);
    const [ours, theirs] = [laid.names.map((pair) => pair[0]), laid.names.map((pair) => pair[1])];
    const left = linesOf(text, laid.left, ours, theirs);
    const right = linesOf(laid.lead ? part.lead + itemText : itemText, laid.right, theirs, ours);
    const rows = [];
    for (let at = 0; at < laid.rows.length; at += 2) {
      const row = make("tr");
      row.append(cell(left.splice(0, laid.rows[at])), cell(right.splice(0, laid.rows[at + 1])));
      rows.push(row);
    }
    const goesOn = part.length > part.start + length(part.text) ? 1 : 0;
    $("d-lines").replaceChildren(
      ...context("before", [{ cut: excerpt.start, text: before }, { cut: laid.lead ? 0 : part.start, text: itemBefore }]),
      ...rows,
      ...context("after", [{ cut: excerpt.cut, text: after }, { cut: goesOn, text: itemAfter }]),
    );
    key(laid.names, new Set([...laid.left, ...laid.right].filter((_, at) => at % 2)));
    const pane = $("d-aligned");
    const top = rows[0].offsetTop;
    pane.scrollTop = Math.max(0, top - 48);
  };

  // ---- as they are: words in common are marked ---------------------------------------------------------------------
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
    if (!n || left.length > 6000 || right.length > 6000) return null;
    const places = new Map();
    const gram = (words, at) => words.slice(at, at + n).map((word) => word.form).join(" ");
    for (let j = 0; j + n <= right.length; j++) {
      const found = gram(right, j);
      if (!places.has(found)) places.set(found, []);
      places.get(found).push(j);
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
  const passage = (text, words, owner) => {
    const mark = make("mark");
    let done = 0;
    for (let at = 0; owner && at < words.length; at++) {
      if (owner[at] < 0) continue;
      let last = at;
      while (last + 1 < words.length && owner[last + 1] === owner[at]) last++;
      mark.append(visible(text.slice(done, words[at].start)));
      // Line by line, so that indentation is not painted.
      for (const piece of visible(text.slice(words[at].start, words[last].end)).split(/(\s*\n\s*)/)) {
        if (!piece.trim()) { mark.append(piece); continue; }
        const hit = make("b", "", piece);
        hit.dataset.run = owner[at];
        mark.append(hit);
      }
      done = words[last].end;
      at = last;
    }
    mark.append(visible(text.slice(done)));
    return mark;
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
  const asTheyAre = (at, excerpt, part) => {
    const item = cutOut(part.text, part.start, m.is[at], m.ie[at]);
    item.total = part.length;
    item.length = length(part.text);
    const text = excerpt && cutOut(excerpt.text, excerpt.start, m.ds[at], m.de[at]);
    const owners = (text && tile(text.words, item.words, m.n?.[at])) || [null, null];
    item.mark = passage(item.inner, item.words, owners[1]);
    paint($("d-part-text"), item);
    if (text) {
      text.cut = excerpt.cut;
      text.mark = passage(text.inner, text.words, owners[0]);
      paint($("d-doc-text"), text);
    } else {
      $("d-doc-text").replaceChildren(away("This text is not in the report, to keep it small. removed.jsonl, where the document was removed, and the corpus hold it."));
    }
    $("d-key").replaceChildren();
  };

  // ---- what meets what lights up under the pointer -----------------------------------------------------------------
  const warm = (event) => {
    const run = event.type === "mouseover" && event.target.dataset ? event.target.dataset.run : undefined;
    for (const hit of $("shown").querySelectorAll("b[data-run]")) hit.classList.toggle("hot", hit.dataset.run === run);
  };
  $("shown").addEventListener("mouseover", warm);
  $("shown").addEventListener("mouseleave", warm);

  return (at) => {
    const excerpt = m.excerpt[at] < 0 ? null : excerpts[m.excerpt[at]];
    const laid = m.beside[at] < 0 ? null : beside[m.beside[at]];
    $("shown").hidden = false;
    $("d-aligned").hidden = !laid;
    $("panes").hidden = !!laid;
    if (laid) lineByLine(laid, excerpt, parts[m.part[at]]);
    else asTheyAre(at, excerpt, parts[m.part[at]]);
  };
};
