// Parts of the page that are not views of a result: title, picker, run bar, claim, catalogue.
(() => {
  const { h } = TL;
  const link = (slug) => `?v=1&sys=${slug}`;
  const VERDICT = { holds: "holds", fails: "does not hold", none: "not measured" };

  // Back and forward: a panel of the open tab is opened in place, with what it last ran; any other by its address.
  const openers = {}; // slug -> {root of its picker, choose}
  window.addEventListener("popstate", () => {
    const slug = new URLSearchParams(location.search).get("sys");
    if (openers[slug] && openers[slug].root.offsetParent) openers[slug].choose({});
    else location.reload();
  });

  // The systems of a tab. value: {family, label, open, items: [{slug, name, sentence, question, live, workbench}]}
  TL.views.picker = (root, value, trigger) => {
    const list = h("ul", {}, value.items.map((item) => {
      const open = item.slug === value.open;
      const choose = (given) => trigger("choose", { slug: item.slug, values: TL.kept[item.slug] || {}, given });
      openers[item.slug] = { root, choose };
      if (!item.live) return h("li", { class: "later" }, h("span", { class: "tl-name" }, item.name, h("em", {}, "not built yet")), h("small", {}, item.sentence));
      return h("li", { class: item.workbench ? "bench" : null }, h("a", {
        href: link(item.slug), "aria-current": open ? "page" : null, title: item.sentence,
        onclick: (event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return;
          event.preventDefault();
          // A panel that is already open keeps what was typed into it; one that was, comes back with what it last ran.
          if (!open) choose(TL.given[value.family] || {});
        },
      }, h("span", { class: "tl-name" }, item.name, item.workbench ? h("em", {}, "workbench") : null), h("small", {}, item.question)));
    }));
    const box = h("details", { class: "tl-picker" }, h("summary", {}, "Systems in this tab"), h("p", { class: "tl-family" }, value.sentence), h("nav", { "aria-label": value.label }, list));
    box.open = root.getBoundingClientRect().width < 400 && window.innerWidth >= 900;
    root.append(box);
  };

  const jump = (node) => {
    node.scrollIntoView({ block: "start" });
    node.setAttribute("tabindex", "-1");
    node.focus({ preventScroll: true });
  };

  // The open panel's name. value: {name, title, sentence, paper, code, verdict}
  TL.views.title = (root, value) => {
    const links = [["Paper", value.paper], ["Code", value.code]].filter(([, url]) => url).map(([name, url]) => h("a", { href: url, target: "_blank", rel: "noopener" }, name));
    const verdict = value.verdict !== "none" ? TL.button(`${value.verdict === "holds" ? "✓" : "✗"} claim ${VERDICT[value.verdict]} at our scale`, () => jump(document.querySelector(".tl-panel .tl-claim")), { class: `tl-verdict ${value.verdict}` }) : null;
    root.append(h("div", { class: "tl-title" }, h("h2", {}, value.name), h("p", {}, value.sentence), h("p", { class: "tl-cite" }, value.title !== value.sentence ? h("cite", {}, value.title) : null, ...links, verdict)));
  };

  // What was run and what can be done with it.
  // value: {state: stored|now|running|partial|error|none, seconds, cached, problem, query, left_out, python, slug, family, values, shared, taken, autorun, made_on}
  TL.views.run_bar = (root, given, trigger) => {
    // While a run goes on, and after one that failed, the page still shows the run before: so do its link and snippet.
    const value = given.query ? given : { ...root.tlShown, cached: false, seconds: null, problem: "", ...given };
    if (given.query) root.tlShown = given;
    const say = h("p", { class: "tl-said", role: "status" }, root.tlTaken || "");
    root.append(h("div", { class: "tl-bar" }, h("p", {}, h("span", { class: `tl-badge ${value.state}` }, value.state === "error" && value.query ? "still the run before" : STATES[value.state] || "not run"), h("span", {}, timing(value))), h("div", { class: "tl-tools" }, value.query ? tools(root, value, say) : [])), say);
    if (value.problem) root.append(h("p", { class: "tl-problem", role: "alert" }, value.problem));
    root.dataset.state = value.problem ? "error" : value.state;
    root.tlDrawn = (root.tlDrawn || 0) + 1;
    if (!given.query) return;
    TL.kept[value.slug] = value.values;
    TL.given[value.family] = { ...TL.given[value.family], ...value.shared };
    if (value.taken.length) root.tlTaken = `Taken over from the panel before: ${value.taken.join(", ")}.`;
    if (!value.problem) { TL.setAddress(value.query); TL.keepForReload(value); }
    if (value.autorun && !root.tlAutoran) { root.tlAutoran = true; setTimeout(() => trigger("autorun"), 50); }
  };

  // The server answers at once when it begins with a run. When it does not, others' runs come first.
  const PATIENCE = 1000; // ms
  document.addEventListener("click", (event) => {
    const pressed = event.target.closest("[id^=run-]");
    const root = pressed && pressed.closest(".tl-panel").querySelector('[data-kind="run_bar"]');
    if (!root || root.dataset.state === "running") return;
    const drawn = root.tlDrawn;
    setTimeout(() => {
      const badge = root.querySelector(".tl-badge");
      if (root.tlDrawn === drawn && badge) { badge.className = "tl-badge running"; badge.textContent = "waiting for other visitors' runs"; }
    }, PATIENCE);
  });

  const STATES = { stored: "stored run", now: "run now", running: "running", partial: "stopped early" };

  const timing = (value) => {
    if (value.state === "stored") return ` made on ${value.made_on}`;
    if (value.cached) return " from this server's memory";
    if (value.seconds === null || value.seconds === undefined) return "";
    return value.seconds < 1 ? ` ${Math.round(value.seconds * 1000)} ms` : ` ${value.seconds.toFixed(1)} s`;
  };

  const tools = (root, value, say) => {
    const copyLink = TL.button("Copy link", () => { TL.copy(TL.address(value.query), copyLink); say.textContent = value.left_out; });
    const copyPython = TL.button("Copy as Python", () => TL.copy(value.python, copyPython));
    const saved = () => JSON.stringify({ system: value.slug, values: value.values, result: TL.shown(root) }, null, 1);
    return [outline(root), copyLink, copyPython, TL.button("Download JSON", () => TL.download(`${value.slug}.json`, saved(), "application/json"))];
  };

  // A list of what the panel shows, made when it is opened, so that it is never behind the views.
  const outline = (root) => {
    const list = h("ul", {});
    const box = h("details", { class: "tl-outline", ontoggle: () => {
      const heads = [...root.closest(".tl-panel").querySelectorAll(".tl-frame-head h3, .tl-text h3, .tl-claim")].filter((head) => head.offsetParent);
      list.replaceChildren(...heads.map((head) => h("li", {}, TL.button(head.matches(".tl-claim") ? "The paper's claim, measured here" : head.textContent, () => { box.open = false; jump(head); }, { class: "" }))));
    } }, h("summary", { class: "tl-button" }, "On this page"), list);
    return box;
  };

  // Inside a Space's frame the address that works everywhere is the frame's own.
  TL.address = (query) => `${location.origin}${location.pathname}?${query}`;

  // The views that the open panel shows, by the name of their field.
  TL.shown = (bar) => {
    const panel = bar.closest(".tl-panel") || document;
    const result = {};
    panel.querySelectorAll(".tl-view").forEach((view) => {
      const field = view.closest("[id^=view-]");
      if (field && view.tlValue) result[field.id.split("--")[1]] = view.tlValue;
    });
    return result;
  };

  // The paper's claim at our scale. value: a stored measurement, or null.
  TL.views.claim = (root, value) => {
    if (!value.claim) { root.append(h("p", { class: "tl-claim none" }, h("b", {}, "Not measured."), " ", value.note || "")); return; }
    const n = TL.number;
    const verdict = value.holds ? "holds" : "does not hold";
    const bars = [["this system", value.value, true], [`${value.baseline_name} (the paper's baseline)`, value.baseline], ["random", value.random], ["full / best possible", value.full]].filter(([, v]) => v !== null && v !== undefined);
    root.append(h("div", { class: `tl-claim ${value.holds ? "holds" : "fails"}` },
      h("p", {}, h("b", {}, `${value.holds ? "✓" : "✗"} At our scale the claim ${verdict}. `), value.claim),
      h("table", { class: "tl-table" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, value.metric + (value.unit ? ` [${value.unit}]` : "")), h("th", { scope: "col", class: "num" }, "value"))),
        h("tbody", {}, bars.map(([name, v, own]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "num" }, n(v), own && value.low !== null && value.low !== undefined ? ` (${n(value.low)} to ${n(value.high)})` : ""))),
          h("tr", {}, h("th", { scope: "row" }, `bar, set before the run (${value.direction} is better)`), h("td", { class: "num" }, n(value.bar))))),
      h("p", { class: "tl-reason" }, value.reason), h("p", { class: "tl-note" }, `The paper: ${value.paper}`),
      h("p", { class: "tl-note" }, `n = ${n(value.n)}, seed ${value.seed}, ${n(value.seconds)} s on ${value.machine}, ${value.date}. `)));
  };

  // All systems, searchable. value: {families: [{slug, name}], items: [{slug, name, family, title, sentence, live, claim}]}
  TL.views.catalogue = (root, value) => {
    const search = h("input", { type: "search", id: "tl-search", placeholder: "e.g. cache, audio, merge", oninput: () => fill() });
    const family = h("select", { id: "tl-family", onchange: () => fill() }, h("option", { value: "" }, "all families"), value.families.map((f) => h("option", { value: f.slug }, f.name)));
    const claim = h("select", { id: "tl-claim", onchange: () => fill() }, h("option", { value: "" }, "any"), Object.entries(VERDICT).map(([key, name]) => h("option", { value: key }, name)));
    const count = h("p", { class: "tl-note", role: "status" });
    const list = h("ul", { class: "tl-cards" });
    const familyName = Object.fromEntries(value.families.map((f) => [f.slug, f.name]));
    const matches = (item) => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const text = `${item.name} ${item.title} ${item.sentence} ${item.question} ${item.slug} ${familyName[item.family]}`.toLowerCase();
      return words.every((word) => text.includes(word)) && (!family.value || item.family === family.value) && (!claim.value || item.claim === claim.value);
    };
    const fill = () => {
      const found = value.items.filter(matches);
      count.textContent = `${found.length} of ${value.items.length}, ${found.filter((item) => item.live).length} of them live`;
      list.replaceChildren(...found.map((item) => h("li", { class: item.live ? "live" : "later" },
        h("h3", {}, item.live ? h("a", { href: link(item.slug) }, item.name) : item.name), h("p", {}, item.sentence),
        h("p", { class: "tl-cite" }, `${familyName[item.family]} · ${!item.live ? "not built yet" : item.workbench ? "workbench" : `claim: ${VERDICT[item.claim]}`}`,
          item.paper ? h("a", { href: item.paper, target: "_blank", rel: "noopener" }, "Paper") : null))));
    };
    root.append(h("form", { class: "tl-filters", onsubmit: (event) => event.preventDefault() },
      h("label", { for: "tl-search" }, "Search ", search), h("label", { for: "tl-family" }, "Family ", family), h("label", { for: "tl-claim" }, "Claim ", claim)), count, list);
    fill();
  };
})();

// The top of the page, with the switch between light and dark. value: {title, sentence}
TL.views.header = (root, value) => {
  const { h } = TL;
  const name = () => (document.body.classList.contains("dark") ? "Light" : "Dark");
  const theme = TL.button(name(), () => { document.body.classList.toggle("dark"); theme.textContent = name(); }, { class: "tl-button tl-theme", "aria-label": "Switch between light and dark" });
  root.append(h("header", { class: "tl-header" }, h("h1", {}, value.title), h("p", {}, value.sentence), theme));
};

// One sentence about something that did not work.
TL.views.problem = (root, value) => root.append(TL.h("p", { class: "tl-problem", role: "alert" }, value));
