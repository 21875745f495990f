"use strict";
// The map of structures: thumbnails on a canvas, to pan and zoom.
(function (m) {
  m.map = function (structures, hooks) {
    var canvas = m.el("canvas", { tabindex: 0, role: "img", "aria-label": m.t("map.label") });
    var context = canvas.getContext("2d");
    var view = { x: 0.5, y: 0.5, zoom: 1 }, sheets = [], wanted = null, hovered = -1, waiting = false;
    var pointers = new Map(), moved = 0;

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
    function zoom(factor, clientX, clientY) {
      var box = canvas.getBoundingClientRect();
      var dx = clientX - box.left - canvas.clientWidth / 2, dy = clientY - box.top - canvas.clientHeight / 2;
      var before = side();
      view.zoom = Math.max(0.8, Math.min(60, view.zoom * factor));
      view.x += dx / before - dx / side();
      view.y += dy / before - dy / side();
      redraw();
    }
    function zoomMiddle(factor) {
      var box = canvas.getBoundingClientRect();
      zoom(factor, box.left + box.width / 2, box.top + box.height / 2);
    }
    function pan(dx, dy) { view.x -= dx / side(); view.y -= dy / side(); redraw(); }
    function reset() { view = { x: 0.5, y: 0.5, zoom: 1 }; redraw(); }

    canvas.addEventListener("wheel", function (event) {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", function (event) {
      pointers.set(event.pointerId, event);
      moved = 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", function (event) {
      var last = pointers.get(event.pointerId);
      if (last) {
        if (pointers.size === 2) {
          var other = Array.from(pointers.values()).find(function (each) { return each.pointerId !== event.pointerId; });
          var before = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY);
          var after = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
          zoom(after / Math.max(before, 1), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
        } else { pan(event.clientX - last.clientX, event.clientY - last.clientY); }
        moved += Math.abs(event.clientX - last.clientX) + Math.abs(event.clientY - last.clientY);
        pointers.set(event.pointerId, event);
        return;
      }
      hover(find(event), event.clientX, event.clientY);
    });
    function hover(i, x, y) {
      if (i !== hovered) { hovered = i; redraw(); }
      canvas.style.cursor = i >= 0 ? "pointer" : "grab";
      if (i >= 0 && x !== undefined) { m.showTip(hooks.describe(i), x, y); } else { m.hideTip(); }
    }
    ["pointerup", "pointercancel"].forEach(function (kind) {
      canvas.addEventListener(kind, function (event) {
        pointers.delete(event.pointerId);
        if (kind === "pointerup" && moved < 5) { var i = find(event); if (i >= 0) { m.hideTip(); hooks.open(i); } }
      });
    });
    canvas.addEventListener("pointerleave", function () { hover(-1); });
    canvas.addEventListener("keydown", function (event) {
      var steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (steps[event.key]) { pan(steps[event.key][0], steps[event.key][1]); event.preventDefault(); }
      if (event.key === "+" || event.key === "=") { zoomMiddle(1.3); }
      if (event.key === "-") { zoomMiddle(1 / 1.3); }
      if (event.key === "0") { reset(); }
    });
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
