"use strict";
// The map of structures: thumbnails on a canvas, to pan and zoom.
(function (m) {
  m.map = function (structures, hooks) {
    var canvas = m.el("canvas", { tabindex: 0, role: "img", "aria-label": m.t("map.label") });
    var context = canvas.getContext("2d");
    var view = { x: 0.5, y: 0.5, zoom: 1 }, sheets = [], wanted = null, hovered = -1, waiting = false;

    function side() { return 0.96 * Math.min(canvas.clientWidth, canvas.clientHeight) * view.zoom; }
    function place(i) {
      return [(structures.x[i] - view.x) * side() + canvas.clientWidth / 2,
        (structures.y[i] - view.y) * side() + canvas.clientHeight / 2, size(i)];
    }
    function size(i) { return Math.max(5, Math.min(220, structures.side[i] * side())); }
    function shown(i) { return !wanted || wanted.has(i); }
    function draw() {
      waiting = false;
      var ratio = window.devicePixelRatio || 1;
      if (canvas.width !== Math.round(canvas.clientWidth * ratio) || canvas.height !== Math.round(canvas.clientHeight * ratio)) {
        canvas.width = Math.round(canvas.clientWidth * ratio);
        canvas.height = Math.round(canvas.clientHeight * ratio);
      }
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
      for (var i = structures.number.length - 1; i >= 0; i -= 1) { if (!shown(i)) { mark(i, 0.12); } }
      for (i = structures.number.length - 1; i >= 0; i -= 1) { if (shown(i) && i !== hovered) { mark(i, 1); } }
      if (hovered >= 0) { mark(hovered, 1); }
      m.mapReady = sheets.every(function (sheet) { return sheet.complete; }); // measured by a benchmark
    }
    function mark(i, strength) {
      var at = place(i), x = at[0] - at[2] / 2, y = at[1] - at[2] / 2;
      if (x > canvas.clientWidth || y > canvas.clientHeight || x + at[2] < 0 || y + at[2] < 0) { return; }
      context.globalAlpha = strength;
      var sheet = m.overview.sheets.structures, picture = sheet && sheets[Math.floor(structures.map[i] / (sheet.columns * sheet.rows))];
      if (picture && picture.complete && picture.naturalWidth) {
        var number = structures.map[i] % (sheet.columns * sheet.rows);
        context.drawImage(picture, (number % sheet.columns) * sheet.width, Math.floor(number / sheet.columns) * sheet.height,
          sheet.width, sheet.height, x, y, at[2], at[2]);
      } else {
        context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--bar");
        context.fillRect(x, y, at[2], at[2]);
      }
      var label = structures.label[i];
      context.lineWidth = i === hovered ? 4 : Math.min(2, at[2] / 14);
      context.strokeStyle = i === hovered ? getComputedStyle(document.documentElement).getPropertyValue("--accent") : m.labelColour(label);
      context.setLineDash(label >= 0 && i !== hovered ? m.dash(label).split(" ").filter(Boolean).map(Number) : []);
      context.strokeRect(x, y, at[2], at[2]);
      context.globalAlpha = 1;
    }
    function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }
    function find(event) {
      var box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      for (var i = 0; i < structures.number.length; i += 1) { // the first are drawn last
        var at = place(i);
        if (shown(i) && Math.abs(at[0] - x) <= at[2] / 2 && Math.abs(at[1] - y) <= at[2] / 2) { return i; }
      }
      return -1;
    }
    function zoom(factor, x, y) {
      var dx = x - canvas.clientWidth / 2, dy = y - canvas.clientHeight / 2;
      var before = side();
      view.zoom = Math.max(0.8, Math.min(60, view.zoom * factor));
      view.x += dx / before - dx / side();
      view.y += dy / before - dy / side();
      redraw();
    }
    function pan(dx, dy) { view.x -= dx / side(); view.y -= dy / side(); redraw(); }
    function reset() { view = { x: 0.5, y: 0.5, zoom: 1 }; redraw(); }

    var zoomMiddle = m.gestures(canvas, {
      zoom: zoom, pan: pan, reset: reset,
      hover: function (event) { hover(find(event), event.clientX, event.clientY); },
      click: function (event) { var i = find(event); if (i >= 0) { m.hideTip(); hooks.open(i); } }
    });
    function hover(i, x, y) {
      if (i !== hovered) { hovered = i; redraw(); }
      canvas.style.cursor = i >= 0 ? "pointer" : "grab";
      if (i >= 0 && x !== undefined) { m.showTip(hooks.describe(i), x, y); } else { m.hideTip(); }
    }
    canvas.addEventListener("pointerleave", function () { hover(-1); });
    if (m.overview.sheets.structures) {
      var sheet = m.overview.sheets.structures;
      var count = Math.ceil(structures.number.length / (sheet.columns * sheet.rows));
      for (var number = 0; number < count; number += 1) {
        sheets[number] = new Image();
        sheets[number].onload = redraw;
        sheets[number].src = m.sheetFile("structures", number);
      }
    }
    new ResizeObserver(redraw).observe(canvas);
    var over = m.el("div.over", {},
      m.el("button", { onclick: function () { zoomMiddle(1.4); }, "aria-label": m.t("zoom in") }, "+"),
      m.el("button", { onclick: function () { zoomMiddle(1 / 1.4); }, "aria-label": m.t("zoom out") }, "−"),
      m.el("button", { onclick: reset }, m.t("reset")));
    return {
      element: m.el("div.map", {}, canvas, over),
      filter: function (chosen) { wanted = chosen; redraw(); },
      highlight: function (i) { hovered = i; redraw(); },
      redraw: redraw
    };
  };
  m.labelColour = function (label) {
    return label >= 0 && label < m.colours.length * m.dashes.length ? m.colour(label) : "#8a93a5";
  };
}(minia));
