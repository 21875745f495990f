"use strict";
// One image: at full size, with every structure in it outlined in its own colour.
(function (m) {
  // A picture of this size that can be moved and made larger.
  m.viewer = function (picture, width, height, drawing) {
    var stage = m.el("div.stage", {}, picture, drawing);
    var box = m.el("div.viewer", { tabindex: 0, role: "group", "aria-label": m.t("viewer.label") }, stage);
    var view = { x: 0, y: 0, zoom: 1 }, fit = 1;
    box.style.aspectRatio = width + " / " + height;
    stage.style.width = width + "px";
    stage.style.height = height + "px";
    function place() { stage.style.transform = "translate(" + view.x + "px," + view.y + "px) scale(" + fit * view.zoom + ")"; }
    function reset() {
      fit = Math.min(box.clientWidth / width, box.clientHeight / height) || 1;
      view = { zoom: 1, x: (box.clientWidth - width * fit) / 2, y: (box.clientHeight - height * fit) / 2 };
      place();
    }
    function zoom(factor, x, y) {
      var next = Math.max(0.5, Math.min(40, view.zoom * factor)), change = next / view.zoom;
      view = { zoom: next, x: x - (x - view.x) * change, y: y - (y - view.y) * change };
      place();
    }
    function pan(dx, dy) { view.x += dx; view.y += dy; place(); }
    var zoomMiddle = m.gestures(box, { zoom: zoom, pan: pan, reset: reset });
    box.addEventListener("dblclick", function (event) {
      var at = box.getBoundingClientRect();
      zoom(2, event.clientX - at.left, event.clientY - at.top);
    });
    box.appendChild(m.el("div.over", {},
      m.el("button", { id: "zoom-in", onclick: function () { zoomMiddle(1.5); }, "aria-label": m.t("zoom in") }, "+"),
      m.el("button", { onclick: function () { zoomMiddle(1 / 1.5); }, "aria-label": m.t("zoom out") }, "−"),
      m.el("button", { onclick: reset }, m.t("reset"))));
    new ResizeObserver(reset).observe(box);
    return box;
  };

  // The row of an image: the one in the link if the name is the same there, else looked for among all names.
  function findRow(name, row) {
    var per = m.overview.namesPerScript, count = Math.ceil(m.overview.numImages / per);
    function look(number) {
      if (number >= count) { return Promise.resolve(-1); }
      return m.load("names-" + m.pad(number, 4)).then(function (value) {
        var place = value.names.indexOf(name);
        return place >= 0 ? number * per + place : look(number + 1);
      });
    }
    if (!(row >= 0 && row < m.overview.numImages)) { return look(0); }
    return m.load("names-" + m.pad(Math.floor(row / per), 4)).then(function (value) {
      return value.names[row % per] === name ? row : look(0);
    });
  }
  function describe(row) {
    var per = m.overview.imagesPerScript, names = m.overview.namesPerScript;
    return Promise.all([
      m.load("images-" + m.pad(Math.floor(row / per), 4)), m.load("names-" + m.pad(Math.floor(row / names), 4)),
      m.copied.has(row) ? m.load("image-" + m.pad(row, 6)) : Promise.resolve(null)
    ]).then(function (loaded) {
      var pairs = loaded[0][row % per], held = [];
      for (var i = 0; i < pairs.length; i += 2) { held.push([pairs[i], pairs[i + 1] / 100]); }
      return { held: held, label: loaded[1].labels[row % names], more: loaded[2] };
    });
  }
  function names(rows) {
    var per = m.overview.namesPerScript;
    return Promise.all(rows.map(function (row) {
      return m.load("names-" + m.pad(Math.floor(row / per), 4)).then(function (value) { return value.names[row % per]; });
    }));
  }
  // So many that the report ranks first, then by overlap: all words of a structure of three are soon in an image.
  function firstRankedFirst(held, most) {
    var ranked = held.slice().sort(function (a, b) { return m.placeOf(a[0]) - m.placeOf(b[0]); }).slice(0, most);
    return ranked.concat(held.filter(function (each) { return ranked.indexOf(each) < 0; }));
  }
  function pictured(main, row, found, similar) {
    var more = found.more, drawing = m.svg("svg", m.box(more)), keypoints = false, objects = false;
    var structures = firstRankedFirst(more.held, 4), chosen = structures.map(function (_, i) { return i < 4; });
    function draw(only) {
      var tags = [];
      m.clear(drawing);
      if (objects) { drawing.appendChild(border()); }
      structures.forEach(function (held, i) {
        if (only === undefined ? !chosen[i] : i !== only) { return; }
        var entry = { place: held[2], keypoints: held[3], width: more.width, height: more.height };
        if (keypoints || only !== undefined) { drawing.appendChild(m.keypoints(entry, function () { return m.colour(i); })); }
        drawing.appendChild(m.outline(entry, m.colour(i), m.dash(i)));
        if (held[2]) { tags.push(tag(entry, held[0], i)); }
      });
      tags.forEach(function (each) { drawing.appendChild(each); }); // over all outlines
    }
    function border() { // of what keypoints may lie on
      var thick = Math.max(more.width, more.height) / 260, group = m.svg("g", { class: "objects", fill: "none", "stroke-linejoin": "round" });
      more.objects.forEach(function (polygon) {
        group.appendChild(m.svg("polygon", { points: polygon.join(" "), stroke: "#000", "stroke-width": thick * 2.4, opacity: 0.6 }));
        group.appendChild(m.svg("polygon", { points: polygon.join(" "), stroke: "#fff", "stroke-width": thick, "stroke-dasharray": thick * 3 }));
      });
      return group;
    }
    function tag(entry, structure, number) {
      var height = Math.max(entry.width, entry.height) / 28, place = entry.place;
      var angle = (number * 2.4) % (2 * Math.PI), reach = m.reach(place) + height * 0.7; // around it, so that few hide each other
      var x = Math.max(height, Math.min(entry.width - height, place[0] + reach * Math.cos(angle)));
      var y = Math.max(height, Math.min(entry.height - 2, place[1] + reach * Math.sin(angle) + height / 3));
      return m.svg("text", { x: x, y: y, fill: m.colour(number), stroke: "#000", "stroke-width": height / 6, "paint-order": "stroke",
        "font-size": height, "font-weight": 600, "text-anchor": "middle" }, String(structure));
    }
    var boxes = structures.map(function (held, i) {
      return m.el("input", { type: "checkbox", checked: chosen[i], "aria-label": m.structureName(held[0]), onchange: function (event) { chosen[i] = event.target.checked; draw(); } });
    });
    function all(value) { chosen = chosen.map(function () { return value; }); boxes.forEach(function (box) { box.checked = value; }); draw(); }
    var list = m.el("ul.held", { id: "held", tabindex: 0, "aria-label": m.t("title.held") }, structures.map(function (held, i) {
      return m.el("li", { onmouseenter: function () { draw(i); }, onmouseleave: function () { draw(); } }, boxes[i],
        m.el("span.key", { style: { borderColor: m.colour(i), borderTopStyle: m.dash(i) ? "dashed" : "solid" } }), m.structureLink(held[0]),
        m.el("span.faint.small", {}, m.mention("overlap"), " ", m.decimals(held[1], 2)));
    }));
    draw();
    var picture = m.el("img", { src: m.copy(row), alt: more.name, draggable: "false" });
    m.add(main, [m.el("div.split", {}, m.el("div", {}, m.viewer(picture, more.width, more.height, drawing), m.el("p.faint.small", {}, m.t("viewer.about"))),
      m.el("div", {}, m.el("h2", {}, m.t("title.held")), more.held.length ? [m.el("div.tools", {},
        m.el("button", { onclick: function () { all(true); } }, m.t("all")), m.el("button", { onclick: function () { all(false); } }, m.t("none")),
        m.el("label", {}, m.el("input", { type: "checkbox", id: "show-keypoints", onchange: function (event) { keypoints = event.target.checked; draw(); } }), m.t("show.keypoints")),
        more.objects.length ? m.el("label", {}, m.el("input", { type: "checkbox", id: "show-objects", onchange: function (event) { objects = event.target.checked; draw(); } }), m.term("objects", m.t("show.objects"))) : null), list] : m.el("p.faint", {}, m.t("holds none")))),
    more.values.length ? m.el("details", { open: true }, m.el("summary", {}, m.t("title.values")), m.el("dl.facts", { id: "values" }, more.values.map(function (pair) {
      return m.el("div", {}, m.el("dt", {}, pair[0]), m.el("dd", {}, String(pair[1])));
    }))) : null,
    more.words.length ? m.el("section", {}, m.el("h2", {}, m.t("title.its words")), m.el("p.faint.small", {}, m.t("words.of image")), m.el("ul.words", { id: "words" }, more.words.map(function (word) {
      return m.el("li", {}, m.el("a", { href: "#word=" + word }, m.sprite("words", m.wordPlaces.get(word), 40, m.t("word", { n: word })), m.el("div", {}, m.t("word", { n: word }))));
    }))) : null,
    similar.length ? m.el("section", {}, m.el("h2", {}, m.term("similar", m.t("title.similar"))), m.thumbs(more.similar.map(function (pair) { return pair[0]; }), similar, more.similar.map(function (pair) { return m.decimals(pair[1], 2); }))) : null]);
  }
  m.views.image = function (main, name, hint) {
    return findRow(name, hint === undefined ? -1 : Number(hint)).then(function (row) {
      if (row < 0) { m.add(main, [m.el("h1", { tabindex: -1 }, name), m.el("p", {}, m.t("no image"))]); return null; }
      return describe(row).then(function (found) {
        return names(found.more ? found.more.similar.map(function (pair) { return pair[0]; }) : []).then(function (similar) {
          var label = m.labelName(found.label);
          m.add(main, [m.el("h1", { tabindex: -1, style: { overflowWrap: "anywhere" } }, name), m.el("p.faint", {},
            found.more ? m.whole(found.more.width) + " × " + m.whole(found.more.height) + " px" : "", label === null ? "" : [" · ", m.term("label"), " ", label])]);
          if (found.more) { pictured(main, row, found, similar); return; }
          if (m.overview.sheets.images) { main.appendChild(m.el("p", {}, m.t("no copy"))); }
          m.add(main, [m.el("h2", {}, m.t("title.held")), found.held.length ? m.el("ul.held", { id: "held" }, found.held.map(function (held) {
            return m.el("li", {}, m.structureLink(held[0]), m.el("span.faint.small", {}, m.mention("overlap"), " ", m.decimals(held[1], 2)));
          })) : m.el("p.faint", {}, m.t("holds none"))]);
        });
      });
    });
  };
}(minia));
