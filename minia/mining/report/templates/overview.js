"use strict";
// The first view: what was run, and a map and a table of the structures.
(function (m) {
  var filters = { label: "", q: "", column: "", images: 0, whole: false }, order = null;
  m.filterBy = function (label) { filters.label = String(label); };

  m.placeOf = function (number) { return m.places.get(number); };

  function statement() {
    var o = m.overview, total = o.numStructures, shown = o.structures.number.length;
    var text = m.t("statement", {
      images: m.plural(o.numImages, "images"), structures: m.plural(total, "structures"),
      words: m.whole(o.metrics.vocabulary_size),
      features: o.made.features ? m.t("statement.features", { kind: o.made.features, n: m.whole(o.metrics.num_keypoints) }) : ""
    });
    return text + (shown < total ? " " + m.t("statement.shown", { n: m.whole(shown) }) : "");
  }
  function measures() {
    var metrics = m.overview.metrics;
    var rows = [["mean_purity_at_30", "chance_purity_at_30"], ["structure_accuracy", "base_rate"], ["word_accuracy", "base_rate"]]
      .filter(function (pair) { return metrics[pair[0]] !== undefined; });
    if (!rows.length) { return null; }
    return m.el("details", {}, m.el("summary", {}, m.t("agreement")),
      m.el("p.faint.small", {}, m.t("agreement.about")),
      m.el("div.bars", {}, rows.map(function (pair) { return m.bar(m.term(pair[0]), metrics[pair[0]], metrics[pair[1]],
        m.percent(metrics[pair[0]]) + "  (" + m.t("by chance") + " " + m.percent(metrics[pair[1]]) + ")"); })));
  }
  // Three cells of a .bars grid: a name, a bar with a mark for what chance gives, a text.
  m.bar = function (name, share, chance, text) {
    return [m.el("span", {}, name), m.el("span.track", { "aria-hidden": "true" },
      m.el("span.fill", { style: { width: Math.min(100, 100 * share) + "%" } }),
      chance === null ? null : m.el("span.mark", { style: { left: Math.min(100, 100 * chance) + "%" } })),
    m.el("span.number.small", {}, text)];
  };
  function numbers() {
    var keys = ["num_images", "num_failed_images", "num_keypoints", "vocabulary_size", "num_words_kept", "num_cooccurring_sets",
      "num_structures", "num_matches", "num_matched_images", "mean_coherence"];
    var metrics = m.overview.metrics;
    return m.el("details", {}, m.el("summary", {}, m.t("numbers")), m.el("dl.facts", {}, keys.filter(function (key) {
      return metrics[key] !== undefined;
    }).map(function (key) {
      return m.fact(key, Number.isInteger(metrics[key]) ? m.whole(metrics[key]) : m.decimals(metrics[key], 2));
    })), m.overview.figures.length ? m.el("div.figures", {}, m.overview.figures.map(function (figure) {
      return m.el("figure", {}, m.el("img", { src: figure[0], alt: m.t("figure." + figure[1]), loading: "lazy" }), m.el("figcaption.small.faint", {}, m.t("figure." + figure[1])));
    })) : null);
  }
  function describe(i) {
    var s = m.overview.structures, label = m.labelName(s.label[i]);
    return m.el("div.row", {}, m.sprite("structures", s.map[i], 96), m.el("div", {},
      m.el("strong", {}, m.structureName(s.number[i])), m.el("div", {}, m.plural(s.images[i], "images")),
      m.el("div", {}, m.plural(s.words[i], "words")),
      s.q.length ? m.el("div", {}, "q " + m.small(s.q[i])) : null,
      label !== null ? m.el("div", {}, m.t("goes with", { what: label })) : null));
  }
  function legend() {
    var used = Array.from(new Set(m.overview.structures.label)).filter(function (label) { return label >= 0; }).sort(function (a, b) { return a - b; });
    if (!used.length) { return null; }
    return m.el("ul.legend", { "aria-label": m.t("name.label") }, used.slice(0, 16).map(function (label) {
      return m.el("li", {}, m.el("span.swatch", { style: { background: m.labelColour(label), borderStyle: m.dash(label) ? "dashed" : "solid" } }), m.labelName(label));
    }));
  }
  function columns() {
    var s = m.overview.structures;
    var chosen = [{
      key: "structure", plain: true, value: function (i) { return s.number[i]; },
      cell: function (i) { return m.el("a.pictured", { href: "#structure=" + s.number[i] }, m.sprite("structures", s.map[i], 40), String(s.number[i]) + (m.nameOf(s.number[i]) ? " " + m.nameOf(s.number[i]) : "")); }
    }, number("images", s.images, m.whole), number("num_words", s.words, m.whole)];
    if (s.q.length) { chosen.push(number("q", s.q, m.small)); }
    if (s.significance.length && !s.q.length) { chosen.push(number("significance", s.significance, function (v) { return m.decimals(v, 1); })); }
    chosen.push(number("score", s.score, function (v) { return m.decimals(v, 2); }));
    if (m.overview.labels.length) {
      chosen.push({ key: "label", value: function (i) { return m.labelName(s.label[i]); }, cell: function (i) { return m.breakable(m.labelName(s.label[i]) || "–"); } });
    }
    return chosen;
    function number(key, values, format) {
      return { key: key, number: true, value: function (i) { return values[i]; }, cell: function (i) { return format(values[i]); } };
    }
  }
  function chosen() {
    var s = m.overview.structures, found = [];
    for (var i = 0; i < s.number.length; i += 1) {
      if (filters.label !== "" && s.label[i] !== Number(filters.label)) { continue; }
      if (filters.q !== "" && !(s.q[i] !== null && s.q[i] <= Number(filters.q))) { continue; }
      if (s.images[i] < filters.images) { continue; }
      if (filters.column !== "" && s.columns[i].indexOf(Number(filters.column)) < 0) { continue; }
      if (filters.whole && s.parent[i] >= 0) { continue; }
      found.push(i);
    }
    return found;
  }
  m.views.overview = function (main) {
    var s = m.overview.structures, most = Math.max.apply(null, [1].concat(s.images));
    main.appendChild(m.el("h1", { tabindex: -1 }, m.t("title.overview")));
    main.appendChild(m.el("p", { id: "statement" }, statement()));
    if (!s.number.length) { m.add(main, [measures(), numbers()]); return; }
    var map = m.map(s, { describe: describe, open: function (i) { location.hash = "#structure=" + s.number[i]; } });
    var table = m.table(columns(), chosen(), {
      caption: m.t("title.table"), order: order,
      attributes: function (i) { return { onmouseenter: function () { map.highlight(i); }, onmouseleave: function () { map.highlight(-1); } }; }
    });
    var count = m.el("span.number", { id: "count" });
    function apply() {
      var found = chosen();
      map.filter(found.length === s.number.length ? null : new Set(found));
      table.set(found);
      count.textContent = m.t("count", { n: m.whole(found.length), all: m.whole(s.number.length) });
      m.say(count.textContent);
    }
    var tools = m.el("div.tools", {},
      m.overview.labels.length ? m.el("label", {}, m.term("label"), select("label", [["", m.t("any")]].concat(
        Array.from(new Set(s.label)).filter(function (l) { return l >= 0; }).sort(function (a, b) { return a - b; })
          .map(function (l) { return [String(l), m.labelName(l)]; })))) : null,
      s.q.length ? m.el("label", {}, m.term("q", "q ≤"), select("q", [["", m.t("any")], ["0.05", "0.05"], ["0.01", "0.01"], ["0.001", "0.001"]])) : null,
      attributes().length ? m.el("label", {}, m.term("columns", m.t("attribute")), select("column", [["", m.t("any")]].concat(attributes()))) : null,
      m.el("label", {}, m.term("images", m.t("images at least")), m.el("input", {
        type: "range", id: "filter-images", min: 0, max: 100, value: images(), "aria-label": m.t("images at least"),
        oninput: function (event) { filters.images = Math.round(Math.pow(most + 1, event.target.value / 100) - 1); shown.textContent = m.whole(filters.images); apply(); }
      })),
      s.parent.length ? m.el("label", {}, m.el("input", { type: "checkbox", id: "filter-whole", checked: filters.whole, onchange: function (event) { filters.whole = event.target.checked; apply(); } }), m.t("no parts")) : null,
      count);
    function opener() { // a file that was saved from this report
      var input = m.el("input", { type: "file", id: "open-names", accept: ".json", class: "unseen", tabindex: -1, "aria-label": m.t("open names"), onchange: function () {
        m.openNames(input.files[0], function (error) { m.say(m.t(error ? "wrong names" : "names opened")); count.textContent = m.t(error ? "wrong names" : "names opened"); table.set(chosen()); input.value = ""; });
      } });
      return m.el("span", {}, input, m.el("button", { onclick: function () { input.click(); } }, m.t("open names")));
    }
    var shown = m.el("span.number", {}, m.whole(filters.images));
    tools.querySelector("#filter-images").after(shown);
    // What structures go with, of the columns: one more than its number, below 0 where it is low.
    function attributes() {
      var used = new Set();
      s.columns.forEach(function (own) { own.forEach(function (each) { used.add(each); }); });
      return Array.from(used).sort(function (a, b) { return Math.abs(a) - Math.abs(b) || b - a; }).map(function (each) {
        var column = m.overview.columns[Math.abs(each) - 1];
        return [String(each), column[1] !== null ? column[0] + (each > 0 ? ": " : " ≠ ") + column[1] : m.t(each > 0 ? "high" : "low", { column: m.columnName(column[0]) })];
      });
    }
    function images() { return filters.images ? 100 * Math.log(filters.images + 1) / Math.log(most + 1) : 0; }
    function select(key, options) {
      return m.el("select", { id: "filter-" + key, onchange: function (event) { filters[key] = event.target.value; apply(); } }, options.map(function (option) {
        return m.el("option", { value: option[0], selected: filters[key] === option[0] }, option[1]);
      }));
    }
    m.add(main, [tools, m.el("div.overview", {},
      m.el("div", {}, map.element, legend(), m.el("p.faint.small", {}, m.t("map.about")),
        m.el("div.tools", {}, m.el("button", { id: "save-names", onclick: m.saveNames }, m.t("save names")), opener())),
      m.el("div", {}, table.element)), measures(), numbers()]);
    apply();
  };
}(minia));
