"use strict";
// Which view the address asks for, the language and the theme.
(function (m) {
  var root = document.documentElement, main = document.getElementById("main"), turn = 0, input = null;
  m.language = m.kept("language") || (/^es\b/.test(navigator.language || "") ? "es" : "en");
  var theme = m.kept("theme") || "auto";
  var light = window.matchMedia("(prefers-color-scheme: light)");
  function paint() {
    root.dataset.theme = theme === "auto" ? (light.matches ? "light" : "dark") : theme;
  }
  light.addEventListener("change", function () { paint(); show(); });
  paint();

  // #structure=3, #image=NAME&row=12, #word=7, #words, #help, #label=NAME
  function address() {
    var hash = location.hash.slice(1), old = /^structure-(\d+)$/.exec(hash), found = {};
    if (old) { return { kind: "structure", value: old[1] }; }
    hash.split("&").forEach(function (part) {
      var at = part.indexOf("="), key = at < 0 ? part : part.slice(0, at), value = at < 0 ? "" : part.slice(at + 1);
      try { found[key] = decodeURIComponent(value); } catch (error) { found[key] = value; }
    });
    var kind = ["structure", "image", "words", "word", "help", "label"].find(function (key) { return found[key] !== undefined; });
    return { kind: kind || "overview", value: found[kind], row: found.row };
  }
  function show(moved) {
    var wanted = address(), mine = turn += 1, place = m.el("div", {});
    m.hideTip();
    if (wanted.kind === "label") {
      m.filterBy(m.overview.labels.indexOf(wanted.value));
      wanted = { kind: "overview" };
    }
    Promise.resolve(m.views[wanted.kind](place, wanted.value, wanted.row)).catch(function (error) {
      m.add(m.clear(place), [m.el("h1", { tabindex: -1 }, m.t("title.overview")), m.el("p", {}, m.t("no script", { name: error.message }))]);
    }).then(function () {
      if (mine !== turn) { return; }
      m.clear(main).appendChild(place);
      m.add(main, m.el("footer", {}, m.t("made by"), " ", m.el("a", { href: "metrics.json" }, "metrics.json")));
      var heading = main.querySelector("h1");
      document.title = (heading ? heading.textContent + " – " : "") + "minIA";
      if (moved) { window.scrollTo(0, 0); if (heading) { heading.focus({ preventScroll: true }); } }
      Array.from(document.querySelectorAll("nav a")).forEach(function (link) {
        var own = link.dataset.kinds.split(" ").indexOf(wanted.kind) >= 0;
        if (own) { link.setAttribute("aria-current", "page"); } else { link.removeAttribute("aria-current"); }
      });
      root.dataset.view = wanted.kind;
    });
  }
  m.views.help = function (place) {
    var terms = Object.keys(m.texts.en).filter(function (key) { return /^about\./.test(key); }).map(function (key) { return key.slice(6); });
    m.add(place, [m.el("h1", { tabindex: -1 }, m.t("title.help")), m.t("help").split("\n").map(function (line) { return m.el("p", {}, line); }),
      m.el("h2", {}, m.t("title.terms")), m.el("dl.terms", {}, terms.map(function (key) {
        return [m.el("dt", { id: "term-" + key }, m.t("name." + key)), m.el("dd", {}, m.t("about." + key))];
      })), m.el("h2", {}, m.t("title.keys")), m.el("p", {}, m.t("keys"))]);
  };
  function frame() {
    root.lang = m.language;
    document.getElementById("skip").textContent = m.t("skip");
    m.add(m.clear(document.getElementById("nav")), [["", "overview", "overview structure image"], ["words", "all words", "words word"], ["help", "help", "help"]].map(function (entry) {
      return m.el("a", { href: "#" + entry[0], "data-kinds": entry[2] }, m.t("title." + entry[1]));
    }));
    input = m.search(document.getElementById("search"));
    m.add(m.clear(document.getElementById("choices")), [
      m.el("button", { id: "language", lang: m.language === "en" ? "es" : "en", onclick: function () { m.language = m.language === "en" ? "es" : "en"; m.kept("language", m.language); frame(); show(); } }, m.language === "en" ? "Español" : "English"),
      m.el("button", { id: "theme", onclick: function () { theme = root.dataset.theme === "dark" ? "light" : "dark"; m.kept("theme", theme); paint(); frame(); show(); } }, m.t(root.dataset.theme === "dark" ? "light" : "dark"))
    ]);
  }
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { return; }
    if (event.key === "/") { input.focus(); event.preventDefault(); }
    var link = event.key === "n" ? "next" : event.key === "p" ? "prev" : null;
    var target = link && main.querySelector('a[rel="' + link + '"]');
    if (target) { target.click(); }
    if (event.key === "h") { location.hash = "#help"; }
    if (event.key === "o") { location.hash = "#"; }
  });
  m.load("overview").then(function (overview) {
    m.overview = overview;
    m.places = new Map(overview.structures.number.map(function (number, i) { return [number, i]; }));
    m.copied = new Map(overview.copied.map(function (row, i) { return [row, i]; }));
    m.wordPlaces = new Map((overview.sheets.words ? overview.sheets.words.numbers : []).map(function (word, i) { return [word, i]; }));
    window.addEventListener("hashchange", function () { show(true); });
    m.readNames();
    frame();
    show();
  }, function () {
    main.textContent = "data/overview.js is missing: keep index.html and its folders together.";
  });
}(minia));
