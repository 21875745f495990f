"use strict";
// One structure: what its images share, how sure, its words, and what it goes with.
(function (m) {
  var MOST_COLOURS = 8; // of words; the others are grey
  var shown = { outlines: true, keypoints: false };

  // The outline of a part and its keypoints, over a picture of an image of this size.
  // A disc evenly full of spots reaches so far: its size is twice the root mean square of their distances.
  m.reach = function (place) { return place[2] / Math.SQRT2; };
  m.outline = function (entry, colour, dash) {
    var place = entry.place, group = m.svg("g", { class: "outline", fill: "none" });
    if (!place) { return group; }
    var radius = m.reach(place), thick = Math.max(entry.width, entry.height) / 140;
    [["#000", thick * 2.4, 0.6], [colour, thick, 1]].forEach(function (style) {
      var attributes = { cx: place[0], cy: place[1], r: radius, stroke: style[0], "stroke-width": style[1], opacity: style[2] };
      if (dash) { attributes["stroke-dasharray"] = dash.split(" ").map(function (d) { return d * thick / 1.5; }).join(" "); }
      group.appendChild(m.svg("circle", attributes));
      if (place[3] !== null && place[4]) {
        var angle = place[3] * Math.PI / 180;
        group.appendChild(m.svg("line", {
          x1: place[0] + Math.cos(angle) * radius * 0.75, y1: place[1] + Math.sin(angle) * radius * 0.75,
          x2: place[0] + Math.cos(angle) * radius * 1.15, y2: place[1] + Math.sin(angle) * radius * 1.15,
          stroke: style[0], "stroke-width": style[1], opacity: style[2]
        }));
      }
    });
    return group;
  };
  function crowded(k) { // circles that lie over each other many times hide the image
    var low = [Infinity, Infinity], high = [-Infinity, -Infinity], area = 0;
    for (var i = 0; i < k.length; i += 4) {
      for (var axis = 0; axis < 2; axis += 1) {
        low[axis] = Math.min(low[axis], k[i + axis] - k[i + 2] / 2);
        high[axis] = Math.max(high[axis], k[i + axis] + k[i + 2] / 2);
      }
      area += Math.PI * k[i + 2] * k[i + 2] / 4;
    }
    return area > 3 * Math.max(1, (high[0] - low[0]) * (high[1] - low[1]));
  }
  m.keypoints = function (entry, colourOf) {
    var group = m.svg("g", { class: "keypoints", fill: "none" }), k = entry.keypoints;
    var thick = Math.max(entry.width, entry.height) / 220, largest = Math.max(entry.width, entry.height) * 0.08;
    var dots = crowded(k);
    for (var i = 0; i < k.length; i += 4) {
      var colour = colourOf(k[i + 3]);
      if (!colour) { continue; }
      if (dots) {
        group.appendChild(m.svg("circle", { cx: k[i], cy: k[i + 1], r: thick, fill: colour }));
        continue;
      }
      var radius = Math.max(thick * 1.5, Math.min(largest, k[i + 2] / 2));
      group.appendChild(m.svg("circle", { cx: k[i], cy: k[i + 1], r: radius, stroke: "#000", "stroke-width": thick * 2.2, opacity: 0.5 }));
      group.appendChild(m.svg("circle", { cx: k[i], cy: k[i + 1], r: radius, stroke: colour, "stroke-width": thick }));
    }
    return group;
  };
  m.box = function (entry) { return { viewBox: "-0.5 -0.5 " + entry.width + " " + entry.height, preserveAspectRatio: "none", "aria-hidden": "true" }; };

  function facts(i, value) {
    var s = m.overview.structures, list = m.el("dl.facts", {}, m.fact("images", m.whole(s.images[i]) + " (" + m.percent(s.images[i] / Math.max(1, m.overview.numImages)) + ")"),
      m.fact("num_words", m.whole(s.words[i])));
    if (s.q.length) { list.appendChild(m.fact("q", m.small(s.q[i]))); }
    if (s.significance.length) { list.appendChild(m.fact("significance", m.decimals(s.significance[i], 1))); }
    if (s.association.length) { list.appendChild(m.fact("association", m.decimals(s.association[i], 2))); }
    m.add(list, [m.fact("score", m.decimals(s.score[i], 2)), m.fact("coherence", m.decimals(s.coherence[i], 2)), m.fact("rank", String(i + 1))]);
    return list;
  }
  m.isFamily = function (i) { return m.overview.structures.members[i] > 0; };
  function kin(number) {
    var s = m.overview.structures, i = m.placeOf(number), lines = [];
    var parts = s.number.filter(function (_, j) { return s.parent[j] === number; });
    function kind(j) { return m.isFamily(j) ? "family" : "part"; }
    if (s.parent.length && s.parent[i] >= 0) { lines.push(m.el("p.kin", {}, m.term(kind(m.placeOf(s.parent[i])), m.t("part of")), m.structureLink(s.parent[i]))); }
    if (parts.length) { lines.push(m.el("p.kin", {}, m.term(kind(i), m.t("parts")), parts.slice(0, 24).map(m.structureLink))); }
    return lines;
  }
  m.structureLink = function (number) {
    var i = m.placeOf(number);
    if (i === undefined) { return m.el("span", {}, m.t("not shown", { n: number })); }
    return m.el("a.pictured", { href: "#structure=" + number }, m.sprite("structures", m.overview.structures.map[i], 32), String(number) + (m.nameOf(number) ? " " + m.nameOf(number) : ""));
  };
  function parts(value) {
    if (!value.parts) { return null; }
    var count = value.gallery.length + 1, side = 128;
    function cut(place, size, label) {
      return m.el("span.sprite", { role: "img", "aria-label": label, style: {
        width: size + "px", height: size + "px", backgroundImage: 'url("' + value.parts + '")',
        backgroundSize: count * size + "px " + size + "px", backgroundPosition: -place * size + "px 0" } });
    }
    var placed = value.gallery.some(function (each) { return each.place && each.place[4]; });
    return m.el("section", {}, m.el("h2", {}, m.t("title.parts")), m.el("p.faint.small", {}, m.t(placed ? "parts.aligned" : "parts.guessed")),
      m.el("div.shared", {}, m.el("figure", {}, cut(0, side * 1.5, m.t("average")), m.el("figcaption", {}, m.term("average"))),
        m.el("div.parts", {}, value.gallery.map(function (entry, place) {
          return m.el("figure", {}, m.el("a", { href: m.imageLink(entry.name, entry.row), title: entry.name }, cut(place + 1, side, entry.name)),
            place === value.typical ? m.el("figcaption", {}, m.term("typical")) : null);
        }))));
  }
  function gallery(value, state) {
    var list = m.el("ul.gallery", { id: "gallery" });
    value.gallery.forEach(function (entry) {
      var drawing = m.svg("svg", m.box(entry));
      var label = m.labelName(entry.label);
      var item = m.el("li", { "data-overlap": entry.overlap }, m.el("a.frame", { href: m.imageLink(entry.name, entry.row) },
        m.el("img", { src: m.copy(entry.row), alt: entry.name, loading: "lazy", width: entry.width, height: entry.height }), drawing),
      m.el("a.name", { href: m.imageLink(entry.name, entry.row), title: entry.name }, entry.name),
      m.el("span.small.faint", {}, m.mention("overlap"), " " + m.decimals(entry.overlap, 2) + (label === null ? "" : " · " + label)));
      list.appendChild(item);
      state.redraw.push(function () {
        m.clear(drawing);
        if (shown.outlines) { drawing.appendChild(m.outline(entry, m.colours[1], entry.place && !entry.place[4] ? "6 4" : "")); }
        if (shown.keypoints || state.word >= 0) {
          drawing.appendChild(m.keypoints(entry, function (word) {
            if (state.word >= 0) { return word === state.word ? m.colours[0] : null; }
            return word < MOST_COLOURS ? m.colour(word) : "#cdd4e0";
          }));
        }
        item.hidden = !isSure(entry.overlap, state);
      });
    });
    return list;
  }
  function plainGallery(value, state) {
    var listed = value.listed, list = m.el("ul.thumbs", { id: "gallery" });
    listed.names.slice(0, 60).forEach(function (name, i) {
      var item = m.el("li", { "data-overlap": listed.overlaps[i] }, m.el("a", { href: m.imageLink(name, listed.rows[i]) }, name), m.decimals(listed.overlaps[i], 2));
      state.redraw.push(function () { item.hidden = !isSure(listed.overlaps[i], state); });
      list.appendChild(item);
    });
    return list;
  }
  function isSure(overlap, state) { return overlap > state.overlap - 0.0005; } // as the histogram rounds
  // One slider for how sure: images of at least this overlap.
  function slider(value, state) {
    var bins = value.histogram.length - 1, most = Math.max.apply(null, [1].concat(value.histogram));
    var bars = value.histogram.map(function (count, bin) {
      return m.el("span", { style: { height: 100 * Math.sqrt(count / most) + "%" }, title: m.decimals(bin / bins, 2) + ": " + m.whole(count) });
    });
    var text = m.el("output", { id: "sure", class: "number" });
    var lowest = Math.floor(bins * Math.min(m.overview.minOverlap, 1)) / bins;
    state.update.push(function () {
      var count = 0;
      value.histogram.forEach(function (number, bin) {
        bars[bin].className = isSure(bin / bins, state) ? "in" : "";
        if (isSure(bin / bins, state)) { count += number; }
      });
      text.textContent = m.t("sure", { overlap: m.decimals(state.overlap, 2), images: m.plural(count, "images") });
    });
    return m.el("div.slider", {}, m.el("div.histogram", { "aria-hidden": "true" }, bars),
      m.el("input", { type: "range", id: "overlap", min: 0, max: 1, step: 1 / bins, value: value.placed ? 0 : lowest, "aria-label": m.t("name.overlap"),
        oninput: function (event) { state.overlap = Number(event.target.value); refresh(state); } }),
      m.el("div", {}, m.term("overlap", m.t("overlap at least")), " ", text));
  }
  function refresh(state) {
    state.redraw.concat(state.update).forEach(function (each) { each(); });
  }
  function words(value, state) {
    var sheet = m.overview.sheets.words, list = m.el("ul.words", {}), shownWords = 12;
    var more = m.el("button", { onclick: function () { shownWords += 60; fill(); } });
    function fill() {
      m.clear(list);
      value.words.slice(0, shownWords).forEach(function (word, place) {
        var picture = sheet ? m.sprite("words", m.wordPlaces.get(word[0]), 40, m.t("word", { n: word[0] })) : null;
        list.appendChild(m.el("li", {}, m.el("button.word", { "aria-pressed": String(state.word === place), onclick: function () {
          state.word = state.word === place ? -1 : place;
          fill();
          refresh(state);
        } }, picture, m.el("div", {}, place < MOST_COLOURS ? m.el("span.swatch", { style: { background: m.colour(place) } }) : null, m.t("word", { n: word[0] }), " ", m.el("span.faint", {}, "× " + m.whole(word[1]))))));
      });
      more.hidden = value.words.length <= shownWords;
      more.textContent = m.t("show more", { n: m.whole(value.words.length - shownWords) });
    }
    fill();
    return m.el("section", {}, m.el("h2", {}, m.t("title.words")), m.el("p.faint.small", {}, m.t(sheet ? "words.about" : "words.plain")), list, more);
  }
  function near(value) {
    if (!value.near.rows.length) { return null; }
    return m.el("section", {}, m.el("h2", {}, m.term("near", m.t("title.near"))), m.el("p.faint.small", {}, m.t("about.near")),
      m.thumbs(value.near.rows, value.near.names, value.near.overlaps.map(function (o) { return m.decimals(o, 2); })));
  }
  // Thumbnails of images, each a link.
  m.thumbs = function (rows, names, notes) {
    return m.el("ul.thumbs", {}, rows.map(function (row, i) {
      return m.el("li", {}, m.el("a", { href: m.imageLink(names[i], row), title: names[i] }, m.sprite("images", m.copied.get(row), 96), m.el("span", {}, names[i])), m.el("span.faint", {}, notes[i]));
    }));
  };
  function goesWith(value, i) {
    var o = m.overview, parts = [], total = value.labels.reduce(function (sum, row) { return sum + row[1]; }, 0);
    if (value.labels.length) {
      var all = o.numLabels.reduce(function (sum, n) { return sum + n; }, 0);
      parts.push(m.el("h3", {}, m.term("label")), m.el("div.bars", { id: "labels" }, value.labels.slice(0, 20).map(function (row) {
        return m.bar(m.labelName(row[0]), row[1] / total, o.numLabels[row[0]] / all, m.t("label.line", { n: m.whole(row[1]), expected: m.decimals(row[2], 1), q: m.small(row[3]) }));
      })), m.el("p.faint.small", {}, m.t("label.about")));
    }
    var clear = value.columns.filter(function (row) { return row[2] < 0.05; });
    if (o.columns.length) {
      parts.push(m.el("h3", {}, m.term("columns")), clear.length ? m.el("ul", { id: "columns" }, clear.slice(0, 15).map(function (row) {
        var column = o.columns[row[0]], high = row[1] > 0.5;
        if (column[1] !== null) { return m.el("li", {}, m.t(high ? "value.more" : "value.fewer", { column: column[0], value: column[1], q: m.small(row[2]) })); }
        return m.el("li", {}, m.t(high ? "column.high" : "column.low", { column: m.columnName(column[0]), share: m.percent(high ? row[1] : 1 - row[1]), q: m.small(row[2]) }));
      })) : m.el("p.faint", {}, m.t("column.none")));
    }
    if (value["with"].length) {
      parts.push(m.el("h3", {}, m.term("with")), m.el("ul", {}, value["with"].map(function (row) {
        return m.el("li", {}, m.structureLink(row[0]), " ", m.t("with.line", { images: m.plural(row[1], "images"), times: m.decimals(row[2], 1) }));
      })));
    }
    return parts.length ? m.el("section", {}, m.el("h2", {}, m.t("title.with")), parts) : null;
  }
  m.columnName = function (name) { // those that the run counts itself have a name in each language
    return m.texts.en["column of " + name] ? m.t("column of " + name) : name;
  };
  function list(value, state) {
    var listed = value.listed, total = m.overview.structures.images[m.placeOf(value.number)];
    function rows() {
      return listed.rows.map(function (_, i) { return i; }).filter(function (i) { return isSure(listed.overlaps[i], state); });
    }
    var table = m.table([
      { key: "image", plain: true, value: function (i) { return listed.names[i]; }, cell: function (i) { return m.el("a", { href: m.imageLink(listed.names[i], listed.rows[i]) }, listed.names[i]); } },
      { key: "overlap", number: true, value: function (i) { return listed.overlaps[i]; }, cell: function (i) { return m.decimals(listed.overlaps[i], 2); } }
    ].concat(m.overview.labels.length ? [{ key: "label", value: function (i) { return m.labelName(listed.labels[i]); }, cell: function (i) { return m.labelName(listed.labels[i]) || "–"; } }] : []),
    rows(), { caption: m.t("title.list"), atFirst: 10 });
    state.update.push(function () { table.set(rows()); });
    function save() {
      var place = value.places;
      m.download("structure_" + value.number + ".csv", m.csv([["structure", "image", "overlap", "label", "x", "y", "size", "angle"]].concat(rows().map(function (i) {
        return [value.number, listed.names[i], listed.overlaps[i], m.labelName(listed.labels[i])].concat(place ? place[i] : [null, null, null, null]);
      }))), "text/csv");
    }
    return m.el("section", {}, m.el("h2", {}, m.t("title.list")), m.el("div.tools", {}, m.el("button", { id: "csv", onclick: save }, m.t("csv")),
      total > listed.rows.length ? m.el("span.faint.small", {}, m.t("listed", { n: m.whole(listed.rows.length), all: m.whole(total) })) : null), table.element);
  }
  function toggle(key, state) {
    return m.el("label", {}, m.el("input", { type: "checkbox", id: "show-" + key, checked: shown[key], onchange: function (event) { shown[key] = event.target.checked; refresh(state); } }), m.t("show." + key));
  }
  m.views.structure = function (main, number) {
    var i = m.placeOf(Number(number)), numbers = m.overview.structures.number;
    if (i === undefined) { main.appendChild(m.el("h1", { tabindex: -1 }, m.t("not shown", { n: number }))); return null; }
    return Promise.all([m.load("structure-" + m.pad(numbers[i], 4)), m.load("words")]).then(function (loaded) {
      var value = loaded[0], state = { overlap: 0, word: -1, redraw: [], update: [] };
      value.placed = !!m.overview.structures.placed[i];
      state.overlap = value.placed ? 0 : m.overview.minOverlap;
      var label = m.labelName(m.overview.structures.label[i]);
      function step(j, key) { return j >= 0 && j < numbers.length ? m.el("a", { href: "#structure=" + numbers[j], rel: key }, m.t(key)) : null; }
      m.add(main, [m.el("div.head", {}, m.el("div", {}, m.el("h1", { tabindex: -1 }, m.structureName(numbers[i])),
        m.el("p", {}, m.t("structure.line", { images: m.plural(m.overview.structures.images[i], "images") }),
          m.isFamily(i) ? " " + m.t("structure.family", { n: m.overview.structures.members[i] }) : "", label === null ? "" : " " + m.t("structure.label", { label: label }))),
      m.el("div.tools", {}, step(i - 1, "prev"), step(i + 1, "next"), value.panel ? m.el("a", { href: value.panel }, m.t("panel")) : null)),
      m.el("label.naming", {}, m.t("your name"), " ", m.el("input", { id: "name", maxlength: 200, value: m.nameOf(numbers[i]), placeholder: m.t("name it"), onchange: function (event) {
        m.setName(numbers[i], event.target.value);
        main.querySelector("h1").textContent = m.structureName(numbers[i]);
      } })), facts(i, value), kin(numbers[i]), parts(value), m.el("h2", {}, m.t("title.images")), slider(value, state),
      value.gallery && value.gallery.length ? [m.el("div.tools", {}, toggle("outlines", state), toggle("keypoints", state)), gallery(value, state)] : plainGallery(value, state),
      near(value), words(value, state), m.el("div.split.even", {}, goesWith(value, i), list(value, state))]);
      refresh(state);
    });
  };
}(minia));
