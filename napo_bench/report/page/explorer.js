"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const pictures = JSON.parse(byId("pictures").textContent);
  const { runs, items } = data;
  const ROW = 60; // height of a row of the list, as in the style sheet
  const SHORT = 16; // characters of an answer that stays on one line
  const filters = { search: byId("search"), benchmark: byId("benchmark"), group: byId("group"), outcome: byId("outcome") };
  const list = byId("list");
  const spacer = byId("spacer");
  const detail = byId("detail");
  const browser = document.querySelector(".browser");
  let shown = items;
  let at = 0;

  // Every text of a run goes through here: as a text node, never as markup.
  const element = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "color") node.style.setProperty("--run", value);
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };

  const tagOf = (run) => element("span", { class: `run p${run.pattern}`, title: run.name }, run.name);

  const picture = (index, alt) =>
    index === null ? element("div", { class: "blank" }) : element("img", { src: pictures[index], alt, loading: "lazy" });

  for (const item of items) {
    const texts = item.answers.flatMap((answer) => {
      if (!answer) return [];
      return answer.tests ? answer.tests.map((test) => test?.text ?? "") : [answer.text];
    });
    const prompts = item.tests ? item.tests.map((test) => test.prompt) : [];
    item.haystack = [item.id, item.group, item.prompt, item.expected, ...prompts, ...texts].join("\n").toLowerCase();
  }

  // A table that is wider than its place says so: a fade at the edge that hides columns, and a line above.
  const HINT = "Wider than this window: scroll sideways →";
  const framed = (scroller) => {
    const frame = element("div", { class: "frame" }, element("p", { class: "hint" }, HINT));
    scroller.before(frame);
    frame.append(scroller);
    const update = () => {
      const hidden = scroller.scrollWidth - scroller.clientWidth;
      frame.classList.toggle("wide", hidden > 1);
      frame.classList.toggle("more", hidden - scroller.scrollLeft > 1);
    };
    scroller.tabIndex = 0;
    scroller.addEventListener("scroll", update, { passive: true });
    const observer = new ResizeObserver(update);
    observer.observe(scroller);
    observer.observe(scroller.firstElementChild);
    return frame;
  };

  // Filters

  const right = (item, run) => item.answers[run]?.right ?? null;

  const outcomes = () => {
    const everyone = (wanted) => (item) => item.answers.every((answer) => answer?.right === wanted);
    const found = [{ label: "All outcomes", test: () => true }];
    if (runs.length > 1) {
      const differ = (item) => new Set(item.answers.map((answer) => answer?.right ?? null)).size > 1;
      found.push({ group: "Across runs", label: "They differ", test: differ });
      found.push({ group: "Across runs", label: "All right", test: everyone(true) });
      found.push({ group: "Across runs", label: "All wrong", test: everyone(false) });
      runs.forEach((one, i) =>
        runs.forEach((other, j) => {
          const test = (item) => right(item, i) === false && right(item, j) === true;
          if (i !== j) found.push({ group: "Changed", label: `${one.name} wrong, ${other.name} right`, test });
        }),
      );
    }
    runs.forEach((run, i) => {
      for (const wanted of [true, false]) {
        const label = `${run.name} ${wanted ? "right" : "wrong"}`;
        found.push({ group: "One run", label, test: (item) => right(item, i) === wanted });
      }
    });
    return found;
  };
  const choices = outcomes();

  const fillSelect = (select, options) => {
    const groups = new Map();
    select.replaceChildren();
    for (const { value, label, group } of options) {
      const option = element("option", { value }, label);
      if (group && !groups.has(group)) {
        groups.set(group, element("optgroup", { label: group }));
        select.append(groups.get(group));
      }
      (group ? groups.get(group) : select).append(option);
    }
  };

  const count = (of) => {
    const counts = new Map();
    for (const item of items) {
      const key = of(item);
      if (key) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return counts;
  };

  const fillGroups = () => {
    const benchmark = filters.benchmark.value;
    const counts = count((item) => (benchmark === "" || item.benchmark === benchmark ? item.group : ""));
    const options = [...counts].sort(([a], [b]) => a.localeCompare(b));
    fillSelect(filters.group, [
      { value: "", label: "All concepts and types" },
      ...options.map(([value, n]) => ({ value, label: `${value} (${n})` })),
    ]);
    filters.group.disabled = options.length === 0;
  };

  const words = () => filters.search.value.toLowerCase().split(/\s+/).filter(Boolean);

  const applyFilters = () => {
    const wanted = words();
    const benchmark = filters.benchmark.value;
    const group = filters.group.value;
    const outcome = choices[Number(filters.outcome.value)].test;
    const current = shown[at];
    shown = items.filter(
      (item) =>
        (benchmark === "" || item.benchmark === benchmark) &&
        (group === "" || item.group === group) &&
        outcome(item) &&
        wanted.every((word) => item.haystack.includes(word)),
    );
    byId("count").textContent = `${shown.length} of ${items.length} samples`;
    select(Math.max(0, shown.indexOf(current)));
  };

  // The list: only the rows in view exist.

  const verdict = (value) => {
    const [kind, sign, title] = value === null ? ["", "·", "not judged"] : value ? ["ok", "✓", "right"] : ["bad", "✗", "wrong"];
    return { kind, sign, title };
  };

  const rowOf = (item, index) => {
    const answer = item.answers.find(Boolean);
    const verdicts = element("div", { class: runs.length > 12 ? "verdicts small" : "verdicts" });
    item.answers.forEach((each, i) => {
      const { kind, sign, title } = verdict(each?.right ?? null);
      verdicts.append(element("i", { class: kind, title: `${runs[i].name}: ${title}` }, sign));
    });
    const row = element(
      "div",
      { class: "row", role: "option", id: `row-${index}`, "aria-selected": String(index === at) },
      picture(item.image, ""),
      element(
        "div",
        {},
        element("b", {}, `${label(item.benchmark)} ${item.id}`),
        element("small", {}, item.tests ? item.prompt : answer.text || "(empty answer)"),
      ),
      verdicts,
    );
    row.style.transform = `translateY(${index * ROW}px)`;
    row.addEventListener("click", () => {
      select(index);
      browser.classList.add("open");
    });
    return row;
  };

  const label = (benchmark) => data.benchmarks.find((each) => each.key === benchmark).label;

  const drawRows = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    spacer.style.height = `${shown.length * ROW}px`;
    spacer.replaceChildren(...shown.slice(first, last).map((item, offset) => rowOf(item, first + offset)));
  };

  const select = (index) => {
    at = Math.min(Math.max(index, 0), Math.max(shown.length - 1, 0));
    const top = at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    list.setAttribute("aria-activedescendant", `row-${at}`);
    drawRows();
    drawDetail();
  };

  // One sample

  const escaped = (word) => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&").replace(/\s+/g, "\\s+");

  // Where the words stand in the text, each found behind the one before it in its list.
  const spans = (text, listed, kind) => {
    const found = [];
    let from = 0;
    for (const word of listed ?? []) {
      const pattern = new RegExp(`(?<![\\p{L}\\p{N}])${escaped(word)}(?:s|es)?(?![\\p{L}\\p{N}])`, "giu");
      pattern.lastIndex = from;
      const match = pattern.exec(text) ?? ((pattern.lastIndex = 0), pattern.exec(text));
      if (match) {
        found.push({ start: match.index, end: match.index + match[0].length, kind });
        from = match.index + match[0].length;
      }
    }
    return found;
  };

  const searchSpans = (text) => {
    const lower = text.toLowerCase();
    if (lower.length !== text.length) return [];
    return words().flatMap((word) => {
      const found = [];
      for (let i = lower.indexOf(word); i >= 0; i = lower.indexOf(word, i + word.length)) {
        found.push({ start: i, end: i + word.length, kind: "found" });
      }
      return found;
    });
  };

  const marked = (text, given = []) => {
    const nodes = [];
    let from = 0;
    const all = [...given, ...searchSpans(text)];
    all.sort((a, b) => a.start - b.start);
    for (const { start, end, kind } of all) {
      if (start < from) continue;
      nodes.push(text.slice(from, start), element("mark", { class: kind }, text.slice(start, end)));
      from = end;
    }
    return [...nodes, text.slice(from)];
  };

  const counted = (listed) => {
    const counts = new Map();
    for (const word of listed) counts.set(word, (counts.get(word) ?? 0) + 1);
    return [...counts].map(([word, n]) => (n > 1 ? `${word} ×${n}` : word)).join(", ");
  };

  // A note that is folded away until it is clicked.
  const folded = ({ title, text }) => element("details", {}, element("summary", {}, title), element("p", {}, text));

  const answerCard = (item, answer, run) => {
    const { kind, title } = verdict(answer?.right ?? null);
    const head = element(
      "header",
      {},
      tagOf(runs[run]),
      element("span", { class: `pill ${kind}` }, answer?.verdict ?? title),
    );
    const card = element("div", { class: "answer", color: runs[run].color }, head);
    if (!answer) card.append(element("p", { class: "empty" }, "This run has no such sample."));
    else if (answer.text === "") card.append(element("p", { class: "empty" }, "(empty answer)"));
    else {
      const bad = spans(answer.text, answer.hallucinated, "bad");
      const good = spans(answer.text, answer.covered, "ok");
      const isWord = item.expected !== "" && !/\s/.test(item.expected);
      const whole = isWord && answer.right !== null ? [{ start: 0, end: answer.text.length, kind }] : [];
      card.append(element("p", {}, ...marked(answer.text, [...bad, ...good, ...whole])));
    }
    const facts = [];
    if (answer?.hallucinated) facts.push(`not in the image: ${counted(answer.hallucinated)}`);
    if (answer?.covered) facts.push(`in the image: ${counted(answer.covered)}`);
    if (facts.length) card.append(element("footer", {}, facts.join(" · ")));
    if (answer?.thoughts) card.append(folded(answer.thoughts));
    if (answer?.detail) card.append(folded(answer.detail));
    return card;
  };

  const testTables = (item) => {
    const groups = new Map();
    item.tests.forEach((test, index) => {
      if (!groups.has(test.section)) groups.set(test.section, []);
      groups.get(test.section).push(index);
    });
    return [...groups.values()].map((indices) => {
      const test = item.tests[indices[0]];
      const heads = runs.map((run) => element("th", { color: run.color }, tagOf(run)));
      const rows = indices.map((index) =>
        element(
          "tr",
          {},
          element("td", {}, ...marked(item.tests[index].prompt)),
          element("td", {}, item.tests[index].expected),
          ...item.answers.map((answer) => {
            const given = answer?.tests?.[index];
            if (!given) return element("td", { class: "empty" }, "–");
            const { kind, sign } = verdict(given.right);
            const short = given.text.length < SHORT ? " short" : "";
            const mark = element("mark", { class: kind + short }, `${sign} ${given.text || "(empty)"}`);
            return element("td", {}, mark, given.thoughts ? folded(given.thoughts) : null);
          }),
        ),
      );
      return element(
        "div",
        { class: "test" },
        picture(test.image, test.title),
        element(
          "div",
          {},
          element("h3", {}, test.title),
          element(
            "div",
            { class: "scroll" },
            element(
              "table",
              {},
              element("thead", {}, element("tr", {}, element("th", {}, "Prompt"), element("th", {}, "Expected"), ...heads)),
              element("tbody", {}, ...rows),
            ),
          ),
        ),
      );
    });
  };

  const drawDetail = () => {
    detail.replaceChildren();
    detail.scrollTop = 0;
    const item = shown[at];
    if (!item) {
      browser.classList.remove("open");
      detail.append(element("div", { class: "none" }, "No sample passes these filters. Press x to clear them."));
      return;
    }
    const back = element("button", { class: "icon back", "aria-label": "Back to the list" }, "‹");
    back.addEventListener("click", () => browser.classList.remove("open"));
    const previous = element("button", { class: "icon", "aria-label": "Previous sample" }, "↑");
    previous.addEventListener("click", () => select(at - 1));
    const next = element("button", { class: "icon", "aria-label": "Next sample" }, "↓");
    next.addEventListener("click", () => select(at + 1));
    detail.append(
      element(
        "div",
        { class: "bar" },
        back,
        element("b", {}, `${label(item.benchmark)} ${item.id}`),
        item.group ? element("span", { class: "tag" }, item.group) : null,
        element("span", { class: "space" }),
        element("span", {}, `${at + 1} / ${shown.length}`),
        previous,
        next,
      ),
    );
    const facts = item.facts.map(({ label: name, words: listed }) =>
      element("p", { class: "fact" }, `${name}: `, element("b", {}, listed.join(", "))),
    );
    if (item.expected) facts.unshift(element("p", { class: "fact" }, "Expected: ", element("b", {}, item.expected)));
    const about = element("div", {}, element("p", { class: "prompt" }, ...marked(item.prompt)), ...facts);
    const question = element("div", { class: "question" });
    if (item.image !== null && !item.tests) {
      const image = picture(item.image, `Image of ${item.id}`);
      image.addEventListener("click", () => image.classList.toggle("large"));
      question.append(image);
    }
    question.append(about);
    detail.append(question);
    if (item.tests) {
      const pills = runs.map((run, i) => {
        const { kind, title } = verdict(right(item, i));
        return element("span", { class: `pill ${kind}` }, `${run.name}: ${item.decider} ${title}`);
      });
      about.append(element("div", { class: "bar" }, ...pills));
      detail.append(...testTables(item));
      detail.querySelectorAll(".scroll").forEach(framed);
    } else {
      detail.append(element("div", { class: "answers" }, ...item.answers.map((answer, run) => answerCard(item, answer, run))));
    }
  };

  // Tabs, theme, keys

  const tabs = [...document.querySelectorAll("[role=tab]")];
  const open = (name) => {
    for (const tab of tabs) {
      const chosen = tab.getAttribute("aria-controls") === name;
      tab.setAttribute("aria-selected", String(chosen));
      byId(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
    history.replaceState(null, "", `#${name}`);
    if (name === "samples") select(at);
  };

  const step = (select) => {
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    select.dispatchEvent(new Event("input"));
  };

  const clear = () => {
    filters.search.value = "";
    filters.benchmark.value = "";
    filters.outcome.value = "0";
    fillGroups();
    applyFilters();
  };

  const keys = {
    j: () => select(at + 1),
    ArrowDown: () => select(at + 1),
    k: () => select(at - 1),
    ArrowUp: () => select(at - 1),
    Home: () => select(0),
    End: () => select(shown.length - 1),
    o: () => step(filters.outcome),
    b: () => step(filters.benchmark),
    x: clear,
    "/": () => filters.search.focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (event.target.matches("input[type=search], select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const tab = tabs[Number(event.key) - 1];
    if (event.key === "?") byId("help").showModal();
    else if (tab) open(tab.getAttribute("aria-controls"));
    else if (keys[event.key] && !byId("samples").hidden) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  for (const tab of tabs) tab.addEventListener("click", () => open(tab.getAttribute("aria-controls")));
  byId("keys").addEventListener("click", () => byId("help").showModal());
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  byId("intervals").addEventListener("change", (event) =>
    byId("table").classList.toggle("with-intervals", event.target.checked),
  );
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  filters.benchmark.addEventListener("input", fillGroups);
  for (const filter of Object.values(filters)) filter.addEventListener("input", applyFilters);
  list.addEventListener("scroll", drawRows, { passive: true });
  addEventListener("resize", drawRows);

  const sizes = count((item) => item.benchmark);
  fillSelect(filters.benchmark, [
    { value: "", label: "All benchmarks" },
    ...data.benchmarks.filter(({ key }) => sizes.has(key)).map(({ key, label: name }) => ({ value: key, label: name })),
  ]);
  fillSelect(filters.outcome, choices.map((choice, index) => ({ value: String(index), ...choice })));
  fillGroups();
  applyFilters();
  const follow = () => {
    const asked = location.hash.slice(1);
    if (tabs.some((tab) => tab.getAttribute("aria-controls") === asked)) open(asked);
  };
  addEventListener("hashchange", follow);
  follow();
  document.querySelectorAll(".scroll").forEach(framed);
})();
